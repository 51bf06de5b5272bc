#![allow(clippy::unwrap_used)]

use super::oracle::assert_right_judgement;
use super::reader::{INLINE_NODES, PAIRWISE_MEMBERS_MAX};
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::time::{Duration, Instant};

const ORDER: &str = r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","order_qty":0.10000000000000000001,"symbol":"BTC/USD","limit_price":26500.40,"time_in_force":"gtc","post_only":true,"cl_ord_id":"6d1b345e-2821-40e2-ad83-4ecb18a06876","token":"PLACEHOLDER"},"req_id":123456789}"#;

fn refusal(text: &str) -> Option<Malformed> {
    assert_right_judgement(text.as_bytes(), read(text.as_bytes()).is_ok());
    read(text.as_bytes()).err()
}

#[test]
fn an_order_is_found_where_it_stands() {
    let document = read(ORDER.as_bytes()).unwrap();
    let order = document.root().as_object().unwrap();
    let params = order.get("params").unwrap().as_object().unwrap();
    assert_eq!(order.get("method").unwrap().plain_str(), Some("add_order"));
    assert_eq!(order.get("req_id").unwrap().as_u64(), Some(123_456_789));
    assert_eq!(params.get("order_qty").unwrap().raw(), b"0.10000000000000000001");
    assert_eq!(params.get("post_only").unwrap().kind(), Kind::True);
    let token = params.get("token").unwrap().span();
    assert_eq!(&ORDER[token], r#""PLACEHOLDER""#);
    assert_eq!((order.len(), params.len()), (3, 9));
    assert!(order.get("token").is_none() && order.get("Method").is_none());
}

#[test]
fn a_member_named_twice_is_refused_at_every_depth() {
    assert_eq!(refusal(r#"{"method":"ping","method":"add_order"}"#), Some(Malformed::DuplicateMember(17)));
    assert_eq!(refusal(r#"{"method":"ping","params":{"method":"ping"}}"#), None);
    assert_eq!(refusal(r#"[{"a":{"b":1,"c":[{"d":1,"d":1}]}}]"#), Some(Malformed::DuplicateMember(25)));
    assert_eq!(refusal(r#"[{"a":{"b":1,"c":[{"d":1,"e":1}]}},{"a":1}]"#), None);
    assert_eq!(refusal(r#"{"":1,"":1}"#), Some(Malformed::DuplicateMember(6)));
}

#[test]
fn a_member_named_twice_in_other_case_is_refused() {
    assert_eq!(refusal(r#"{"Method":"ping","method":"add_order"}"#), Some(Malformed::DuplicateMember(17)));
    assert_eq!(refusal(r#"{"é":1,"É":2}"#), None);
    assert_eq!(refusal(r#"{"é":1,"é":2}"#), Some(Malformed::DuplicateMember(8)));
}

#[test]
fn a_duplicate_is_found_among_any_number_of_members() {
    for members in [2, PAIRWISE_MEMBERS_MAX, PAIRWISE_MEMBERS_MAX + 1, INLINE_NODES, 5000] {
        let names: Vec<_> = (0..members).map(|index| format!("\"{}{index}\":{{\"x\":0}}", "n".repeat(70))).collect();
        assert_eq!(refusal(&format!("{{{}}}", names.join(","))), None);
        for twice in [0, members / 2, members - 1] {
            let text = format!("{{{},{}}}", names.join(","), names[twice].to_uppercase());
            assert_eq!(refusal(&text), Some(Malformed::DuplicateMember(text.rfind("\"NN").unwrap())));
        }
    }
}

#[test]
fn a_name_with_an_escape_is_refused_and_a_text_with_one_is_not() {
    assert_eq!(refusal(r#"{"me\u0074hod":"ping"}"#), Some(Malformed::EscapedName(1)));
    assert_eq!(refusal(r#"[{"a":{"x\/":1}}]"#), Some(Malformed::EscapedName(7)));
    assert_eq!(refusal(r#"{"method":"pi\u006eg"}"#), None);
    let document = read(br#"{"method":"pi\u006eg"}"#).unwrap();
    let method = document.root().as_object().unwrap().get("method").unwrap();
    assert_eq!(method.plain_str(), None);
    assert_eq!(method.text().as_deref(), Some("ping"));
}

#[test]
fn a_known_name_in_other_case_is_seen() {
    let known = ["method", "params", "token", "req_id"];
    for (text, expected) in [
        (r#"{"method":1,"params":2,"other":3}"#, false),
        (r#"{"Method":1}"#, true),
        (r#"{"method":1,"PARAMS":2}"#, true),
        (r#"{"methods":1,"metho":2}"#, false),
        (r#"{"paramſ":1}"#, true),
        ("{\"to\u{212a}en\":1}", true),
        ("{\"req_\u{131}d\":1}", true),
        (r#"{"paramß":1,"é":2}"#, false),
        ("{}", false),
    ] {
        let document = read(text.as_bytes()).unwrap();
        assert_eq!(document.root().as_object().unwrap().in_other_case(&known), expected, "{text}");
    }
}

#[test]
fn only_the_grammar_is_taken() {
    for text in [
        "{}",
        "[]",
        " \t\r\n{ } \t\r\n",
        "0",
        "-0",
        "-1.5e-7",
        "1E+9",
        "1e999",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        r#""""#,
        r#""é\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00😀""#,
        r#""\u0000""#,
        "\"\u{7f}\"",
        r#"[1,[2,{"a":[]}],"x"]"#,
        r#"{ "a" : 1 , "b" : { } }"#,
    ] {
        assert_eq!(refusal(text), None, "{text}");
    }
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "{]",
        "[}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[1]]",
        "{}{}",
        "{} x",
        "1 2",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a" 1}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a"::1}"#,
        r#"{"a":1,,"b":2}"#,
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "{null:1}",
        r#"{"a":1"#,
        r#"{"a"#,
        "'a'",
        "/**/1",
        "1//",
        "#1\n1",
        "\u{feff}1",
        "\u{a0}1",
        "\u{b}1",
        "1\0",
        "\0",
        "01",
        "-01",
        "00",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "1e+-1",
        "0x1",
        "1_0",
        "NaN",
        "Infinity",
        "-Infinity",
        "-a",
        "1,5",
        "tru",
        "truE",
        "True",
        "truee",
        "nul",
        "nulll",
        "fals",
        "undefined",
        r#"""#,
        r#""a"#,
        r#""\"#,
        r#""\""#,
        "\"\t\"",
        "\"\n\"",
        "\"\0\"",
        "\"\u{1f}\"",
        r#""\x41""#,
        r#""\'""#,
        r#""\U0041""#,
        r#""\u""#,
        r#""\u004""#,
        r#""\u004g""#,
        r#""\u+041""#,
        "\"\\\u{e9}\"",
        r#""\u00é""#,
    ] {
        assert!(matches!(refusal(text), Some(Malformed::Syntax(_))), "{text} was taken");
    }
}

#[test]
fn half_a_surrogate_pair_is_refused() {
    for text in [
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\ude00\ud83d""#,
        r#""\ud83d\ud83d""#,
        r#""\ud83d\n""#,
        r#""\ud83d\u0041""#,
        r#""\ud83d\u12""#,
    ] {
        assert_eq!(refusal(text), Some(Malformed::LoneSurrogate(1)), "{text} was taken");
    }
    assert_eq!(read(br#""\ud83d\ude00\uFFFF""#).unwrap().root().text().as_deref(), Some("😀\u{ffff}"));
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    for (bytes, at) in [
        (&b"\"\xff\""[..], 1),
        (b"{\"a\xc3\":1}", 3),
        (b"\"\xed\xa0\xbd\"", 1),
        (b"\"\xc0\x80\"", 1),
        (b"\xff\xfe1\0", 0),
    ] {
        assert_eq!(read(bytes).err(), Some(Malformed::NotUtf8(at)));
    }
    assert!(read("\"\u{e9}\"".as_bytes()).is_ok());
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        assert_eq!(refusal(&nested(32, open, close)), None);
        assert_eq!(refusal(&nested(33, open, close)), Some(Malformed::Depth(32 * open.len())));
        assert_eq!(refusal(&nested(100_000, open, close)), Some(Malformed::Depth(32 * open.len())));
        assert_eq!(refusal(&open.repeat(100_000)), Some(Malformed::Depth(32 * open.len())));
    }
    assert_eq!(refusal(&format!("[{}[]]", "[],".repeat(100_000))), None);
}

#[test]
fn long_hostile_input_takes_linear_time() {
    let name = format!(r#"{{"{}":1}}"#, "k".repeat(64 * 1024));
    let members = (0..20_000).map(|index| format!(r#""n{index}":0"#)).collect::<Vec<_>>().join(",");
    let objects = format!(
        "[{}0]",
        r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0},"#
            .repeat(2500)
    );
    for text in
        [name, format!("{{{members}}}"), objects, "[".repeat(256 * 1024), format!("[{}0]", "0,".repeat(128 * 1024))]
    {
        let start = Instant::now();
        assert_eq!(refusal(&text).is_some(), text.starts_with("[["));
        // Quadratic time would be minutes; the limit is wide because a debug build on a busy machine is slow.
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_document_longer_than_the_inline_tape_is_the_same() {
    for elements in [INLINE_NODES - 2, INLINE_NODES - 1, INLINE_NODES, INLINE_NODES + 1, 1000] {
        let text = format!("[{}]", (0..elements).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        let document = read(text.as_bytes()).unwrap();
        let array = document.root().as_array().unwrap();
        assert_eq!(array.len(), elements);
        assert!(array.iter().map(Value::as_u64).eq((0..elements as u64).map(Some)));
        assert_eq!(array.get(elements - 1).unwrap().as_u64(), Some(elements as u64 - 1));
        assert!(array.get(elements).is_none());
    }
}

#[test]
fn only_integers_written_as_integers_are_integers() {
    for (text, unsigned, signed) in [
        ("0", Some(0), Some(0)),
        ("18446744073709551615", Some(u64::MAX), None),
        ("18446744073709551616", None, None),
        ("-9223372036854775808", None, Some(i64::MIN)),
        ("-9223372036854775809", None, None),
        ("-0", None, None),
        ("1.0", None, None),
        ("1e2", None, None),
        (r#""1""#, None, None),
        ("true", None, None),
    ] {
        let document = read(text.as_bytes()).unwrap();
        assert_eq!((document.root().as_u64(), document.root().as_i64()), (unsigned, signed), "{text}");
        assert_same(document.root(), &serde_json::from_str(text).unwrap());
    }
}

#[test]
fn a_kind_is_not_taken_for_another() {
    let document = read(br#"[{},[],"",0,true,false,null]"#).unwrap();
    let values: Vec<_> = document.root().as_array().unwrap().iter().collect();
    let kinds = [Kind::Object, Kind::Array, Kind::String, Kind::Number, Kind::True, Kind::False, Kind::Null];
    for (value, kind) in values.iter().zip(kinds) {
        assert_eq!(value.kind(), kind);
        assert_eq!(value.as_object().is_some(), kind == Kind::Object);
        assert_eq!(value.as_array().is_some(), kind == Kind::Array);
        assert_eq!(
            (value.plain_str(), value.text().is_some()),
            (None.or((kind == Kind::String).then_some("")), kind == Kind::String)
        );
        assert_eq!(value.as_u64().is_some(), kind == Kind::Number);
        assert_eq!(value.is_null(), kind == Kind::Null);
    }
    assert!(values[0].as_object().unwrap().is_empty() && values[1].as_array().unwrap().is_empty());
}

#[test]
fn one_member_is_cut_with_one_comma() {
    for (text, name, expected) in [
        (r#"{"a":1}"#, "a", "{}"),
        (r#"{ "a" : 1 }"#, "a", "{  }"),
        (r#"{"a":1,"b":2,"c":3}"#, "a", r#"{"b":2,"c":3}"#),
        (r#"{"a":1,"b":2,"c":3}"#, "b", r#"{"a":1,"c":3}"#),
        (r#"{"a":1 , "b":[2,{"c":3}] , "c":3 }"#, "b", r#"{"a":1 , "c":3 }"#),
        (r#"{"a":1 , "c":3 }"#, "c", r#"{"a":1 }"#),
    ] {
        let document = read(text.as_bytes()).unwrap();
        let cut = document.root().as_object().unwrap().member_span(name).unwrap();
        assert_eq!([&text[..cut.start], &text[cut.end..]].concat(), expected);
    }
    assert!(read(br#"{"a":{"b":1}}"#).unwrap().root().as_object().unwrap().member_span("b").is_none());
}

#[test]
fn nothing_that_is_printed_shows_the_input() {
    let text = r#"{"canary":"canary"}"#;
    assert_eq!(format!("{:?}", read(text.as_bytes())), "Ok(Document(19 bytes))");
    let error = read(r#"{"canary":"canary""#.as_bytes()).unwrap_err();
    assert_eq!(format!("{error} {error:?}"), "not JSON at byte 18 Syntax(18)");
}

/// Every value in the document, with what serde_json makes of the same part of the input.
fn assert_same(value: Value<'_>, expected: &serde_json::Value) {
    assert_eq!(&serde_json::from_slice::<serde_json::Value>(value.raw()).unwrap(), expected);
    assert_eq!(value.text().as_deref(), expected.as_str());
    assert_eq!(value.plain_str(), expected.as_str().filter(|_| !value.raw().contains(&b'\\')));
    assert_eq!((value.as_u64(), value.as_i64()), (expected.as_u64(), expected.as_i64()));
    assert_eq!(value.as_array().is_some(), expected.is_array());
    assert_eq!(value.as_object().is_some(), expected.is_object());
    if let (Some(array), Some(elements)) = (value.as_array(), expected.as_array()) {
        assert_eq!(array.len(), elements.len());
        array.iter().zip(elements).for_each(|(element, expected)| assert_same(element, expected));
    }
    if let (Some(object), Some(members)) = (value.as_object(), expected.as_object()) {
        assert_eq!(object.len(), members.len());
        for (name, member) in object.members() {
            assert_same(member, &members[name]);
            assert_eq!(object.get(name).unwrap().span(), member.span());
        }
    }
}

/// Cuts each member of each object, and inserts one in each, and compares with the same edit made by serde_json.
fn assert_edits(text: &str, value: Value<'_>, pointer: &str) {
    let whole: serde_json::Value = serde_json::from_str(text).unwrap();
    let edited = |range: Range<usize>, with: &str| -> serde_json::Value {
        serde_json::from_str(&[&text[..range.start], with, &text[range.end..]].concat()).unwrap()
    };
    if let Some(object) = value.as_object() {
        for (name, member) in object.members() {
            let mut expected = whole.clone();
            expected.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            assert_eq!(edited(object.member_span(name).unwrap(), ""), expected);
            assert_edits(text, member, &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")));
        }
        let mut expected = whole.clone();
        expected.pointer_mut(pointer).unwrap()["NEW"] = 1.into();
        let inserted = if object.is_empty() { r#""NEW":1"# } else { r#""NEW":1,"# };
        assert_eq!(edited(object.inside_start()..object.inside_start(), inserted), expected);
    }
    for (index, element) in value.as_array().into_iter().flat_map(Array::iter).enumerate() {
        assert_edits(text, element, &format!("{pointer}/{index}"));
    }
}

/// Any value whose names need no escape and differ without case.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[\\x00-\\x7f]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 120, 24, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..24).prop_map(Into::into),
            proptest::collection::btree_map("[a-z0-9 ~/_:,{}éſ日-]{0,4}", inner, 0..24)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

fn printed() -> impl Strategy<Value = String> {
    (any_value(), any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
    })
}

/// Pieces that are JSON often enough, and nearly JSON otherwise.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => proptest::sample::select(vec!["{", "}", "[", "]", ":", ",", r#""a":"#, r#""A":"#, r#""b":"#, r#""""#, "1", "0"]),
        2 => proptest::sample::select(vec!["-", ".5", "e9", "e999", "true", "false", "null", "\"", " ", "\n", "é", "{\"a\":1}", "[1]"]),
        1 => proptest::sample::select(vec!["\\", "\\u", r#""\ud83d""#, r#""\ude00""#, r#""\u0061":"#, "\u{1}", "\u{feff}", "+", "/*", "\0", "'"]),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn whatever_serde_json_prints_is_read_the_same(text in printed()) {
        let expected = serde_json::from_str(&text).unwrap();
        assert_same(read(text.as_bytes()).unwrap().root(), &expected);
    }

    #[test]
    fn an_edit_by_offsets_is_the_edit_of_the_value(text in printed()) {
        let document = read(text.as_bytes()).unwrap();
        assert_edits(&text, document.root(), "");
    }

    #[test]
    fn damaged_json_is_judged_as_serde_json_does(
        text in printed(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (place, byte, how) in damage {
            let at = place.index(bytes.len() + 1);
            let until = if how == 0 { at } else { (at + 1).min(bytes.len()) };
            bytes.splice(at..until, (how < 2).then_some(byte));
        }
        assert_right_judgement(&bytes, read(&bytes).is_ok());
    }

    #[test]
    fn pieces_of_json_are_judged_as_serde_json_does(bytes in pieces()) {
        assert_right_judgement(&bytes, read(&bytes).is_ok());
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_does(bytes in any::<Vec<u8>>()) {
        assert_right_judgement(&bytes, read(&bytes).is_ok());
    }

    #[test]
    fn a_written_string_is_read_as_what_it_was(text in any::<String>(), low in "[\\x00-\\x7f]*") {
        for text in [text, low] {
            let mut written = String::from("[");
            string(&mut written, &text);
            written.push(']');
            prop_assert_eq!(serde_json::from_str::<[String; 1]>(&written).unwrap(), [text.clone()]);
            let document = read(written.as_bytes()).unwrap();
            prop_assert_eq!(document.root().as_array().unwrap().get(0).unwrap().text().unwrap(), text);
        }
    }
}
