//! Checks Kraken's `API-Sign` (docs.kraken.com, "Spot REST authentication"), from the documentation alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Whether `signature` is base64(HMAC-SHA512(secret, path || SHA256(nonce || body))).
pub(super) fn is_signed(secret: &[u8], path: &str, nonce: &str, body: &[u8], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(secret) else { return false };
    let digest = Sha256::new().chain_update(nonce.as_bytes()).chain_update(body).finalize();
    mac.update(path.as_bytes());
    mac.update(&digest);
    mac.verify_slice(&signature).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    const SECRET: &str = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
    const NONCE: &str = "1616492376594";

    fn is_good(path: &str, body: &str, signature: &str) -> bool {
        is_signed(&STANDARD.decode(SECRET).unwrap(), path, NONCE, body.as_bytes(), signature)
    }

    #[test]
    fn the_published_vector_is_accepted() {
        // docs.kraken.com, "Spot REST authentication".
        let body = "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25";
        let signature = "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==";
        assert!(is_good("/0/private/AddOrder", body, signature));
        assert!(!is_good("/0/private/AddOrder", &body.replace("1.25", "1.26"), signature));
        assert!(!is_good("/0/private/CancelOrder", body, signature));
        assert!(!is_good("/0/private/AddOrder", body, ""));
    }

    #[test]
    fn json_bodies_are_signed_as_they_are() {
        // Computed with an independent program (Python's hmac) from the same secret.
        let order = r#"{"nonce":"1616492376594","ordertype":"limit","pair":"XBTUSD","price":"37500","type":"buy","volume":"1.25"}"#;
        let signature = "r/o+GpKxXjV/mls/r5CKLu5R+yzK5psqvQ4hXxMX1nzdxTBhV+ui82QGgPZMMitpFwCOAdPEZMmXgZxD2chJEg==";
        assert!(is_good("/0/private/AddOrder", order, signature));
        let signature = "ZVxRwNS9zIRhbpUb8yixCnTByWFw2zyehNjZaXEL5we8API+r8c+DBmgFxxnKoY+TaJXx0NSYhsaAexZm62elg==";
        assert!(is_good("/0/private/Balance", r#"{"nonce":1616492376594}"#, signature));
        let signature = "+mRDmY9Ks0Moc1zjv/BjfvYa98buO0x1yHChZR5onlfAzAUbfIYlLggUZzdQ0RsmXm4Sh+Q8iAIZdo2wSeHeiA==";
        assert!(is_good("/0/private/GetWebSocketsToken", "nonce=1616492376594", signature));
    }
}
