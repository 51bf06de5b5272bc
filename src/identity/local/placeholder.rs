//! Placeholders: texts that stand where a venue's protocol has its token, and name who bought them.
//!
//! Nothing is stored: a placeholder holds everything that is to be known of it, encrypted and authenticated under
//! shares of the master key (a synthetic initialisation vector, as RFC 5297 has it, made of HMAC-SHA256), and so
//! survives a restart. Its alphabet is that of base64, which a JSON string holds as it is; it has no dot, so no reader
//! of client tokens takes it for one.

use super::derived::Derived;
use crate::fresh::UnixMillis;
use crate::identity::{Method, NotAuthenticated};
use crate::names::{AccountName, ClientName};
use crate::scope::{Right, Scope};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// Longest placeholder in bytes: names of the longest length included.
pub const PLACEHOLDER_BYTES_MAX: usize = 1024;

/// Bytes of authentication, which are the initialisation vector as well.
const TAG_BYTES: usize = 16;

/// The first byte: how the rest is laid out.
const VERSION: u8 = 1;
/// The second byte: what it stands for. A later kind can never pass for this one.
const SOCKET_TOKEN: u8 = 1;
/// In place of a scope, where the proof had none.
const UNLIMITED: u8 = 0x80;
/// In place of a moment, where the proof has no end.
const ENDLESS: u64 = u64::MAX;

/// What a placeholder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) client: ClientName,
    pub(super) account: AccountName,
    pub(super) venue: String,
    /// How the client proved its name when it bought this.
    pub(super) method: Method,
    /// What that proof limited itself to.
    pub(super) scope: Option<Scope>,
    /// When that proof ends.
    pub(super) proof_ends_at: Option<UnixMillis>,
    pub(super) generation: u32,
    pub(super) issued_at: UnixMillis,
    pub(super) ends_at: UnixMillis,
    /// Tells it from every other one.
    pub(super) id: [u8; 16],
}

/// The two shares of the master key that placeholders are made with.
pub(super) struct Seal {
    tag: Derived,
    cipher: Derived,
}

impl Seal {
    pub(super) fn new(master: &Secret) -> Self {
        Self { tag: Derived::new(master, "placeholder tag"), cipher: Derived::new(master, "placeholder cipher") }
    }

    /// Writes a placeholder.
    pub(super) fn close(&self, claims: &Claims) -> Secret {
        let mut plain = claims.to_bytes();
        let tag = self.tag_of(&plain);
        self.encrypt(&tag, &mut plain);
        let sealed = [&tag[..], &plain].concat();
        Secret::from(BASE64.encode(sealed))
    }

    /// Reads a placeholder. Says nothing of time, venue and generation: those are for the caller to judge.
    pub(super) fn open(&self, text: &Secret) -> Result<Claims, NotAuthenticated> {
        if text.len() > PLACEHOLDER_BYTES_MAX {
            return Err(NotAuthenticated::Placeholder);
        }
        // Strict: without padding and with no bits left over, so that each placeholder has one spelling.
        let sealed = BASE64.decode(text.expose()).map_err(|_| NotAuthenticated::Placeholder)?;
        let (tag, cipher) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(NotAuthenticated::Placeholder)?;
        let mut plain = cipher.to_vec();
        self.encrypt(tag, &mut plain);
        if Secret::new(self.tag_of(&plain).to_vec()) != Secret::new(tag.to_vec()) {
            return Err(NotAuthenticated::Placeholder);
        }
        Claims::from_bytes(&plain).ok_or(NotAuthenticated::Placeholder)
    }

    fn tag_of(&self, plain: &[u8]) -> [u8; TAG_BYTES] {
        let mac = self.tag.mac(&[plain]);
        std::array::from_fn(|index| mac[index])
    }

    /// Encrypts, and decrypts what it encrypted.
    fn encrypt(&self, tag: &[u8; TAG_BYTES], bytes: &mut [u8]) {
        bytes.iter_mut().zip(self.cipher.stream(&[tag])).for_each(|(byte, key)| *byte ^= key);
    }
}

impl Claims {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, SOCKET_TOKEN, method_byte(self.method), self.scope.map_or(UNLIMITED, scope_byte)];
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.issued_at.0.to_be_bytes());
        bytes.extend_from_slice(&self.ends_at.0.to_be_bytes());
        bytes.extend_from_slice(&self.proof_ends_at.map_or(ENDLESS, |end| end.0).to_be_bytes());
        bytes.extend_from_slice(&self.id);
        for name in [self.client.as_str(), self.account.as_str(), &self.venue] {
            let length = u16::try_from(name.len()).expect("names have at most 256 bytes");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let [VERSION, SOCKET_TOKEN, method, scope] = rest.take()? else { return None };
        let generation = u32::from_be_bytes(rest.take()?);
        let issued_at = UnixMillis(u64::from_be_bytes(rest.take()?));
        let ends_at = UnixMillis(u64::from_be_bytes(rest.take()?));
        let proof_ends_at = u64::from_be_bytes(rest.take()?);
        let id = rest.take()?;
        let client = ClientName::parse(rest.text()?).ok()?;
        let account = AccountName::parse(rest.text()?).ok()?;
        let venue = rest.text()?.to_owned();
        rest.0.is_empty().then_some(())?;
        Some(Self {
            client,
            account,
            venue,
            method: method_of(method)?,
            scope: if scope == UNLIMITED { None } else { Some(scope_of(scope)?) },
            proof_ends_at: (proof_ends_at != ENDLESS).then_some(UnixMillis(proof_ends_at)),
            generation,
            issued_at,
            ends_at,
            id,
        })
    }
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

const METHODS: [Method; 5] = [Method::Anonymous, Method::Jwt, Method::Certificate, Method::LocalKey, Method::NoAuth];

/// The place of a method in a list that only grows.
fn method_byte(method: Method) -> u8 {
    match method {
        Method::Anonymous => 0,
        Method::Jwt => 1,
        Method::Certificate => 2,
        Method::LocalKey => 3,
        Method::NoAuth => 4,
    }
}

fn method_of(byte: u8) -> Option<Method> {
    METHODS.into_iter().find(|method| method_byte(*method) == byte)
}

fn right_bit(right: Right) -> u8 {
    match right {
        Right::Public => 1,
        Right::Read => 2,
        Right::Trade => 4,
        Right::Transfer => 8,
        Right::Admin => 16,
    }
}

fn scope_byte(scope: Scope) -> u8 {
    scope.iter().map(right_bit).sum()
}

fn scope_of(byte: u8) -> Option<Scope> {
    let scope: Scope = Right::ALL.into_iter().filter(|right| byte & right_bit(*right) != 0).collect();
    (scope_byte(scope) == byte).then_some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            client: ClientName::parse("bot-a").expect("a name"),
            account: AccountName::parse("kraken_main").expect("a name"),
            venue: "kraken".to_owned(),
            method: Method::Certificate,
            scope: Some(Scope::PUBLIC.with(Right::Admin)),
            proof_ends_at: Some(UnixMillis(3)),
            generation: 4,
            issued_at: UnixMillis(1),
            ends_at: UnixMillis(2),
            id: [5; 16],
        }
    }

    #[test]
    fn everything_is_read_as_it_was_written() {
        let endless = Claims { scope: None, proof_ends_at: None, ..claims() };
        let nothing = Claims { scope: Some(Scope::NONE), method: Method::LocalKey, ..claims() };
        for claims in [claims(), endless, nothing] {
            assert_eq!(Claims::from_bytes(&claims.to_bytes()), Some(claims));
        }
    }

    #[test]
    fn another_version_kind_method_or_scope_is_not_read_nor_is_more_or_less() {
        let good = claims().to_bytes();
        for (place, bad) in [(0, 0), (0, 2), (1, 0), (1, 2), (2, 5), (3, 32), (3, 0x81)] {
            let mut bytes = good.clone();
            bytes[place] = bad;
            assert_eq!(Claims::from_bytes(&bytes), None, "byte {place} is {bad}");
        }
        for length in 0..good.len() {
            assert_eq!(Claims::from_bytes(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(Claims::from_bytes(&[&good[..], b"x"].concat()), None);
    }

    #[test]
    fn a_sealed_text_shows_nothing_of_what_it_says() {
        let seal = Seal::new(&Secret::from("a master key of the tests, long enough".to_owned()));
        let sealed = seal.close(&claims());
        let bytes = BASE64.decode(sealed.expose()).expect("is base64");
        assert!(memchr::memmem::find(&bytes, b"bot-a").is_none() && memchr::memmem::find(&bytes, b"kraken").is_none());
        assert_eq!(seal.open(&sealed), Ok(claims()));
    }
}
