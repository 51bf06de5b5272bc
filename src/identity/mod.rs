//! Who a client is: proofs, what they prove, and until when.
//!
//! Not what the client may do: that is `policy`. Pure: time comes in as an argument, keys as bytes; no socket, file
//! or clock is touched. Only this module makes a [`Principal`], so whoever holds one knows that a check ran.

pub mod budget;
pub mod first_message;
mod json;
pub mod jwt;
pub mod local;
pub mod mtls;

use crate::fresh::UnixMillis;
use crate::names::{AccountName, ClientName};
use crate::scope::Scope;
use crate::secret::Secret;
use crate::venue::{ClientLogin, SignedLogin};
use jwt::JwtKeys;
use local::{KeyHash, LocalKeys};
use mtls::CertificateProof;

/// The name of a client that has shown no proof. No proof can earn it.
const ANONYMOUS: &str = "anonymous";

/// What a client shows to prove who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A JSON Web Token in its compact form, from `Authorization: Bearer` or from the first message.
    Jwt(Secret),
    /// A client certificate whose chain the TLS handshake has verified.
    Certificate(CertificateProof),
    /// A request or login of a venue's own, signed with a local key.
    LocalKey {
        /// The venue whose protocol it is.
        venue: &'static str,
        /// What was signed, and the signature.
        login: SignedLogin,
    },
    /// A local key as it is, in a venue's login that signs nothing.
    BareKey {
        /// The venue whose protocol it is.
        venue: &'static str,
        /// The public half.
        api_key: String,
        /// The secret half.
        secret: Secret,
    },
    /// A placeholder that stands where a venue's protocol has its token.
    Placeholder {
        /// The venue whose protocol it is.
        venue: &'static str,
        /// The text that was shown.
        token: Secret,
    },
}

impl Proof {
    /// The proof that is in a venue's own protocol.
    pub fn shown_at(venue: &'static str, shown: ClientLogin) -> Self {
        match shown {
            ClientLogin::Signed(login) => Self::LocalKey { venue, login },
            ClientLogin::Token(token) => Self::Placeholder { venue, token },
            ClientLogin::Key { api_key, secret } => Self::BareKey { venue, api_key, secret },
        }
    }
}

/// How a principal's name was proved. A grant names it before the client's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Not at all: the client has shown nothing yet.
    Anonymous,
    /// By a token.
    Jwt,
    /// By a client certificate.
    Certificate,
    /// By a local key: a signature made with it, or the key itself where its venue's login sends that.
    LocalKey,
    /// Not at all, because the configuration says `unsafe_no_auth`.
    NoAuth,
}

impl Method {
    /// The word in grants and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Method::Anonymous => ANONYMOUS,
            Method::Jwt => "jwt",
            Method::Certificate => "cert",
            Method::LocalKey => "key",
            Method::NoAuth => "unsafe_no_auth",
        }
    }
}

/// A client whose proof was accepted. Its fields are private, so only this module can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: ClientName,
    method: Method,
    ends_at: Option<UnixMillis>,
    scope: Option<Scope>,
    account: Option<AccountName>,
    generation: Option<u32>,
}

impl Principal {
    /// A client that has shown no proof. Only a grant to `anonymous` by name lets it do anything.
    pub fn anonymous() -> Self {
        let name = ClientName::parse(ANONYMOUS).expect("nine letters are a client's name");
        Self { name, method: Method::Anonymous, ends_at: None, scope: None, account: None, generation: None }
    }

    /// A client that is believed without proof, for `unsafe_no_auth` on loopback alone.
    pub fn danger_unproved_for_development(name: ClientName) -> Self {
        Self { name, method: Method::NoAuth, ends_at: None, scope: None, account: None, generation: None }
    }

    /// Who it is.
    pub fn name(&self) -> &ClientName {
        &self.name
    }

    /// How that was proved.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The first moment at which the proof no longer counts, leeway included: a session ends then, with nothing
    /// to be added. `None` if the proof has no end.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        self.ends_at
    }

    /// What the token limits itself to; `None` if it does not. The grant still decides: what counts is what both hold.
    pub fn scope(&self) -> Option<Scope> {
        self.scope
    }

    /// The account that the proof is for, and no other one; `None` if it leaves that open. Local keys and
    /// placeholders are bound.
    pub fn account(&self) -> Option<&AccountName> {
        self.account.as_ref()
    }

    /// The generation of the local key or placeholder that was shown; `None` for every other proof. Once the client's
    /// generation is another one, the proof no longer counts.
    pub fn generation(&self) -> Option<u32> {
        self.generation
    }
}

/// Everything that a proof is checked against.
#[derive(Debug, Default)]
pub struct TrustedKeys {
    jwt: Option<JwtKeys>,
    local: Option<LocalKeys>,
}

impl TrustedKeys {
    /// Trusts tokens by these keys, and local keys and placeholders by those; `None` where no client proves itself so.
    pub fn new(jwt: Option<JwtKeys>, local: Option<LocalKeys>) -> Self {
        Self { jwt, local }
    }

    /// What makes local keys and placeholders, if they are configured.
    pub fn local(&self) -> Option<&LocalKeys> {
        self.local.as_ref()
    }
}

/// Decides whether a proof proves anything at this moment.
///
/// A signature made with a local key counts once: asked again about the same one, this says
/// [`NotAuthenticated::Replayed`].
pub fn authenticate(proof: &Proof, now: UnixMillis, trusted: &TrustedKeys) -> Result<Principal, NotAuthenticated> {
    match proof {
        Proof::Jwt(token) => {
            let keys = trusted.jwt.as_ref().ok_or(NotAuthenticated::NoKeys)?;
            let claims = jwt::verify(token, now, keys)?;
            Ok(Principal {
                name: claims.subject,
                method: Method::Jwt,
                ends_at: Some(claims.ends_at),
                scope: claims.scope,
                account: None,
                generation: None,
            })
        }
        Proof::LocalKey { venue, login } => {
            let local = trusted.local.as_ref().ok_or(NotAuthenticated::NoKeys)?;
            local.verify(venue, login, now)
        }
        Proof::BareKey { venue, api_key, secret } => {
            let local = trusted.local.as_ref().ok_or(NotAuthenticated::NoKeys)?;
            local.verify_bare(venue, api_key, secret)
        }
        Proof::Placeholder { venue, token } => {
            let local = trusted.local.as_ref().ok_or(NotAuthenticated::NoKeys)?;
            local.redeem(venue, token, now)
        }
        Proof::Certificate(certificate) => {
            let name = certificate.name_at(now)?;
            Ok(Principal {
                name: name.clone(),
                method: Method::Certificate,
                ends_at: Some(certificate.ends_at()),
                scope: None,
                account: None,
                generation: None,
            })
        }
    }
}

/// Why a proof was not accepted. For our log alone: a peer hears one sentence for all of them, or it could learn
/// which half of a forgery already fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthenticated {
    /// Nothing is configured to verify this kind of proof with.
    #[error("no keys are configured for this kind of proof")]
    NoKeys,
    /// The token is longer than [`jwt::TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// Not a token in its compact form; or its JSON names a member twice, misses one or has one of another type.
    #[error("the token is malformed")]
    Malformed,
    /// The header says that this is another kind of token.
    #[error("the token's typ is not JWT")]
    Type,
    /// The header tells us where to find a key, or demands an extension.
    #[error("the token's header holds a member that is refused")]
    HeaderMember,
    /// No key is configured for the token's algorithm, or its key is for another.
    #[error("the token's algorithm is not that of a configured key")]
    Algorithm,
    /// The token names a key that is not configured.
    #[error("the token names an unknown key")]
    UnknownKey,
    /// No configured key made this signature; or it was not made with the secret of the local key that it names, or
    /// another secret was shown with it.
    #[error("the signature or secret is wrong")]
    Signature,
    /// The proof is over: the token's `exp` with leeway, or the certificate's `notAfter`.
    #[error("the proof has expired")]
    Expired,
    /// The proof has not begun: the token's `nbf` or `iat` with leeway, or the certificate's `notBefore`.
    #[error("the proof is not valid yet")]
    NotYetValid,
    /// The token lives longer than allowed, or ends before it was issued.
    #[error("the token's lifetime is not allowed")]
    Lifetime,
    /// The token was made for another service, or for none.
    #[error("the token's audience is wrong")]
    Audience,
    /// The token was made by somebody else.
    #[error("the token's issuer is wrong")]
    Issuer,
    /// The token's subject is missing or cannot be the name of a client.
    #[error("the token's subject is not a client name")]
    Subject,
    /// The token limits itself to something that is not a right.
    #[error("the token's scope holds an unknown word")]
    Scope,
    /// The certificate does not parse.
    #[error("the certificate is malformed")]
    Certificate,
    /// The certificate names more than one client.
    #[error("the certificate holds more than one name")]
    CertificateAmbiguous,
    /// The certificate holds no name that could be a client's.
    #[error("the certificate holds no client name")]
    CertificateName,
    /// An API key that we did not issue was shown. An alarm: it may be one of the exchange's own.
    #[error("an API key that is not ours was shown (SHA-256 {0}…); if it is the exchange's, take it from that bot")]
    ForeignKey(KeyHash),
    /// A local key was shown at another venue than its own. An alarm: two bots may have been mixed up.
    #[error("a local key of another venue was shown (SHA-256 {0}…)")]
    KeyOfOtherVenue(KeyHash),
    /// A local key or placeholder of an earlier generation of its client.
    #[error("a local key or placeholder of an earlier generation; give the bot what `countersign key` prints now")]
    Generation,
    /// The signature was seen before.
    #[error("the signature was seen before")]
    Replayed,
    /// The nonce lies over 60 s below the highest of its unit, or below the start of this process.
    #[error("the nonce is over 60 s behind others of this key, or behind the start of the proxy")]
    NonceTooOld,
    /// Not a placeholder of ours, or one that was changed.
    #[error("the token is no placeholder of ours")]
    Placeholder,
    /// Its bot has given the placeholder up.
    #[error("the placeholder was given up by a logout")]
    LoggedOut,
    /// A placeholder for another venue.
    #[error("the placeholder is for another venue")]
    PlaceholderOfOtherVenue,
}

impl NotAuthenticated {
    /// The `reason` in the log. An alarm has one of its own, to be watched for: a key of the exchange's may be where
    /// it should not be.
    pub const fn reason(self) -> &'static str {
        if matches!(self, Self::ForeignKey(_) | Self::KeyOfOtherVenue(_)) {
            "foreign_key"
        } else if matches!(self, Self::Replayed | Self::NonceTooOld) {
            "replayed"
        } else {
            "auth_invalid"
        }
    }
}

/// Reads the name that a proof carries. `anonymous` is refused: a policy would take its bearer for nobody.
fn proved_name(text: &str) -> Option<ClientName> {
    ClientName::parse(text).ok().filter(|_| text != ANONYMOUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_configured_keys_proves_nothing() {
        let proof = Proof::Jwt(Secret::from("a.b.c".to_owned()));
        let refusal = authenticate(&proof, UnixMillis(0), &TrustedKeys::default());
        assert_eq!(refusal, Err(NotAuthenticated::NoKeys));
    }

    #[test]
    fn an_anonymous_principal_has_no_end_and_says_so_in_its_method() {
        let nobody = Principal::anonymous();
        assert_eq!(nobody.method(), Method::Anonymous);
        assert_eq!(nobody.name().as_str(), "anonymous");
        assert_eq!((nobody.ends_at(), nobody.scope()), (None, None));
    }

    #[test]
    fn no_proof_earns_the_name_anonymous() {
        assert!(proved_name("anonymous").is_none());
        assert!(proved_name("anonymous2").is_some());
    }
}
