//! SignalR's JSON hub protocol: records that end with one byte, several of which may stand in a message.
//!
//! Not the meaning of a method: that is the venue's table. A client's record is never passed on; it is written anew from
//! the few members that were read ([`Invocation::write`]), because a server looks a method up in any case, takes the
//! last of two members of one name, and does not look at members that it does not know.
//!
//! Source: `HubProtocol.md` and `JsonHubProtocol.cs` of ASP.NET Core.

use super::json::{Array, Kind, Object, Value};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// What every record ends with. It stands in no JSON text: a control character in a string is written with an escape.
pub const SEPARATOR: u8 = 0x1e;

/// Our handshake, with the separator. Older servers take version 1 alone.
pub const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
/// The answer to a handshake, with the separator.
pub const SHAKEN: &str = "{}\u{1e}";
/// A ping, with the separator. Nobody answers it: any record keeps a connection alive.
pub const PING: &str = "{\"type\":6}\u{1e}";
/// A close without a reason, with the separator.
pub const CLOSE: &str = "{\"type\":7}\u{1e}";

/// Members of a client's record that mean something. One of them in other case is refused.
const MEMBERS: &[&str] = &[
    "type",
    "target",
    "arguments",
    "invocationId",
    "streamIds",
    "headers",
    "item",
    "result",
    "error",
    "allowReconnect",
    "sequenceId",
    "protocol",
    "version",
];

/// Longest id of an invocation, in bytes as it is written. Libraries count, or write a UUID.
const ID_BYTES_MAX: usize = 128;

/// Takes a payload apart: the records in it, without their separators, and what follows the last separator.
pub fn split(payload: &[u8]) -> (impl Iterator<Item = &[u8]> + Clone, &[u8]) {
    let end = memchr::memrchr(SEPARATOR, payload).map_or(0, |at| at + 1);
    let (whole, rest) = payload.split_at(end);
    (whole.split_inclusive(|byte| *byte == SEPARATOR).map(|record| &record[..record.len() - 1]), rest)
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A member is missing, of another kind, or in other case.
    #[error("not a record of the hub protocol")]
    Malformed,
    /// A record of a type that a client does not send, or that needs streams.
    #[error("a record that is not passed on")]
    Unknown,
}

/// A client's record.
#[derive(Clone, Copy)]
pub enum Record<'a> {
    /// It calls a method of the hub.
    Invocation(Invocation<'a>),
    /// It shows that it is alive.
    Ping,
    /// It is about to close.
    Close,
}

/// A call of a method of the hub.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    /// The method, in whatever case.
    pub target: &'a str,
    /// What it is called with.
    pub arguments: Array<'a>,
    /// The arguments as the client wrote them, with their brackets.
    pub arguments_raw: &'a [u8],
    /// The id that the answer repeats, as the client wrote it, with its quotes. `None`: it wants no answer.
    pub id: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Reads a client's record.
    pub fn read(root: Value<'a>) -> Result<Self, Unfit> {
        let record = object(root)?;
        let kind = record.get("type").and_then(Value::as_u64).ok_or(Unfit::Malformed)?;
        match kind {
            1 => Ok(Self::Invocation(Invocation::read(record)?)),
            6 => Ok(Self::Ping),
            7 => Ok(Self::Close),
            _ => Err(Unfit::Unknown),
        }
    }

    /// The id of a record that is to be refused, if it has one that can be repeated.
    pub fn id(root: Value<'a>) -> Option<&'a [u8]> {
        let id = root.as_object()?.get("invocationId")?;
        (id.kind() == Kind::String && id.raw().len() <= ID_BYTES_MAX).then(|| id.raw())
    }
}

impl<'a> Invocation<'a> {
    fn read(record: Object<'a>) -> Result<Self, Unfit> {
        if record.get("streamIds").is_some() {
            return Err(Unfit::Unknown);
        }
        let id = match record.get("invocationId") {
            None => None,
            Some(id) if id.kind() == Kind::String && id.raw().len() <= ID_BYTES_MAX => Some(id.raw()),
            Some(_) => return Err(Unfit::Malformed),
        };
        let target = record.get("target").and_then(Value::plain_str).ok_or(Unfit::Malformed)?;
        let arguments = record.get("arguments").ok_or(Unfit::Malformed)?;
        let listed = arguments.as_array().ok_or(Unfit::Malformed)?;
        Ok(Self { target, arguments: listed, arguments_raw: arguments.raw(), id })
    }

    /// Writes the call anew, with its separator: `target` as it is given, arguments and id byte for byte, nothing else.
    pub fn write(&self, target: &str, into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"type\":1,\"target\":\"");
        into.extend_from_slice(target.as_bytes());
        into.extend_from_slice(b"\",\"arguments\":");
        into.extend_from_slice(self.arguments_raw);
        if let Some(id) = self.id {
            into.extend_from_slice(b",\"invocationId\":");
            into.extend_from_slice(id);
        }
        into.extend_from_slice(&[b'}', SEPARATOR]);
    }
}

/// What a client's first record asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// JSON, in a version that differs in nothing that is used here.
    Json,
    /// Another protocol or version.
    Other,
}

impl Handshake {
    /// Reads a client's first record. Version 0 is that of signalrcore; 2 adds what nobody here offers.
    pub fn read(root: Value<'_>) -> Result<Self, Unfit> {
        let record = object(root)?;
        let protocol = record.get("protocol").and_then(Value::plain_str).ok_or(Unfit::Malformed)?;
        let version = record.get("version").and_then(Value::as_u64).ok_or(Unfit::Malformed)?;
        Ok(if protocol == "json" && version <= 2 { Self::Json } else { Self::Other })
    }
}

/// The answer that fails an invocation, with its separator. `id` as its record has it; `text` needs no escape.
pub fn failure(id: &[u8], text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    [b"{\"type\":3,\"invocationId\":", id, b",\"error\":\"", text, b"\"}", &[SEPARATOR]].concat()
}

fn object(root: Value<'_>) -> Result<Object<'_>, Unfit> {
    root.as_object().filter(|record| !record.in_other_case(MEMBERS)).ok_or(Unfit::Malformed)
}
