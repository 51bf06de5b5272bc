//! The secret that `countersign run` writes into the proxy URL, and that the CONNECT listener asks for.
//!
//! Both processes derive it from a key file that both can read, so nothing has to be handed over. It opens tunnels
//! to this house and proves nothing of a client.

use super::{Exit, assemble};
use crate::config::Config;
use crate::connect::SecretCheck;
use crate::credential::{SecretFormat, Signer};
use crate::secret::Secret;
use std::sync::Arc;

/// What is signed, before the number of a run. The NUL keeps it apart from every JWT that the same key signs.
const LABEL: &[u8] = b"countersign run\0";

/// Bytes of the number of a run.
const NUMBER_BYTES: usize = 16;

/// A secret for one run: its number and a signature of that, in hex.
pub(super) fn run_secret(config: &Config) -> Result<String, Exit> {
    let mut number = [0; NUMBER_BYTES];
    getrandom::fill(&mut number).map_err(|_| Exit::failed("the system gave no random numbers"))?;
    Ok(secret_of(&master(config)?, &number))
}

/// What knows the secrets that [`run_secret`] makes.
pub(super) fn secret_check(config: &Config) -> Result<SecretCheck, Exit> {
    let master = master(config)?;
    Ok(Arc::new(move |shown| {
        let mut number = [0; NUMBER_BYTES];
        let is_number =
            shown.get(..2 * NUMBER_BYTES).is_some_and(|text| hex::decode_to_slice(text, &mut number).is_ok());
        // `Secret` compares in constant time.
        is_number && Secret::from(secret_of(&master, &number)) == Secret::new(shown.to_vec())
    }))
}

fn secret_of(master: &Signer, number: &[u8; NUMBER_BYTES]) -> String {
    format!("{}{}", hex::encode(number), hex::encode(master.hmac_sha256(&[LABEL, number])))
}

fn master(config: &Config) -> Result<Signer, Exit> {
    let secret = config.clients.jwt.as_ref().and_then(|jwt| jwt.secret.as_ref()).ok_or_else(|| {
        Exit::configuration("connect: the secrets of `countersign run` are derived from `clients.jwt.secret`; set it")
    })?;
    let explained = |error| {
        let hint = if assemble::is_first_start(config) { "; `countersign certs` makes it" } else { "" };
        Exit::configuration(format!("clients.jwt.secret: {error}{hint}"))
    };
    let secret = secret.resolve(&config.base).map_err(explained)?;
    Signer::new(&Secret::from("run".to_owned()), &secret, SecretFormat::Text).map_err(Exit::configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(secret: &str) -> Signer {
        let secret = Secret::from(secret.to_owned());
        Signer::new(&Secret::from("run".to_owned()), &secret, SecretFormat::Text).expect("a key")
    }

    #[test]
    fn every_run_has_a_secret_of_its_own_and_another_key_makes_another() {
        let one = secret_of(&master("one"), &[1; NUMBER_BYTES]);
        assert_eq!(one.len(), 96);
        assert_eq!(one, secret_of(&master("one"), &[1; NUMBER_BYTES]));
        assert_ne!(one, secret_of(&master("one"), &[2; NUMBER_BYTES]));
        assert_ne!(one[32..], secret_of(&master("two"), &[1; NUMBER_BYTES])[32..]);
    }
}
