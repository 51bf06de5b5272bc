//! Where the configuration comes from: the file, then the environment over it, then the flags over that.
//!
//! Not what the keys mean. Each file, variable and flag is a figment layer of its own, so that every value knows
//! where it was written. figment's own `Env` is not used: it reads `0012` as 12, and its errors print values.

use super::mistakes::{Key, Mistake, Mistakes};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the names of our environment variables start with. One underscore, as in `COUNTERSIGN_SKIP_CLIENTS`, is not
/// ours.
const ENV_PREFIX: &str = "COUNTERSIGN__";

/// The file that is read if none is named.
pub(crate) const FILE: &str = "proxy.toml";

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Marks layers whose values are texts until a key asks for something else.
const TEXT: &str = "text";

/// Everything that was said, with where.
pub(super) struct Layers {
    /// The file alone, so that what a later layer hides is checked as well.
    pub(super) file: Option<Figment>,
    /// All layers.
    pub(super) all: Figment,
    /// What a key that is missing is missing from.
    pub(super) written_in: String,
    /// The folder at which relative paths start.
    pub(super) base: PathBuf,
    /// False if there is a file that could not be read: what is missing may stand in it.
    pub(super) is_complete: bool,
}

impl Layers {
    pub(super) fn read(
        path: Option<&Path>,
        overrides: &[(String, String)],
        env: impl Iterator<Item = (OsString, OsString)>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut layers = Self {
            file: None,
            all: Figment::new(),
            written_in: "default".to_owned(),
            base: path.and_then(Path::parent).unwrap_or(Path::new("")).to_owned(),
            is_complete: true,
        };
        if let Some(path) = path.map(Path::to_owned).or_else(default_file) {
            layers.written_in = path.display().to_string();
            match read_toml(&path) {
                Ok(data) => {
                    let figment = Figment::from(Layer { metadata: Metadata::named(layers.written_in.clone()), data });
                    layers.all = figment.clone();
                    layers.file = Some(figment);
                }
                Err((what, help)) => {
                    layers.is_complete = false;
                    let source = layers.written_in.clone();
                    mistakes.add(&Key::default(), Mistake { key: String::new(), source, what, help: help.to_owned() });
                }
            }
        }
        let mut texts = variables(env, mistakes);
        texts.extend(flags(overrides, mistakes));
        for text in &texts {
            let is_split = |other: &&Text| other.key != text.key && other.key.is_within(&text.key);
            if let Some(other) = texts.iter().find(is_split) {
                let what = format!("is set as a whole, and in part by {}", named(&other.source, &other.key));
                mistakes.spoil(&text.key, text.mistake(what, "set one or the other"));
                continue;
            }
            layers.all = layers.all.merge(text.layer());
        }
        layers
    }
}

/// True if values of the layer are texts, whatever their key asks for.
pub(super) fn is_text(metadata: &Metadata) -> bool {
    metadata.source.as_ref().and_then(Source::custom) == Some(TEXT)
}

/// Reads a text as the TOML value that it would be in the file; `None` if it is none, or is a text there as well.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let mut table: Dict = Toml::from_str(&format!("value = {text}")).ok()?;
    // A text of several lines may go on with keys of its own, which would be dropped without a word.
    if table.len() > 1 {
        return None;
    }
    table.remove("value").filter(|value| value.as_str().is_none())
}

/// One source of configuration, for figment.
struct Layer {
    metadata: Metadata,
    data: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

/// One environment variable or flag.
struct Text {
    source: String,
    key: Key,
    value: String,
}

impl Text {
    fn layer(&self) -> Layer {
        let value = Value::String(Tag::Default, self.value.clone());
        let nested = self
            .key
            .0
            .iter()
            .rev()
            .fold(value, |inner, part| Value::Dict(Tag::Default, Dict::from([(part.clone(), inner)])));
        let data = nested.into_dict().expect("a key has at least one part");
        Layer { metadata: Metadata::from(self.source.clone(), TEXT), data }
    }

    fn mistake(&self, what: String, help: &str) -> Mistake {
        Mistake { key: self.key.to_string(), source: self.source.clone(), what, help: help.to_owned() }
    }
}

/// The default file; one that cannot be looked at is there, and reading it will say what is wrong.
fn default_file() -> Option<PathBuf> {
    match std::fs::symlink_metadata(FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        _ => Some(FILE.into()),
    }
}

fn variables(env: impl Iterator<Item = (OsString, OsString)>, mistakes: &mut Mistakes) -> Vec<Text> {
    let mut texts = Vec::new();
    for (name, value) in env {
        if !name.as_encoded_bytes().starts_with(ENV_PREFIX.as_bytes()) {
            continue;
        }
        let source = name.to_string_lossy().into_owned();
        let key = Key(source[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect());
        let mut wrong = |what: &str, help: &str| {
            let mistake =
                Mistake { key: String::new(), source: source.clone(), what: what.to_owned(), help: help.to_owned() };
            mistakes.add(&key, mistake);
        };
        if key.0.iter().any(String::is_empty) {
            wrong("does not name a key", "write COUNTERSIGN__SECTION__KEY");
            continue;
        }
        match value.into_string() {
            Ok(value) => texts.push(Text { source, key, value }),
            Err(_) => wrong("is not UTF-8", ""),
        }
    }
    // The environment has no order of its own, and a report should.
    texts.sort_by(|one, other| one.source.cmp(&other.source));
    texts
}

fn flags(overrides: &[(String, String)], mistakes: &mut Mistakes) -> Vec<Text> {
    let mut texts = Vec::new();
    for (path, value) in overrides {
        let text = Text {
            source: "command line".to_owned(),
            key: Key(path.split('.').map(str::to_owned).collect()),
            value: value.clone(),
        };
        if text.key.0.iter().any(String::is_empty) {
            mistakes.add(&text.key, text.mistake("does not name a key".to_owned(), "write section.key"));
        } else {
            texts.push(text);
        }
    }
    texts
}

fn named(source: &str, key: &Key) -> String {
    if source.starts_with(ENV_PREFIX) { source.to_owned() } else { format!("{key} on the {source}") }
}

/// Reads the file; else says what is wrong with it, and what to do.
fn read_toml(path: &Path) -> Result<Dict, (String, &'static str)> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "name the file, or run in the folder of `proxy.toml`",
            io::ErrorKind::PermissionDenied => "run `chmod u+r` on it, or run countersign as its owner",
            io::ErrorKind::IsADirectory => "name the file in it",
            _ => "",
        };
        let what = match error.kind() {
            io::ErrorKind::NotFound => "the file is not there".to_owned(),
            io::ErrorKind::IsADirectory => "is a folder".to_owned(),
            kind => format!("cannot be read: {kind}"),
        };
        return Err((what, help));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(("is longer than 1 MiB".to_owned(), "name the configuration file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| ("is not UTF-8".to_owned(), "save it as UTF-8"))?;
    Toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        // The parser's message prints the line, and with it whatever secret stands there.
        let before = text.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        if error.message().starts_with("duplicate key") {
            return (format!("line {line}, column {column}: a key or table is written twice"), "remove one");
        }
        let help = "look for a missing quote, bracket or `=` there or on the line before";
        (format!("line {line}, column {column}: is not TOML"), help)
    })
}
