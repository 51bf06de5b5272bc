//! Reads JSON strictly and remembers where everything stands, so that a message can be judged, and then edited or
//! forwarded byte for byte.
//!
//! Not a general reader: it refuses valid JSON that two readers may read as two different things (a member named
//! twice, a name written with an escape), because the exchange's reader is not ours. It does not limit the size of
//! the input, and it does not print documents: [`string`] writes one string for frames of our own.

mod reader;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use reader::{Node, Tape};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Range;

/// How many objects and arrays may stand inside each other. Reading recurses, so this bounds the stack as well.
pub const DEPTH_MAX: usize = 32;

/// Why bytes are not taken as JSON, with the offset of the byte where that showed. Never a part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The grammar of RFC 8259 is broken, or the input ends early.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// The bytes are not UTF-8 (RFC 8259, section 8.1).
    #[error("not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// An escape names half of a surrogate pair: it stands for no character, and readers differ in what they make of it.
    #[error("half a surrogate pair at byte {0}")]
    LoneSurrogate(usize),
    /// More than [`DEPTH_MAX`] objects and arrays stand inside each other.
    #[error("nested too deeply at byte {0}")]
    Depth(usize),
    /// One object names a member twice, ASCII case ignored: readers take the first, the last, or both.
    #[error("a member is named twice in one object, at byte {0}")]
    DuplicateMember(usize),
    /// A member's name holds a backslash: a filter that compares bytes does not see the name.
    #[error("a member's name holds an escape, at byte {0}")]
    EscapedName(usize),
    /// The input is longer than offsets can count: 4 GiB.
    #[error("longer than 4 GiB")]
    TooLong,
}

/// Reads one JSON text: one value, with nothing but white space around it.
///
/// Takes time linear in the input. Allocates only for more than 64 values (24 bytes each), or for an object of more
/// than 16 members. The caller limits the size of the input.
pub fn read(bytes: &[u8]) -> Result<Document<'_>, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?;
    let tape = reader::read(bytes)?;
    Ok(Document { text, tape })
}

/// Writes `text` as a JSON string, with its quotes.
pub fn string(into: &mut String, text: &str) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => into.extend(['\\', character]),
            '\0'..='\u{1f}' => write!(into, "\\u{:04x}", u32::from(character)).expect("a String takes every write"),
            _ => into.push(character),
        }
    }
    into.push('"');
}

/// A text that is JSON by the rules of [`read`], with the place of every value in it.
pub struct Document<'a> {
    text: &'a str,
    tape: Tape,
}

impl Document<'_> {
    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.text.len())
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number of any size and precision.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// One value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document<'a>,
    index: usize,
}

impl<'a> Value<'a> {
    /// What the value is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// Where the value stands in the input, in bytes: a string with its quotes, a container with its brackets.
    pub fn span(self) -> Range<usize> {
        self.node().value.range()
    }

    /// The bytes of the value as the peer wrote them.
    pub fn raw(self) -> &'a [u8] {
        self.written().as_bytes()
    }

    /// The value as an object, if it is one.
    pub fn as_object(self) -> Option<Object<'a>> {
        (self.kind() == Kind::Object).then_some(Object(self))
    }

    /// The value as an array, if it is one.
    pub fn as_array(self) -> Option<Array<'a>> {
        (self.kind() == Kind::Array).then_some(Array(self))
    }

    /// The text of a string that is written without a backslash. `None` for every other string and kind, so that a
    /// word compared this way is the word that stands in the bytes.
    pub fn plain_str(self) -> Option<&'a str> {
        let node = self.node();
        (node.kind == Kind::String && !node.escaped).then(|| self.inside())
    }

    /// The text of a string, escapes resolved. `None` if the value is not a string.
    pub fn text(self) -> Option<Cow<'a, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        let written = self.inside();
        let Some(mut next) = written.find('\\') else {
            return Some(Cow::Borrowed(written));
        };
        let mut text = String::with_capacity(written.len());
        let mut copied = 0;
        loop {
            text.push_str(&written[copied..next]);
            let (character, behind) = reader::escape(written.as_bytes(), next).ok()?;
            text.push(character);
            copied = behind;
            match written[copied..].find('\\') {
                Some(distance) => next = copied + distance,
                None => break,
            }
        }
        text.push_str(&written[copied..]);
        Some(Cow::Owned(text))
    }

    /// The number, if it is written as an integer (no fraction, no exponent) that fits.
    pub fn as_u64(self) -> Option<u64> {
        (self.kind() == Kind::Number).then(|| self.written().parse().ok()).flatten()
    }

    /// The number, if it is written as an integer (no fraction, no exponent) that fits. `-0` is none: serde_json
    /// takes it for a float.
    pub fn as_i64(self) -> Option<i64> {
        (self.kind() == Kind::Number && self.raw() != b"-0").then(|| self.written().parse().ok()).flatten()
    }

    /// True for `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    fn node(self) -> &'a Node {
        &self.document.tape.nodes()[self.index]
    }

    fn written(self) -> &'a str {
        &self.document.text[self.span()]
    }

    fn inside(self) -> &'a str {
        let written = self.written();
        &written[1..written.len() - 1]
    }

    fn children(self) -> impl Iterator<Item = Value<'a>> {
        let document = self.document;
        let children = reader::siblings(document.tape.nodes(), self.index + 1, self.node().next as usize);
        children.map(move |index| Value { document, index })
    }
}

/// A value that is an object. No two of its members have the same name, ASCII case ignored.
#[derive(Clone, Copy)]
pub struct Object<'a>(Value<'a>);

impl<'a> Object<'a> {
    /// The value of the member with exactly this name.
    ///
    /// A reader that ignores case would find a member here that this does not; ask [`Object::in_other_case`] first.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.members().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The members in the order of the input. Names have no quotes and no escapes.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.0.children().map(|value| (&value.document.text[value.node().name.range()], value))
    }

    /// How many members there are. Walks over them.
    pub fn len(self) -> usize {
        self.0.children().count()
    }

    /// True if there is no member, so that one inserted takes no comma.
    pub fn is_empty(self) -> bool {
        self.0.children().next().is_none()
    }

    /// The offset right behind `{`, where a member can be inserted, with a comma behind it unless
    /// [`Object::is_empty`].
    pub fn inside_start(self) -> usize {
        self.0.span().start + 1
    }

    /// The bytes to cut out so that the member is gone and the rest is still JSON: its name, its value and one comma.
    ///
    /// Good for one cut: the spans of two members can overlap.
    pub fn member_span(self, name: &str) -> Option<Range<usize>> {
        let mut members = self.0.children().map(Value::node);
        let mut before = None;
        let member = loop {
            let member = members.next()?;
            if &self.0.document.text[member.name.range()] == name {
                break member;
            }
            before = Some(member);
        };
        let cut = match (before, members.next()) {
            (_, Some(behind)) => member.name_start()..behind.name_start(),
            (Some(before), None) => before.value.range().end..member.value.range().end,
            (None, None) => member.name_start()..member.value.range().end,
        };
        Some(cut)
    }

    /// True if a member is one of these names in other case, which a reader that ignores case would take for it.
    ///
    /// `names` are ASCII: a venue's own. Members are folded as Unicode does, not as ASCII: Go's `encoding/json` (`fold.go`) finds
    /// `params` in `paramſ` and `token` in `to\u{212a}en`.
    #[must_use]
    pub fn in_other_case(self, names: &[&str]) -> bool {
        self.members().any(|(member, _)| names.iter().any(|name| member != *name && same_in_any_case(member, name)))
    }
}

/// A value that is an array.
#[derive(Clone, Copy)]
pub struct Array<'a>(Value<'a>);

impl<'a> Array<'a> {
    /// The elements in the order of the input.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        self.0.children()
    }

    /// How many elements there are. Walks over them.
    pub fn len(self) -> usize {
        self.0.children().count()
    }

    /// True if there is no element.
    pub fn is_empty(self) -> bool {
        self.0.children().next().is_none()
    }

    /// One element, counted from 0. Walks there: a loop uses [`Array::iter`].
    pub fn get(self, index: usize) -> Option<Value<'a>> {
        self.0.children().nth(index)
    }
}

/// Compares a member's name with an ASCII name, case ignored by ASCII or by Unicode.
fn same_in_any_case(member: &str, name: &str) -> bool {
    if member.is_ascii() {
        return member.eq_ignore_ascii_case(name);
    }
    // Up and down again: some letters reach ASCII in one direction only (`ſ` is `S` in upper case).
    let folded = member.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    folded.eq(name.chars().map(|character| character.to_ascii_lowercase()))
}
