//! The one pass over the bytes: grammar, depth and names, noted on a flat tape.
//!
//! Does not check UTF-8: [`super::read`] does, before.

use super::{DEPTH_MAX, Kind, Malformed};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// How many values a document may hold before its tape moves to the heap: an order has about 15.
pub(super) const INLINE_NODES: usize = 64;

/// Up to how many members the names of an object are compared in pairs. Above, pairs would take quadratic time, and
/// names go through a hash with random keys, which nobody can aim at.
pub(super) const PAIRWISE_MEMBERS_MAX: usize = 16;

/// Reads one JSON text and notes where its values stand.
pub(super) fn read(bytes: &[u8]) -> Result<Tape, Malformed> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Malformed::TooLong);
    }
    let mut reader = Reader { bytes, at: 0, tape: Tape::new() };
    reader.value(Span::NONE, 0)?;
    reader.skip_white_space();
    if reader.at < bytes.len() {
        return Err(Malformed::Syntax(reader.at));
    }
    Ok(reader.tape)
}

/// The nodes in the order in which their values start: inline for typical messages, on the heap for long ones.
pub(super) struct Tape {
    inline: [Node; INLINE_NODES],
    len: usize,
    /// All nodes, once they are more than `inline` holds.
    heap: Vec<Node>,
}

impl Tape {
    fn new() -> Self {
        Self { inline: [Node::UNREAD; INLINE_NODES], len: 0, heap: Vec::new() }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        if self.len <= INLINE_NODES { &self.inline[..self.len] } else { &self.heap }
    }

    /// Adds a node that is to be [`Tape::set`] when its value has been read; returns its index.
    fn reserve(&mut self) -> usize {
        let index = self.len;
        if index >= INLINE_NODES {
            if index == INLINE_NODES {
                self.heap.extend_from_slice(&self.inline);
            }
            self.heap.push(Node::UNREAD);
        }
        self.len += 1;
        index
    }

    fn set(&mut self, index: usize, node: Node) {
        let nodes = if self.len <= INLINE_NODES { &mut self.inline[..] } else { &mut self.heap[..] };
        nodes[index] = node;
    }
}

/// Indices of the nodes side by side from `first` on, up to `end`.
pub(super) fn siblings(nodes: &[Node], first: usize, end: usize) -> impl Iterator<Item = usize> + Clone {
    let before_end = move |index: usize| (index < end).then_some(index);
    std::iter::successors(before_end(first), move |index| before_end(nodes[*index].next as usize))
}

/// A part of the input, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const NONE: Self = Self { start: 0, end: 0 };

    fn new(start: usize, end: usize) -> Self {
        Self { start: narrow(start), end: narrow(end) }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// An offset, or the index of a node: there are no more nodes than bytes.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("`read` refuses input with longer offsets")
}

/// One value on the tape. What is inside it follows, up to `next`.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// A string with a backslash in it.
    pub(super) escaped: bool,
    /// The member's name without its quotes; [`Span::NONE`] outside of objects.
    pub(super) name: Span,
    pub(super) value: Span,
    /// Index of the first node that is not inside this one.
    pub(super) next: u32,
}

impl Node {
    const UNREAD: Self = Self { kind: Kind::Null, escaped: false, name: Span::NONE, value: Span::NONE, next: 0 };

    /// Where the quote before the member's name stands.
    pub(super) fn name_start(&self) -> usize {
        self.name.range().start - 1
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    tape: Tape,
}

impl<'a> Reader<'a> {
    /// Reads white space and one value, which has `depth` containers around it.
    fn value(&mut self, name: Span, depth: usize) -> Result<(), Malformed> {
        self.skip_white_space();
        let start = self.at;
        let index = self.tape.reserve();
        let mut escaped = false;
        let kind = match self.bytes.get(start) {
            Some(b'{' | b'[') if depth == DEPTH_MAX => return Err(Malformed::Depth(start)),
            Some(b'{') => self.object(index, depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => {
                escaped = self.string()?;
                Kind::String
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true", Kind::True)?,
            Some(b'f') => self.word(b"false", Kind::False)?,
            Some(b'n') => self.word(b"null", Kind::Null)?,
            _ => return Err(Malformed::Syntax(start)),
        };
        let (value, next) = (Span::new(start, self.at), narrow(self.tape.len));
        self.tape.set(index, Node { kind, escaped, name, value, next });
        Ok(())
    }

    fn object(&mut self, index: usize, depth: usize) -> Result<Kind, Malformed> {
        self.at += 1;
        self.skip_white_space();
        if self.take(b'}') {
            return Ok(Kind::Object);
        }
        let mut members = 0;
        loop {
            let name = self.name()?;
            self.skip_white_space();
            self.expect(b':')?;
            self.value(name, depth + 1)?;
            members += 1;
            self.skip_white_space();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
            self.skip_white_space();
        }
        self.refuse_duplicates(index, members)?;
        Ok(Kind::Object)
    }

    fn array(&mut self, depth: usize) -> Result<Kind, Malformed> {
        self.at += 1;
        self.skip_white_space();
        if self.take(b']') {
            return Ok(Kind::Array);
        }
        loop {
            self.value(Span::NONE, depth + 1)?;
            self.skip_white_space();
            if self.take(b']') {
                return Ok(Kind::Array);
            }
            self.expect(b',')?;
        }
    }

    fn name(&mut self) -> Result<Span, Malformed> {
        let quote = self.at;
        if self.bytes.get(quote) != Some(&b'"') {
            return Err(Malformed::Syntax(quote));
        }
        if self.string()? {
            return Err(Malformed::EscapedName(quote));
        }
        Ok(Span::new(quote + 1, self.at - 1))
    }

    /// Reads a string from its first quote on; true if there is a backslash in it.
    fn string(&mut self) -> Result<bool, Malformed> {
        let mut escaped = false;
        let mut at = self.at + 1;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    (_, at) = escape(self.bytes, at)?;
                }
                Some(0x00..=0x1f) | None => return Err(Malformed::Syntax(at)),
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        Ok(escaped)
    }

    fn number(&mut self) -> Result<Kind, Malformed> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(Malformed::Syntax(self.at)) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Malformed> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Malformed::Syntax(self.at));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(Malformed::Syntax(self.at)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Checks the names of an object whose members are the last on the tape.
    fn refuse_duplicates(&self, object: usize, members: usize) -> Result<(), Malformed> {
        let nodes = self.tape.nodes();
        let mut siblings = siblings(nodes, object + 1, nodes.len()).map(|index| &nodes[index]);
        let name = |member: &Node| Name(&self.bytes[member.name.range()]);
        let duplicate = if members <= PAIRWISE_MEMBERS_MAX {
            let all = siblings.clone();
            let mut numbered = siblings.enumerate();
            numbered.find_map(|(count, member)| {
                all.clone().take(count).any(|earlier| name(earlier) == name(member)).then_some(member)
            })
        } else {
            let mut seen = HashSet::with_capacity(members);
            siblings.find(|member| !seen.insert(name(member)))
        };
        duplicate.map_or(Ok(()), |member| Err(Malformed::DuplicateMember(member.name_start())))
    }
}

/// A member's name as it is compared with its siblings: without ASCII case.
struct Name<'a>(&'a [u8]);

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Name<'_> {}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for chunk in self.0.chunks(64) {
            let mut buffer = [0; 64];
            let folded = &mut buffer[..chunk.len()];
            folded.copy_from_slice(chunk);
            folded.make_ascii_lowercase();
            state.write(folded);
        }
    }
}

/// Reads the escape whose backslash stands at `at`; returns what it stands for, and the offset behind it.
pub(super) fn escape(bytes: &[u8], at: usize) -> Result<(char, usize), Malformed> {
    let character = match bytes.get(at + 1) {
        Some(&same @ (b'"' | b'\\' | b'/')) => char::from(same),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(bytes, at),
        _ => return Err(Malformed::Syntax(at)),
    };
    Ok((character, at + 2))
}

/// Reads `\u` and four digits, twice for a surrogate pair.
fn unicode_escape(bytes: &[u8], at: usize) -> Result<(char, usize), Malformed> {
    let first = code_unit(bytes, at).ok_or(Malformed::Syntax(at))?;
    let units = std::iter::once(first).chain(code_unit(bytes, at + 6));
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => Ok((character, at + 6 * character.len_utf16())),
        _ => Err(Malformed::LoneSurrogate(at)),
    }
}

fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u16::try_from(char::from(*digit).to_digit(16)?).ok()?))
}
