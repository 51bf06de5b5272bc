//! Gives the layers their shape: unknown keys and values of the wrong type, all of them in one go.
//!
//! serde stops at the first. So the value that it stumbled over is noted, taken out, and serde is asked again.

use super::layers::{is_text, parse_value};
use super::mistakes::{Key, Mistake, Mistakes};
use super::raw::{NOT_A_REFERENCE, NOT_AN_UPSTREAM, Raw};
use figment::error::Kind;
use figment::value::{Dict, Tag, Value};
use figment::{Figment, Profile, Provider};

/// Names are listed in full up to this many; `[limits]` has more.
const LISTED_MAX: usize = 10;

/// Where every value was written.
pub(super) struct Sources {
    figment: Figment,
    tree: Value,
}

impl Sources {
    /// The file, variable or flag in which the value under the key was written; `None` if it was not.
    pub(super) fn of(&self, key: &Key) -> Option<String> {
        find(&self.tree, key)?;
        Some(source(&self.figment, &self.tree, key))
    }
}

/// Reads the layers; what does not fit is noted and left out.
pub(super) fn settle(figment: &Figment, mistakes: &mut Mistakes) -> (Raw, Sources) {
    let data = figment.data().expect("our layers hold their data and give it");
    let mut tree = Value::Dict(Tag::Default, data.get(&Profile::Default).cloned().unwrap_or_default());
    let mut sources = Sources { figment: figment.clone(), tree: tree.clone() };
    let mut mended: Vec<Key> = Vec::new();
    while !mistakes.is_full() {
        let error = match tree.deserialize::<Raw>() {
            Ok(raw) => return (raw, sources),
            Err(error) => error,
        };
        let key = Key(error.path.clone());
        if reread(figment, &mut tree, &key) {
            reread(figment, &mut sources.tree, &key);
            continue;
        }
        let (what, help) = explain(&error.kind);
        let source = source(figment, &sources.tree, &key);
        mistakes.spoil(&key, Mistake { key: key.to_string(), source, what, help });
        // What did not help once will not help again: take out what it stands in.
        let is_stuck = mended.contains(&key);
        mended.push(key.clone());
        let mut victim = key;
        if is_stuck {
            victim.0.pop();
            mended.retain(|mended| !mended.is_within(&victim));
        }
        if victim.0.is_empty() {
            break;
        }
        mend(&mut tree, &victim, if is_stuck { None } else { Some(&error.kind) });
    }
    (Raw::default(), sources)
}

/// A variable's `64` is a text until a key asks for a number.
fn reread(figment: &Figment, tree: &mut Value, key: &Key) -> bool {
    let tag = tag(tree, key);
    if !figment.get_metadata(tag).is_some_and(is_text) {
        return false;
    }
    let Some(Value::String(_, text)) = find(tree, key) else { return false };
    let Some(mut value) = parse_value(text) else { return false };
    match &mut value {
        Value::String(old, _)
        | Value::Char(old, _)
        | Value::Bool(old, _)
        | Value::Num(old, _)
        | Value::Empty(old, _)
        | Value::Dict(old, _)
        | Value::Array(old, _) => *old = tag,
    }
    put(tree, key, Some(value));
    true
}

/// Takes a value out. Where something has to stand, because others are counted from it or refer to it, an empty one
/// of the right kind does.
fn mend(tree: &mut Value, key: &Key, kind: Option<&Kind>) {
    let is_in_list = {
        let mut parent = key.clone();
        parent.0.pop();
        matches!(find(tree, &parent), Some(Value::Array(..)))
    };
    let stand_in = match kind {
        Some(Kind::InvalidType(_, expected)) if expected.starts_with("struct") => {
            Some(Value::Dict(Tag::Default, Dict::new()))
        }
        Some(Kind::InvalidType(_, expected)) if expected == "a string" && is_in_list => {
            Some(Value::String(Tag::Default, String::new()))
        }
        _ => None,
    };
    put(tree, key, stand_in);
}

/// Says what is wrong in words of our own: serde's hold the value.
fn explain(kind: &Kind) -> (String, String) {
    match kind {
        Kind::UnknownField(name, known) => ("unknown key".to_owned(), suggest(name, known)),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            (must_be(expected).to_owned(), String::new())
        }
        _ => ("does not fit here".to_owned(), String::new()),
    }
}

fn must_be(expected: &str) -> &'static str {
    match expected {
        NOT_A_REFERENCE => NOT_A_REFERENCE,
        NOT_AN_UPSTREAM => NOT_AN_UPSTREAM,
        "a string" => "must be a text in quotes",
        "a boolean" => "must be true or false",
        "u64" => "must be a whole number",
        "a sequence" => "must be a list",
        _ => "must be a table",
    }
}

/// The known name that was probably meant.
fn suggest(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::osa_distance(name, known), known)).min();
    match near {
        Some((distance, near)) if distance <= near.len().max(3) / 3 => format!("did you mean `{near}`?"),
        _ if known.len() <= LISTED_MAX => format!("known here are {}", known.join(", ")),
        _ => String::new(),
    }
}

fn source(figment: &Figment, tree: &Value, key: &Key) -> String {
    figment.get_metadata(tag(tree, key)).map_or_else(|| "default".to_owned(), |metadata| metadata.name.to_string())
}

/// The tag of the value or, where a value was read out of a text, of that text.
fn tag(tree: &Value, key: &Key) -> Tag {
    let mut tag = Tag::Default;
    let mut value = tree;
    for part in &key.0 {
        let Some(below) = child(value, part) else { break };
        value = below;
        if !value.tag().is_default() {
            tag = value.tag();
        }
    }
    tag
}

fn find<'a>(tree: &'a Value, key: &Key) -> Option<&'a Value> {
    key.0.iter().try_fold(tree, |value, part| child(value, part))
}

fn child<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match value {
        Value::Dict(_, dict) => dict.get(part),
        Value::Array(_, list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Puts a value under a key, or takes away what is there.
fn put(tree: &mut Value, key: &Key, new: Option<Value>) {
    let Some((last, above)) = key.0.split_last() else { return };
    let mut value = tree;
    for part in above {
        let below = match value {
            Value::Dict(_, dict) => dict.get_mut(part),
            Value::Array(_, list) => part.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            _ => None,
        };
        let Some(below) = below else { return };
        value = below;
    }
    match (value, new) {
        (Value::Dict(_, dict), Some(new)) => {
            dict.insert(last.clone(), new);
        }
        (Value::Dict(_, dict), None) => {
            dict.remove(last);
        }
        (Value::Array(_, list), new) => {
            if let Some(slot) = last.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                // Removing it would renumber those behind it.
                *slot = new.unwrap_or(Value::Dict(Tag::Default, Dict::new()));
            }
        }
        _ => {}
    }
}
