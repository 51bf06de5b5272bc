//! Any bytes: what the form reader takes has to be what a reader of the URL Standard finds in them.
//!
//! `cargo +nightly fuzz run form`

#![no_main]

use countersign::venue::wire::form;
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;

fuzz_target!(|bytes: &[u8]| {
    let Ok(form) = form::read(bytes) else { return };
    let ours: Vec<(String, String)> = form
        .fields()
        .map(|field| {
            let (base, indices) = field.path().split_first().expect("a name");
            let indices: String = indices.iter().map(|index| format!("[{index}]")).collect();
            (format!("{base}{indices}"), field.value().to_owned())
        })
        .collect();
    let theirs: Vec<(String, String)> = form_urlencoded::parse(bytes).into_owned().collect();
    assert_eq!(ours, theirs);

    let mut names = HashSet::new();
    for (name, value) in &ours {
        assert!(names.insert(name.to_ascii_lowercase()) || name.ends_with("[]"), "named twice");
        assert!(!value.bytes().any(|byte| byte.is_ascii_control()), "a control character");
    }
    for field in form.fields() {
        let mut rest = bytes.to_vec();
        rest.drain(form.cut(field));
        let left = form::read(&rest).expect("what is left of a form is one");
        assert_eq!(left.fields().count() + 1, ours.len());
    }
});
