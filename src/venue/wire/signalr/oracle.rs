//! What a call that was written anew has to hold, worked out with serde_json alone. For tests and for fuzzing.

use serde_json::Value;

/// Fails unless `written` is the call in `record` of the method `target`, and nothing else.
pub(super) fn assert_right_writing(record: &[u8], target: &str, written: &[u8]) {
    // A number that serde_json cannot hold: it has nothing to say.
    let Ok(read) = serde_json::from_slice::<Value>(record) else { return };
    let (end, text) = written.split_last().expect("something was written");
    assert_eq!(*end, 0x1e, "it does not end as a record ends");
    assert!(!text.contains(&0x1e), "it is more than one record");
    let written: Value = serde_json::from_slice(text).expect("JSON was written");
    let members = written.as_object().expect("an object was written");
    assert_eq!(members["type"], 1);
    assert_eq!(members["target"], target);
    assert_eq!(members["arguments"], read["arguments"]);
    assert_eq!(members.get("invocationId"), read.get("invocationId"));
    assert!(members.len() <= 4, "there is more in it than was judged");
}
