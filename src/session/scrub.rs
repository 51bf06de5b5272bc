//! Secrets that an exchange could repeat, and overwriting them wherever it does.

use crate::message::Message;
use crate::secret::Secret;
use memchr::memmem::Finder;

/// Shorter than any key or token of a venue; overwriting something this short would hit ordinary data.
const GUARDED_BYTES_MIN: usize = 8;
/// An API key and three tokens, each in two spellings.
const NEEDLES_MAX: usize = 8;

/// The secrets that must not come back, each plain and with its slashes escaped as JSON may have them.
#[derive(Default)]
pub struct Scrub {
    needles: Vec<Finder<'static>>,
}

impl Scrub {
    /// Overwrites this one too, from now on. The oldest make room, so this is for what lives as long as a session.
    pub fn guard(&mut self, secret: &Secret) {
        self.add(secret);
        // Three tokens back nothing is in use any more; the list must not grow with a session's age.
        let surplus = self.needles.len().saturating_sub(NEEDLES_MAX);
        self.needles.drain(..surplus);
    }

    fn add(&mut self, secret: &Secret) {
        let plain = secret.expose();
        if plain.len() < GUARDED_BYTES_MIN {
            return;
        }
        self.needles.push(Finder::new(plain).into_owned());
        if plain.contains(&b'/') {
            let mut escaped = Vec::with_capacity(plain.len() + 4);
            for byte in plain {
                if *byte == b'/' {
                    escaped.push(b'\\');
                }
                escaped.push(*byte);
            }
            self.needles.push(Finder::new(&escaped).into_owned());
        }
    }

    /// True if a secret stands in these bytes.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|needle| needle.find(bytes).is_some())
    }

    /// Overwrites every secret in place with as many `*`. True: there was one.
    pub fn overwrite(&self, bytes: &mut [u8]) -> bool {
        let mut found = false;
        for needle in &self.needles {
            let mut from = 0;
            while let Some(at) = needle.find(&bytes[from..]) {
                let hit = from + at..from + at + needle.needle().len();
                from = hit.end;
                bytes[hit].fill(b'*');
                found = true;
            }
        }
        found
    }

    /// How many bytes at the end of a piece could be the beginning of a secret that the next piece completes.
    pub fn overlap(&self) -> usize {
        self.needles.iter().map(|needle| needle.needle().len() - 1).max().unwrap_or(0)
    }

    /// The message without the secrets; itself if there is none in it.
    pub(super) fn clean(&self, message: Message) -> Message {
        if !self.finds(message.payload()) {
            return message;
        }
        let mut payload = message.payload().to_vec();
        self.overwrite(&mut payload);
        Message::from_peer(message.kind(), payload.into())
    }
}

impl FromIterator<Secret> for Scrub {
    /// All of these, however many: for one answer.
    fn from_iter<I: IntoIterator<Item = Secret>>(secrets: I) -> Self {
        let mut scrub = Self::default();
        secrets.into_iter().for_each(|secret| scrub.add(&secret));
        scrub
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_overwritten_in_both_spellings_and_nothing_else_is() {
        let mut scrub = Scrub::default();
        scrub.guard(&Secret::from("ab/cd/ef+gh".to_owned()));
        let mut bytes = br#"{"a":"ab/cd/ef+gh","b":"ab\/cd\/ef+gh","c":"ab/cd"}"#.to_vec();
        assert!(scrub.overwrite(&mut bytes));
        assert_eq!(bytes, br#"{"a":"***********","b":"*************","c":"ab/cd"}"#);
        assert!(!scrub.overwrite(&mut bytes));
    }

    #[test]
    fn a_short_text_is_no_secret_and_old_ones_make_room() {
        let mut scrub = Scrub::default();
        scrub.guard(&Secret::from("short".to_owned()));
        assert!(!scrub.finds(b"short"));
        for number in 0..20 {
            scrub.guard(&Secret::from(format!("secret number {number:02}")));
        }
        assert!(scrub.finds(b"secret number 19") && !scrub.finds(b"secret number 00"));
        assert_eq!(scrub.overlap(), 15);
    }

    #[test]
    fn secrets_of_one_answer_do_not_push_each_other_out() {
        let scrub: Scrub = (0..20).map(|number| Secret::from(format!("secret/number {number:02}"))).collect();
        assert!((0..20).all(|number| scrub.finds(format!("secret\\/number {number:02}").as_bytes())));
    }
}
