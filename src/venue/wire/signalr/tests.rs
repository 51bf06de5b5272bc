use super::oracle::assert_right_writing;
use super::*;
use crate::venue::wire::json;
use proptest::prelude::*;

fn records(payload: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (records, part) = split(payload);
    (records.collect(), part)
}

#[test]
fn a_message_is_taken_apart_at_its_separators() {
    assert_eq!(records(b"a\x1eb\x1e"), (vec![&b"a"[..], b"b"], &b""[..]));
    assert_eq!(records(b"a\x1e\x1eb"), (vec![&b"a"[..], b""], &b"b"[..]));
    assert_eq!(records(b"a"), (vec![], &b"a"[..]));
    assert_eq!(records(b""), (vec![], &b""[..]));
}

/// What a record is, and the call written anew under the target that it names.
fn read(text: &str) -> Result<String, Unfit> {
    let document = json::read(text.as_bytes()).map_err(|_| Unfit::Malformed)?;
    match Record::read(document.root())? {
        Record::Ping => Ok("ping".to_owned()),
        Record::Close => Ok("close".to_owned()),
        Record::Invocation(invocation) => {
            let mut written = Vec::new();
            invocation.write(invocation.target, &mut written);
            assert_right_writing(text.as_bytes(), invocation.target, &written);
            Ok(String::from_utf8(written).expect("UTF-8"))
        }
    }
}

#[test]
fn a_call_is_written_anew_of_what_was_read_and_nothing_else() {
    let text =
        r#"{"headers":{"Authorization":"x"},"invocationId":"\u0030","x":1,"arguments":[ 1.0 ],"target":"T","type":1}"#;
    let wanted = "{\"type\":1,\"target\":\"T\",\"arguments\":[ 1.0 ],\"invocationId\":\"\\u0030\"}\u{1e}";
    assert_eq!(read(text).as_deref(), Ok(wanted));
    assert_eq!(
        read(r#"{"type":1,"target":"T","arguments":[]}"#).as_deref(),
        Ok("{\"type\":1,\"target\":\"T\",\"arguments\":[]}\u{1e}")
    );
    assert_eq!(read(r#"{"type":6}"#).as_deref(), Ok("ping"));
    assert_eq!(read(r#"{"type":7,"error":"x","allowReconnect":true}"#).as_deref(), Ok("close"));
}

#[test]
fn a_record_that_two_readers_may_take_differently_is_refused() {
    for text in [
        r#"{"type":1,"target":"T","target":"U","arguments":[]}"#,
        r#"{"type":1,"target":"T","Target":"U","arguments":[]}"#,
        r#"{"type":1,"Target":"T","arguments":[]}"#,
        r#"{"type":1,"target":"T","ARGUMENTS":[1],"arguments":[]}"#,
        r#"{"type":1,"target":"T","argument\u0073":[]}"#,
        r#"{"type":1,"target":"\u0054","arguments":[]}"#,
        r#"{"type":1,"target":7,"arguments":[]}"#,
        r#"{"type":1,"target":"T","arguments":{}}"#,
        r#"{"type":1,"target":"T"}"#,
        r#"{"type":1,"arguments":[]}"#,
        r#"{"type":1,"target":"T","arguments":[],"invocationId":1}"#,
        r#"{"type":1,"target":"T","arguments":[],"invocationId":null}"#,
        r#"{"type":"1","target":"T","arguments":[]}"#,
        r#"{"type":1.0,"target":"T","arguments":[]}"#,
        r#"{"target":"T","arguments":[]}"#,
        "[]",
        "",
    ] {
        assert_eq!(read(text), Err(Unfit::Malformed), "{text}");
    }
    let long = format!(r#"{{"type":1,"target":"T","arguments":[],"invocationId":"{}"}}"#, "x".repeat(ID_BYTES_MAX));
    assert_eq!(read(&long), Err(Unfit::Malformed));
}

#[test]
fn a_record_of_another_type_or_with_streams_is_unknown() {
    for kind in [0, 2, 3, 4, 5, 8, 9, 10] {
        let text = format!(r#"{{"type":{kind},"invocationId":"1","target":"T","arguments":[]}}"#);
        assert_eq!(read(&text), Err(Unfit::Unknown), "{text}");
    }
    assert_eq!(read(r#"{"type":1,"target":"T","arguments":[],"streamIds":[]}"#), Err(Unfit::Unknown));
}

#[test]
fn a_handshake_asks_for_json_of_a_known_version_or_for_something_else() {
    let read = |text: &str| Handshake::read(json::read(text.as_bytes()).expect("JSON").root());
    for version in 0..=2 {
        let text = format!(r#"{{"protocol": "json", "version": {version}}}"#);
        assert_eq!(read(&text), Ok(Handshake::Json), "{text}");
    }
    assert_eq!(read(r#"{"protocol":"json","version":3}"#), Ok(Handshake::Other));
    assert_eq!(read(r#"{"protocol":"messagepack","version":1}"#), Ok(Handshake::Other));
    for text in [r#"{"protocol":"json"}"#, r#"{"version":1}"#, r#"{"type":6}"#, r#"{"protocol":"json","Version":1}"#] {
        assert_eq!(read(text), Err(Unfit::Malformed), "{text}");
    }
}

#[test]
fn a_failure_repeats_the_id_as_it_was_written() {
    assert_eq!(failure(br#""a\u0062""#, "no"), b"{\"type\":3,\"invocationId\":\"a\\u0062\",\"error\":\"no\"}\x1e");
}

proptest! {
    #[test]
    fn no_text_is_written_as_more_than_was_read(
        members in prop::collection::vec(
            "\"(type|target|Target|arguments|invocationId|headers|streamIds|x)\": ?(1|6|\"[ -~]{0,4}\"|\\[[0-9., ]{0,6}\\]|\\{\\}|null)",
            0..7,
        ),
    ) {
        // `read` compares with serde_json whatever is written.
        let _ = read(&format!("{{{}}}", members.join(",")));
    }

    #[test]
    fn the_arguments_stay_byte_for_byte(arguments in "\\[( ?-?[1-9][0-9]{0,30}(\\.[0-9]{1,20})? ?)?\\]", id in "[a-z0-9-]{1,36}") {
        let written = read(&format!(r#"{{"type":1,"invocationId":"{id}","target":"T","arguments":{arguments}}}"#));
        prop_assert_eq!(
            written,
            Ok(format!("{{\"type\":1,\"target\":\"T\",\"arguments\":{arguments},\"invocationId\":\"{id}\"}}\u{1e}"))
        );
    }
}
