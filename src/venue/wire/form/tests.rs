#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn refusal(text: &str) -> Option<Malformed> {
    read(text.as_bytes()).err()
}

fn told(text: &str) -> Vec<(String, String)> {
    let form = read(text.as_bytes()).unwrap();
    form.fields().map(|field| (field.path().join("/"), field.value().to_owned())).collect()
}

#[test]
fn fields_are_found_where_they_stand() {
    let text = "nonce=16&ordertype=limit&price=%2B5.10%25&text=a+b%C3%A9&close%5Bprice%5D=7&empty=";
    let form = read(text.as_bytes()).unwrap();
    assert_eq!(&text[form.get("nonce").unwrap().value_span()], "16");
    assert_eq!(form.get("price").unwrap().value(), "+5.10%");
    assert_eq!(&text[form.get("price").unwrap().value_span()], "%2B5.10%25");
    assert_eq!(form.get("text").unwrap().value(), "a b\u{e9}");
    assert_eq!(form.get("empty").unwrap().value(), "");
    assert!(form.get("close").is_none() && form.get("Nonce").is_none());
    assert!(read(b"").unwrap().is_empty());
}

#[test]
fn a_name_has_indices_plain_or_escaped() {
    let wanted = [("orders/0/ordertype", "limit"), ("orders/1/ordertype", "market")];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(told("orders[0][ordertype]=limit&orders[1][ordertype]=market"), wanted);
    assert_eq!(told("orders%5B0%5D%5bordertype%5d=limit&orders[1]%5Bordertype]=market"), wanted);
}

#[test]
fn only_a_list_repeats_its_name() {
    assert_eq!(told("txid[]=A&nonce=1&txid%5B%5D=B").len(), 3);
    for text in [
        "nonce=1&nonce=2",
        "nonce=1&a=2&NONCE=2",
        "a[0]=1&a[0]=2",
        "a[0][b]=1&a%5B0%5D[B]=2",
        "timeout=60&timeout[]=0",
        "timeout[]=0&timeout=60",
        "a[b]=1&a[b][c]=2",
        "a[b]=1&a-b=5&a[b][c]=2",
        "txid[]=A&txid[0]=B",
        "txid[1]=A&txid[]=B&txid[]=C",
    ] {
        assert!(matches!(refusal(text), Some(Malformed::Duplicate(_))), "{text} was taken");
    }
    assert_eq!(refusal("nonce=1&a=3&nonce=2"), Some(Malformed::Duplicate(12)));
}

#[test]
fn a_form_with_more_fields_than_a_reader_takes_is_refused() {
    let fields = |count: usize| (0..count).map(|number| format!("a{number}=1")).collect::<Vec<_>>().join("&");
    assert_eq!(told(&fields(FIELDS_MAX)).len(), FIELDS_MAX);
    // Whoever stops reading before the last one would miss a nonce there.
    assert!(matches!(refusal(&(fields(FIELDS_MAX) + "&nonce=1")), Some(Malformed::TooMany(_))));
}

#[test]
fn a_name_that_readers_take_differently_is_refused() {
    for text in [
        "%6eonce=1",
        "non+ce=1",
        " nonce=1",
        "cl.ord.id=1",
        "a[=1",
        "a]=1",
        "[a]=1",
        "a[b=1",
        "a[b]c=1",
        "a[[b]]=1",
        "a[b.c]=1",
        "a[][b]=1",
        "a%5Bb=1",
        "a%=1",
        "a%00=1",
        "n\u{f6}nce=1",
    ] {
        assert!(matches!(refusal(text), Some(Malformed::Name(0))), "{text} was taken");
    }
}

#[test]
fn what_is_no_field_is_refused() {
    for text in ["&", "a=1&", "&a=1", "a=1&&b=2", "nonce", "=1", "a=1&=2", "{\"nonce\":1}", "a=1&b"] {
        assert!(matches!(refusal(text), Some(Malformed::Field(_))), "{text} was taken");
    }
}

#[test]
fn broken_escapes_and_control_characters_are_refused() {
    for text in
        ["a=%", "a=%4", "a=%zz", "a=%4&b=1", "a=%0a", "a=%0D", "a=%00", "a=%7F", "a=1\n", "a=\0", "a=b c", "a=\u{e9}"]
    {
        assert!(matches!(refusal(text), Some(Malformed::Syntax(_))), "{text:?} was taken");
    }
    assert_eq!(refusal("a=1;b=2"), Some(Malformed::Syntax(3)));
    assert_eq!(refusal("a=%ff"), Some(Malformed::NotUtf8(2)));
    assert_eq!(told("a=%3B")[0].1, ";");
}

#[test]
fn a_known_name_in_other_shape_is_told() {
    for text in ["Nonce=1", "nonce[]=1", "nOnce[a]=1", "a=1&nonce%5B0%5D=1"] {
        assert!(read(text.as_bytes()).unwrap().in_other_shape(&["otp", "nonce"]), "{text}");
    }
    assert!(!read(b"nonce=1&nonces=2&otp=3").unwrap().in_other_shape(&["otp", "nonce"]));
}

#[test]
fn a_field_is_cut_out_with_one_separator() {
    for (text, left) in [("otp=1", ""), ("otp=1&a=2", "a=2"), ("a=2&otp=1", "a=2"), ("a=2&otp=1&b=3", "a=2&b=3")] {
        let form = read(text.as_bytes()).unwrap();
        let mut rest = text.to_owned();
        rest.replace_range(form.cut(form.get("otp").unwrap()), "");
        assert_eq!(rest, left, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _judged = read(&bytes);
    }

    #[test]
    fn what_is_taken_has_its_values_in_their_spans(text in "([a-c]{1,2}(\\[[a-b0-1]?\\])?=[a-z%0-9+;]{0,6}&?){0,5}") {
        if let Ok(form) = read(text.as_bytes()) {
            for field in form.fields() {
                let written = &text[field.value_span()];
                prop_assert!(text[..field.value_span().start].ends_with('='));
                prop_assert!(!written.contains('&'));
                prop_assert!(written.contains(['%', '+']) || written == field.value());
            }
        }
    }

    #[test]
    fn a_value_survives_being_written_as_an_escape(value in "[ -~\u{e4}\u{20ac}]{0,12}") {
        let written: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let text = format!("a={written}");
        let form = read(text.as_bytes()).unwrap();
        prop_assert_eq!(form.get("a").unwrap().value(), value);
    }
}
