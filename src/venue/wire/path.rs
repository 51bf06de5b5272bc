//! Judges the path and the query of a REST request, so that what we look up in a table is what the exchange will
//! find. Nothing is normalised: whatever would change by it is refused.
//!
//! Source: RFC 3986, section 3.3 (segments) and 3.4 (queries).

/// True if the path has one reading only: segments of plain characters behind one slash each.
///
/// Refused are paths with an empty segment (`//`, a slash at the end), a segment of dots, a percent escape, a
/// parameter (`;`), a backslash, and every byte that no segment may hold. `:` and `@` pass: symbols hold them.
pub fn is_canonical(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return false };
    segments.split('/').all(|segment| {
        let is_dots = matches!(segment, "." | "..");
        !segment.is_empty() && !is_dots && segment.bytes().all(is_plain_in_segment)
    })
}

/// True if the query holds nothing that could end a line, a string or the query itself: ASCII that a query may hold,
/// whole escapes, and no control character behind an escape.
///
/// Beyond RFC 3986 it takes `[` and `]`, which client libraries leave as they are.
pub fn query_is_plain(query: &str) -> bool {
    let bytes = query.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            match escaped(bytes, at) {
                Some(meant) if !meant.is_ascii_control() => at += 3,
                _ => return false,
            }
        } else if is_plain_in_segment(byte) || b"/?;[]".contains(&byte) {
            at += 1;
        } else {
            return false;
        }
    }
    true
}

/// The byte that the escape `%41` at this place stands for. `None`: it is broken.
pub(super) fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(at + 1)? << 4 | digit(at + 2)?)
}

/// RFC 3986: unreserved characters and sub-delimiters, `:` and `@`; without `;`, behind which some servers see
/// parameters of the segment.
fn is_plain_in_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_plain_segments_is_canonical() {
        for path in [
            "/0/private/AddOrder",
            "/0/private/Earn/Allocate",
            "/v2/auth/r/order/tTESTBTC:TESTUSD:123/trades",
            "/v2/conf/pub:map:currency:sym,pub:list:pair:exchange",
            "/v2/auth/w/alert/price:tBTCUSD:600.5/del",
            "/a..b/.well-known/~x/...",
        ] {
            assert!(is_canonical(path), "{path} was refused");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        for path in [
            "",
            "/",
            "//",
            "0/private/Balance",
            "/0/public/../private/Withdraw",
            "/0/public/./Time",
            "/0/private/Withdraw/..",
            "/..",
            "/0/public/%2e%2e/private/Withdraw",
            "/0/public/%2E%2E/private/Withdraw",
            "/0/private%2FWithdraw",
            "/0//private/Balance",
            "/0/private/Balance/",
            "/0/public;x/Time",
            "/0/public/Time;jsessionid=1",
            "/0/public/Time%00",
            "/0/public/Time\0",
            "/0/public\\private/Withdraw",
            "/0/public/Time?a=b",
            "/0/public/Time#private",
            "/0/public/Time\r\nHost: evil",
            "/0/public/Ti me",
            "/0/public/T\u{ef}me",
            "/0/public/[Time]",
            "https://evil.example/0/public/Time",
            "*",
        ] {
            assert!(!is_canonical(path), "{path:?} was taken");
        }
    }

    #[test]
    fn a_query_as_clients_write_it_is_plain() {
        for query in ["", "pair=XBT/USD&since=1", "symbols=tBTCUSD%2CtETHUSD", "a[0]=1&b=%2B5%25&c=x+y", "a=1;b=2", "?"]
        {
            assert!(query_is_plain(query), "{query:?} was refused");
        }
    }

    #[test]
    fn a_query_with_control_characters_or_broken_escapes_is_refused() {
        for query in [
            "a=%0d%0aHost:%20evil",
            "a=%0A",
            "a=%00",
            "a=%7f",
            "a=%1",
            "a=%",
            "a=%zz",
            "a=%+1",
            "a=1\r\n",
            "a=\0",
            "a=b c",
            "a=\u{e9}",
            "a=#b",
            "a=\"b\"",
            "a=<b>",
            "a=b\\c",
        ] {
            assert!(!query_is_plain(query), "{query:?} was taken");
        }
    }
}
