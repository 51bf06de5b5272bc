//! Checks Bitfinex' signatures (docs.bitfinex.com, "REST authenticated" and "WS authenticated"), from the documentation alone.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;

/// The greatest nonce that the venue takes (docs.bitfinex.com, "REST authenticated": `MAX_SAFE_INTEGER`).
pub(super) const NONCE_MAX: u64 = 9_007_199_254_740_991;

/// Whether `signature` is the lower-case hexadecimal HMAC-SHA384 of `parts`, one after the other.
pub(super) fn is_signed(secret: &str, parts: &[&[u8]], signature: &str) -> bool {
    if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return false;
    }
    let Ok(signature) = hex::decode(signature) else { return false };
    let Ok(mut mac) = Hmac::<Sha384>::new_from_slice(secret.as_bytes()) else { return false };
    for part in parts {
        mac.update(part);
    }
    mac.verify_slice(&signature).is_ok()
}

/// A nonce in digits that the venue could take.
pub(super) fn nonce(text: &str) -> Option<u64> {
    let nonce = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    nonce.filter(|nonce| *nonce <= NONCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with an independent program (Python's hmac) and the secret `dummysecret`; the requests also by ccxt.
    const NONCE: &[u8] = b"1616492376594000";

    #[test]
    fn a_login_is_verified_over_the_payload_as_given() {
        let once = "9c6589eb8dfa0a9a7eaba3ac7bca280639ac2bc384ed48fcbca706e1971bdc1d1d6a8c798a7466ff0941d59c9b36c701";
        assert!(is_signed("dummysecret", &[b"AUTH1616492376594000"], once));
        let twice = "06357b903a0c3ee99403a305100657503792645ee9b67a3eb7aa99e414b39a9cd54b020bc3c89ff719d8318af2789861";
        assert!(is_signed("dummysecret", &[b"AUTH16164923765940001616492376594000"], twice));
        assert!(!is_signed("dummysecret", &[b"AUTH1616492376594000"], twice));
        assert!(!is_signed("othersecret", &[b"AUTH1616492376594000"], once));
        assert!(!is_signed("dummysecret", &[b"AUTH1616492376594000"], &once.to_uppercase()));
    }

    #[test]
    fn a_request_is_verified_over_path_nonce_and_body() {
        let body = br#"{"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1"}"#;
        let signature =
            "132788c2e09f4c84032f9998e6b0561f53f85ba4a6b87456aec863c9262505ba274228535542c9df3c0066b79877789d";
        assert!(is_signed("dummysecret", &[b"/api/v2/auth/w/order/submit", NONCE, body], signature));
        let signature =
            "85adcdb0000a8ff91d343fdd899010ebb3e8b8752fbf1a05401f890ced9472022b55cfdc2cd0f05b23fec036852ce7f0";
        assert!(is_signed("dummysecret", &[b"/api/v2/auth/r/wallets", NONCE, b"{}"], signature));
        let signature =
            "0f78e45fb8349e4c91379d2bfbf8cc196720d0b71760f98945a9c8c0ca1bf0d64b5db302f82be5aad4d142cb69af5ee7";
        assert!(is_signed("dummysecret", &[b"/api/v2/auth/r/wallets", NONCE, b""], signature));
        assert!(!is_signed("dummysecret", &[b"/api/v2/auth/r/orders", NONCE, b""], signature));
    }

    #[test]
    fn a_nonce_beyond_what_a_double_counts_is_none() {
        assert_eq!(nonce("9007199254740991"), Some(NONCE_MAX));
        for text in ["9007199254740992", "", "-1", "+1", "1e3"] {
            assert_eq!(nonce(text), None, "{text}");
        }
    }
}
