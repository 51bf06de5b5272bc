//! The body of a private request: a form or a JSON object, read once, and what of it the exchange gets.

use crate::venue::Refusal;
use crate::venue::rest::{MediaType, Piece, RestRequest, Subjects};
use crate::venue::wire::form::{self, Form};
use crate::venue::wire::json::{self, Document, Kind, Object, Value};
use std::borrow::Cow;
use std::ops::Range;

/// Members that we look at: one of them in other case, or with indices, could be found by another reader.
const SINGLE_NAMES: &[&str] = &["nonce", "otp", "timeout", "new"];

/// Members that name orders: the exchange's ids, the client's own, and the numbers that it gives to groups of them.
/// `txid` may be a `userref` too, so all of them are one kind of name.
const SUBJECT_NAMES: &[&str] = &["txid", "order_id", "cl_ord_id", "userref", "order_userref", "cl_ord_ids", "orders"];

/// Values in one JSON body at most, and how deep they may stand inside each other. A batch of 15 orders has some hundred
/// in four levels. What the exchange's reader gives up on has no nonce for it: the refusal would look like a lane's fault.
const VALUES_MAX: usize = 512;
/// See [`VALUES_MAX`].
const DEPTH_MAX: usize = 8;

/// A body that was read.
pub(super) enum Body<'a> {
    Form(Form<'a>, usize),
    Json(Box<Document<'a>>, usize),
}

/// Reads the body as what its header says. Without one it is a form: so do clients write that set none, and so does
/// Kraken read it.
pub(super) fn read(request: &RestRequest) -> Result<Body<'_>, Refusal> {
    let bytes = &request.body[..];
    let media_type = request.media_type()?.unwrap_or(MediaType::Form);
    let body = if media_type == MediaType::Json && !bytes.is_empty() {
        let document = json::read(bytes).map_err(|_| Refusal::Malformed)?;
        if values(document.root(), DEPTH_MAX).is_none_or(|values| values > VALUES_MAX) {
            return Err(Refusal::Malformed);
        }
        Body::Json(Box::new(document), bytes.len())
    } else {
        Body::Form(form::read(bytes).map_err(|_| Refusal::Malformed)?, bytes.len())
    };
    let is_readable = match &body {
        Body::Form(form, _) => !form.in_other_shape(SINGLE_NAMES),
        Body::Json(document, _) => document.root().as_object().is_some_and(|root| {
            // A nonce of another kind cannot be replaced by one of its kind.
            let nonce = root.get("nonce").map(Value::kind);
            !root.in_other_case(SINGLE_NAMES) && matches!(nonce, None | Some(Kind::Number | Kind::String))
        }),
    };
    if is_readable { Ok(body) } else { Err(Refusal::Malformed) }
}

impl Body<'_> {
    /// What the exchange is told that the body is.
    pub(super) fn media_type(&self) -> MediaType {
        match self {
            Body::Form(..) => MediaType::Form,
            Body::Json(..) => MediaType::Json,
        }
    }

    /// True if the member is there, whatever its value.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Body::Form(form, _) => form.get(name).is_some(),
            Body::Json(..) => self.member(name).is_some(),
        }
    }

    /// A number of seconds that is written as plain digits, in JSON with or without quotes.
    pub(super) fn seconds(&self, name: &str) -> Option<u64> {
        let text = match self {
            Body::Form(form, _) => form.get(name).map(|field| Cow::Borrowed(field.value())),
            Body::Json(..) => self.member(name).and_then(scalar),
        }?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    }

    /// The client's own nonce, as it wrote it.
    pub(super) fn nonce(&self) -> Option<Cow<'_, str>> {
        match self {
            Body::Form(form, _) => form.get("nonce").map(|field| Cow::Borrowed(field.value())),
            Body::Json(..) => self.member("nonce").and_then(scalar),
        }
    }

    /// The orders that the body names, wherever it names them.
    pub(super) fn subjects(&self) -> Vec<Box<str>> {
        let mut names = Vec::new();
        match self {
            Body::Form(form, _) => {
                for field in form.fields() {
                    // `orders[0]` and `txid[]` are elements; `orders[0][price]` is a price.
                    let named = field.path().iter().rev().find(|part| !part.bytes().all(|byte| byte.is_ascii_digit()));
                    if named.is_some_and(|name| SUBJECT_NAMES.contains(name)) {
                        add(&mut names, field.value());
                    }
                }
            }
            Body::Json(document, _) => collect(document.root(), false, &mut names),
        }
        names
    }

    /// What the exchange gets: this body with our nonce in place of the client's, and without its one-time password.
    pub(super) fn edited(&self) -> Vec<Piece> {
        match self {
            Body::Form(form, length) => edited_form(form, *length),
            Body::Json(document, length) => {
                document.root().as_object().map_or_else(Vec::new, |root| edited_json(root, *length))
            }
        }
    }

    fn member(&self, name: &str) -> Option<Value<'_>> {
        match self {
            Body::Form(..) => None,
            Body::Json(document, _) => document.root().as_object()?.get(name),
        }
    }
}

/// Which orders a cancel on a socket is about, by the same names. It could mean any where it has none.
pub(in crate::venue::kraken) fn cancelled(operation: &str, parameters: Option<Object<'_>>) -> Subjects {
    match operation {
        "cancel_order" | "batch_cancel" | "cancelOrder" => {
            let mut names = Vec::new();
            if let Some(parameters) = parameters {
                collect_members(parameters, &mut names);
            }
            if names.is_empty() { Subjects::All } else { Subjects::Named(names) }
        }
        "cancel_all" | "cancelAll" => Subjects::All,
        // The timer cancels nothing now.
        _ => Subjects::None,
    }
}

fn edited_form(form: &Form<'_>, length: usize) -> Vec<Piece> {
    let otp = form.get("otp").map(|field| (form.cut(field), Vec::new()));
    let nonce = match form.get("nonce") {
        Some(nonce) => (nonce.value_span(), vec![Piece::Nonce]),
        None => {
            let is_alone = form.fields().count() == usize::from(otp.is_some());
            let behind = (!is_alone).then_some(Piece::Text("&"));
            (0..0, [Piece::Text("nonce="), Piece::Nonce].into_iter().chain(behind).collect())
        }
    };
    spliced(length, [nonce].into_iter().chain(otp))
}

fn edited_json(root: Object<'_>, length: usize) -> Vec<Piece> {
    let otp = root.member_span("otp").map(|span| (span, Vec::new()));
    let nonce = match root.get("nonce") {
        // A number stays a number, a string stays one.
        Some(nonce) if nonce.kind() == Kind::String => {
            let span = nonce.span();
            (span.start + 1..span.end - 1, vec![Piece::Nonce])
        }
        Some(nonce) => (nonce.span(), vec![Piece::Nonce]),
        None => {
            let at = root.inside_start();
            let is_alone = root.len() == usize::from(otp.is_some());
            let behind = (!is_alone).then_some(Piece::Text(","));
            (at..at, [Piece::Text("\"nonce\":"), Piece::Nonce].into_iter().chain(behind).collect())
        }
    };
    spliced(length, [nonce].into_iter().chain(otp))
}

/// The body with these ranges replaced, which do not overlap.
fn spliced(length: usize, edits: impl Iterator<Item = (Range<usize>, Vec<Piece>)>) -> Vec<Piece> {
    let mut edits: Vec<_> = edits.collect();
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut pieces = Vec::with_capacity(8);
    let mut kept = 0;
    let keep = |pieces: &mut Vec<Piece>, range: Range<usize>| {
        if !range.is_empty() {
            pieces.push(Piece::Kept(range));
        }
    };
    for (range, instead) in edits {
        keep(&mut pieces, kept..range.start);
        pieces.extend(instead);
        kept = range.end;
    }
    keep(&mut pieces, kept..length);
    pieces
}

/// How many values there are in this one, itself too. `None`: they stand deeper than that.
fn values(value: Value<'_>, depth_max: usize) -> Option<usize> {
    let inside = |element: Value<'_>| values(element, depth_max.checked_sub(1)?);
    let others: Option<usize> = match (value.as_object(), value.as_array()) {
        (Some(object), _) => object.members().map(|(_, member)| inside(member)).sum(),
        (None, Some(array)) => array.iter().map(inside).sum(),
        (None, None) => Some(0),
    };
    others.map(|others| 1 + others)
}

/// The text of a string, or a number as it is written.
fn scalar(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        Kind::String => value.text(),
        Kind::Number => std::str::from_utf8(value.raw()).ok().map(Cow::Borrowed),
        Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null => None,
    }
}

/// Names of orders in a value, which is one itself if it `is_named` so. The reader bounds the depth.
fn collect(value: Value<'_>, is_named: bool, names: &mut Vec<Box<str>>) {
    if let Some(object) = value.as_object() {
        collect_members(object, names);
    } else if let Some(array) = value.as_array() {
        array.iter().for_each(|element| collect(element, is_named, names));
    } else if let Some(text) = scalar(value).filter(|_| is_named) {
        add(names, &text);
    }
}

fn collect_members(object: Object<'_>, names: &mut Vec<Box<str>>) {
    for (name, member) in object.members() {
        collect(member, SUBJECT_NAMES.contains(&name), names);
    }
}

/// Several ids may stand in one text, with commas between them.
fn add(names: &mut Vec<Box<str>>, text: &str) {
    names.extend(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Box::from));
}
