//! Which texts are host names, origins, addresses of exchanges, names of variables.

use crate::config::HostUrl;
use http::Uri;

/// Longest host name (RFC 1035, section 2.3.4, less the root's dot).
const HOST_NAME_BYTES_MAX: usize = 253;

/// True for a name that a client may put into `Host` and SNI.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= HOST_NAME_BYTES_MAX && text.split('.').all(is_label)
}

/// True for what a browser puts into `Origin`: scheme, host, port where it is not the usual one (RFC 6454, section 7).
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let is_whole = uri.authority().is_some_and(|parsed| parsed.as_str() == authority);
    !scheme.is_empty() && is_whole && !text.contains(['@', '*', '?', '#']) && text == text.to_ascii_lowercase()
}

/// True for what a shell takes as a variable's name.
pub(super) fn is_variable_name(text: &str) -> bool {
    let is_start = text.as_bytes().first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    is_start && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads an address of an exchange. The error does not repeat the text: a password may stand in it.
pub(super) fn host_url(text: &str, scheme: &str) -> Result<HostUrl, &'static str> {
    // The parser drops a fragment without a word.
    if text.contains(['?', '#']) {
        return Err("must have no query or fragment: secrets do not belong into addresses");
    }
    let uri: Uri = text.parse().map_err(|_| "is not an address")?;
    let (Some(found), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err("is not an address") };
    if found != scheme {
        return Err(if scheme == "https" { "must start with https://" } else { "must start with wss://" });
    }
    if authority.as_str().contains('@') {
        return Err("must have no user or password: secrets do not belong into addresses");
    }
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => 443,
        _ => authority.port_u16().filter(|port| *port != 0).ok_or("must have a port from 1 to 65535, or none")?,
    };
    let is_literal = host.starts_with('[') && host.ends_with(']');
    if !is_literal && !is_host_name(host) {
        return Err("has no host name");
    }
    Ok(HostUrl { host: host.to_ascii_lowercase(), port, path: uri.path().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_an_exchange_is_a_scheme_a_host_and_perhaps_a_port_and_a_path() {
        let read = |text| host_url(text, "wss").map(|url| (url.host, url.port, url.path));
        assert_eq!(read("wss://WS.example"), Ok(("ws.example".to_owned(), 443, "/".to_owned())));
        assert_eq!(read("wss://[::1]:9001/v2"), Ok(("[::1]".to_owned(), 9001, "/v2".to_owned())));
        for bad in [
            "",
            "ws.example",
            "ws://ws.example",
            "https://ws.example",
            "wss://",
            "wss://:443",
            "wss://a.example:0",
            "wss://a.example:99999",
            "wss://a.example:",
            "wss://user:word@a.example",
            "wss://a.example/?token=x",
            "wss://a.example/#x",
            "wss://*.example",
            "wss://a b",
        ] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for good in ["https://desk.example", "http://localhost:3000", "chrome-extension://abcdef"] {
            assert!(is_origin(good), "{good:?} was refused");
        }
        for bad in
            ["", "*", "null", "desk.example", "https://desk.example/", "https://Desk.example", "https://u@h", "://h"]
        {
            assert!(!is_origin(bad), "{bad:?} was taken");
        }
    }

    #[test]
    fn host_names_hold_no_port_wildcard_or_empty_label() {
        assert!(is_host_name("proxy-1.desk.internal"));
        for bad in ["", "a..b", "a:1", "*.desk", "a_b", ".a", "a.", &"a".repeat(64)] {
            assert!(!is_host_name(bad), "{bad:?} was taken");
        }
    }
}
