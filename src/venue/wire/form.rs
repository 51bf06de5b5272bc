//! Reads `application/x-www-form-urlencoded` strictly and remembers where everything stands, so that a body can be
//! judged, and then edited or forwarded byte for byte.
//!
//! Not a general reader: it refuses what two readers may read as two different things. A field stands there once,
//! ASCII case ignored; a name is letters, digits, `_` and `-`, then indices in brackets (`orders[0][price]`, as ccxt
//! and PHP write them), and hides behind no escape but those of the brackets, which Python's `urlencode` makes. Only a
//! list (`txid[]`) may repeat its name. It does not limit the size of the input.
//!
//! Source: URL Standard, section 5; for brackets the rules of PHP's `parse_str`, which every such client imitates.

#[cfg(test)]
mod tests;

use super::path::escaped;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Why bytes are not taken as a form. Never a part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A byte that no form holds as it is, or an escape that is broken or stands for a control character.
    #[error("a byte or an escape that does not belong there, at byte {0}")]
    Syntax(usize),
    /// A field without `=`, or without a name.
    #[error("not a name with a value at byte {0}")]
    Field(usize),
    /// A name that holds more than letters, digits, `_`, `-` and whole brackets.
    #[error("a name that readers take differently, at byte {0}")]
    Name(usize),
    /// The escapes of a value make no UTF-8.
    #[error("not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Two fields of one name, ASCII case ignored, or a name that is a value here and holds others there.
    #[error("a name stands there twice, at byte {0}")]
    Duplicate(usize),
    /// More than [`FIELDS_MAX`] fields.
    #[error("more fields than any request has, at byte {0}")]
    TooMany(usize),
}

/// Fields in one form at most. A batch of 15 orders has some hundred; PHP stops reading at a thousand
/// (`max_input_vars`), and whatever stands behind that, a nonce too, is not there for it.
pub const FIELDS_MAX: usize = 256;

/// Reads a form: fields with `&` between them, or nothing at all.
pub fn read(bytes: &[u8]) -> Result<Form<'_>, Malformed> {
    let mut fields = Vec::new();
    let mut start = 0;
    while !bytes.is_empty() && start <= bytes.len() {
        if fields.len() == FIELDS_MAX {
            return Err(Malformed::TooMany(start));
        }
        let end = memchr::memchr(b'&', &bytes[start..]).map_or(bytes.len(), |distance| start + distance);
        fields.push(field(bytes, start..end)?);
        start = end + 1;
    }
    refuse_duplicates(&fields)?;
    Ok(Form { length: bytes.len(), fields })
}

/// A body that is a form by the rules of [`read`].
pub struct Form<'a> {
    length: usize,
    fields: Vec<Field<'a>>,
}

/// One `name=value`.
pub struct Field<'a> {
    /// The name without its indices, and the indices, of which the last is empty for an element of a list.
    path: Vec<&'a str>,
    value: Cow<'a, str>,
    name_start: usize,
    value_span: Range<usize>,
}

impl<'a> Form<'a> {
    /// The fields in the order of the input.
    pub fn fields(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter()
    }

    /// True if there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field of exactly this name, without indices.
    ///
    /// A reader that ignores case or indices would find a field here that this does not; ask [`Form::in_other_shape`]
    /// first.
    pub fn get(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.path == [name])
    }

    /// True if a field has one of these names in other case, or with indices.
    #[must_use]
    pub fn in_other_shape(&self, names: &[&str]) -> bool {
        self.fields
            .iter()
            .any(|field| names.iter().any(|name| field.path[0].eq_ignore_ascii_case(name) && field.path != [*name]))
    }

    /// The bytes to cut out so that the field is gone and the rest is still a form: the field and one `&`.
    ///
    /// Good for one cut: the spans of two fields can overlap.
    pub fn cut(&self, field: &Field<'a>) -> Range<usize> {
        let end = field.value_span.end;
        match (field.name_start, end) {
            (0, end) if end == self.length => 0..end,
            (0, end) => 0..end + 1,
            (start, end) => start - 1..end,
        }
    }
}

impl<'a> Field<'a> {
    /// The name without indices, and the indices, escapes resolved. Never empty; the last is `""` for `txid[]`.
    pub fn path(&self) -> &[&'a str] {
        &self.path
    }

    /// The value, escapes resolved.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Where the value stands in the input, as the peer wrote it.
    pub fn value_span(&self) -> Range<usize> {
        self.value_span.clone()
    }
}

impl fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} fields)", self.fields.len())
    }
}

fn field(bytes: &[u8], span: Range<usize>) -> Result<Field<'_>, Malformed> {
    let written = &bytes[span.clone()];
    let equals = memchr::memchr(b'=', written).filter(|at| *at > 0).ok_or(Malformed::Field(span.start))?;
    let value_span = span.start + equals + 1..span.end;
    let path = path(&written[..equals]).ok_or(Malformed::Name(span.start))?;
    let value = value(bytes, value_span.clone())?;
    Ok(Field { path, value, name_start: span.start, value_span })
}

/// The parts of a name. `None`: it is none.
fn path(written: &[u8]) -> Option<Vec<&str>> {
    let written = std::str::from_utf8(written).ok()?;
    let (base, mut indices) = written.split_at(written.find(['[', '%']).unwrap_or(written.len()));
    let mut path = vec![base];
    while !indices.is_empty() {
        let inside = bracket(indices, "[", "%5B")?;
        let (index, rest) = inside.split_at(inside.find([']', '%'])?);
        path.push(index);
        indices = bracket(rest, "]", "%5D")?;
    }
    let is_plain = |part: &&str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    // Readers that append (`a[][b]=1&a[][c]=2`) do not agree on how many elements that makes.
    let appends_inside = path.len() > 2 && path[1..path.len() - 1].contains(&"");
    (!base.is_empty() && path.iter().all(is_plain) && !appends_inside).then_some(path)
}

/// What stands behind a bracket, plain or escaped.
fn bracket<'a>(text: &'a str, plain: &str, escaped: &str) -> Option<&'a str> {
    text.strip_prefix(plain).or_else(|| {
        let (head, rest) = text.split_at_checked(escaped.len())?;
        head.eq_ignore_ascii_case(escaped).then_some(rest)
    })
}

/// A value, escapes resolved.
fn value(bytes: &[u8], span: Range<usize>) -> Result<Cow<'_, str>, Malformed> {
    let written = &bytes[span.clone()];
    // Some readers end a field at `;`. Everybody who means the character writes `%3B`.
    if let Some(at) = written.iter().position(|byte| !byte.is_ascii_graphic() || *byte == b';') {
        return Err(Malformed::Syntax(span.start + at));
    }
    if memchr::memchr2(b'%', b'+', written).is_none() {
        return std::str::from_utf8(written).map(Cow::Borrowed).map_err(|_| Malformed::NotUtf8(span.start));
    }
    let mut text = Vec::with_capacity(written.len());
    let mut at = span.start;
    while at < span.end {
        let byte = match bytes[at] {
            b'%' => {
                let meant = escaped(&bytes[..span.end], at).filter(|meant| !meant.is_ascii_control());
                at += 2;
                meant.ok_or(Malformed::Syntax(at - 2))?
            }
            b'+' => b' ',
            byte => byte,
        };
        text.push(byte);
        at += 1;
    }
    String::from_utf8(text).map(Cow::Owned).map_err(|_| Malformed::NotUtf8(span.start))
}

/// Sorted by their names, two fields that must not stand together have only their like between them: neighbours are
/// enough, and the time stays near linear.
fn refuse_duplicates(fields: &[Field<'_>]) -> Result<(), Malformed> {
    let lower = |field: &Field<'_>| field.path.iter().map(|part| part.to_ascii_lowercase()).collect::<Vec<_>>();
    let mut names: Vec<_> = fields.iter().map(|field| (lower(field), field.name_start)).collect();
    names.sort();
    for pair in names.windows(2) {
        let ((first, _), (second, at)) = (&pair[0], &pair[1]);
        let common = first.iter().zip(second).take_while(|(one, other)| one == other).count();
        let is_bad = match (first.get(common), second.get(common)) {
            // The same name: only elements that are appended to one list.
            (None, None) => first.last().is_none_or(|last| !last.is_empty()),
            // A value that holds others.
            (None, _) | (_, None) => true,
            // `a[]` beside `a[0]`: which element is appended to, which overwritten?
            (Some(one), Some(other)) => one.is_empty() || other.is_empty(),
        };
        if is_bad {
            return Err(Malformed::Duplicate(*at));
        }
    }
    Ok(())
}
