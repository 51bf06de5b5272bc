//! State as files: `<account>.nonce` and `<account>.token`, one line of JSON each, in a folder of this process.
//!
//! A nonce mark that cannot be read is an error; a token that cannot be read is fetched again. Beside them lies the
//! secret by which the admin listener knows the owner of the folder.

use super::folder::Folder;
use super::{KeyFingerprint, Mark, StoreError, StoredToken, refuse_fall};
use crate::fresh::{NonceUnit, UnixMillis};
use crate::names::AccountName;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tracing::warn;
use zeroize::Zeroizing;

/// The only layout of the files so far.
const VERSION: u8 = 1;
/// A mark takes under 80 bytes.
const MARK_BYTES_MAX: u64 = 1024;
/// Kraken's tokens are 43 characters, ProjectX's JWTs under 2 KiB.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// State in a folder with mode 0700 that no other process holds.
#[derive(Debug)]
pub struct FileStore {
    folder: Folder,
    /// Reading the mark in place and replacing it are one step.
    writing: Mutex<()>,
}

impl FileStore {
    /// Opens a folder, makes it if it is missing, and holds it until dropped. Refuses one that somebody else could
    /// read or write.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self { folder: Folder::open(folder)?, writing: Mutex::new(()) })
    }

    /// See [`Store::read_mark`](super::Store::read_mark).
    pub fn read_mark(&self, account: &AccountName) -> Result<Option<Mark>, StoreError> {
        let name = mark_file(account);
        let Some(text) = self.folder.read(&name, MARK_BYTES_MAX)? else { return Ok(None) };
        match parse_mark(&text) {
            Some(mark) => Ok(Some(mark)),
            None => Err(StoreError::Damaged { path: self.folder.path_of(&name) }),
        }
    }

    /// See [`Store::write_mark`](super::Store::write_mark).
    pub fn write_mark(&self, account: &AccountName, mark: &Mark) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        refuse_fall(account, self.read_mark(account)?.as_ref(), mark)?;
        let Mark { unit, reserved } = mark;
        let text = format!("{{\"version\":{VERSION},\"unit\":\"{unit}\",\"reserved\":{reserved}}}\n");
        self.folder.replace(&mark_file(account), text.as_bytes())
    }

    /// See [`Store::read_token`](super::Store::read_token).
    pub fn read_token(&self, account: &AccountName, key: &KeyFingerprint) -> Result<Option<StoredToken>, StoreError> {
        let Some(text) = self.folder.read(&token_file(account), TOKEN_BYTES_MAX)? else { return Ok(None) };
        match parse_token(&text, key) {
            Ok(token) => Ok(Some(token)),
            Err(why) => {
                warn!(account = %account, why, "stored token not used");
                Ok(None)
            }
        }
    }

    /// See [`Store::write_token`](super::Store::write_token).
    pub fn write_token(
        &self,
        account: &AccountName,
        key: &KeyFingerprint,
        token: &StoredToken,
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.folder.replace(&token_file(account), print_token(key, token).as_bytes())
    }

    /// See [`Store::forget_token`](super::Store::forget_token).
    pub fn forget_token(&self, account: &AccountName) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.folder.remove(&token_file(account))
    }

    /// Writes the secret by which the admin listener knows whoever may read this folder.
    pub fn write_admin_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        self.folder.replace(ADMIN_SECRET, secret.expose())
    }
}

/// The file of the admin listener's secret. No account's name has a dot, so none of theirs is called that.
pub const ADMIN_SECRET: &str = "admin.secret";

fn mark_file(account: &AccountName) -> String {
    format!("{account}.nonce")
}

fn token_file(account: &AccountName) -> String {
    format!("{account}.token")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkFile<'a> {
    version: u8,
    unit: &'a str,
    reserved: u64,
}

fn parse_mark(text: &[u8]) -> Option<Mark> {
    let mark: MarkFile<'_> = serde_json::from_slice(text).ok()?;
    let unit = NonceUnit::parse(mark.unit).ok()?;
    (mark.version == VERSION).then_some(Mark { unit, reserved: mark.reserved })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile<'a> {
    version: u8,
    key: &'a str,
    /// Base64 of the token's bytes: borrowed from the text, so that the only copies are ones that are wiped.
    token: &'a str,
    minted_at: u64,
    expires_at: u64,
}

fn parse_token(text: &[u8], key: &KeyFingerprint) -> Result<StoredToken, &'static str> {
    let file: TokenFile<'_> = serde_json::from_slice(text).map_err(|_| "damaged")?;
    if file.version != VERSION {
        return Err("of another version");
    }
    if file.key != hex::encode(key) {
        return Err("of another key");
    }
    let secret = Secret::new(BASE64.decode(file.token).map_err(|_| "damaged")?);
    if secret.is_empty() {
        return Err("empty");
    }
    Ok(StoredToken { secret, minted_at: UnixMillis(file.minted_at), expires_at: UnixMillis(file.expires_at) })
}

fn print_token(key: &KeyFingerprint, token: &StoredToken) -> Zeroizing<String> {
    let head = format!("{{\"version\":{VERSION},\"key\":\"{}\",\"token\":\"", hex::encode(key));
    let tail = format!("\",\"minted_at\":{},\"expires_at\":{}}}\n", token.minted_at.0, token.expires_at.0);
    // All the room at once: a text that grows leaves copies behind that are not wiped.
    let room = head.len() + token.secret.len().div_ceil(3) * 4 + tail.len();
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(&head);
    BASE64.encode_string(token.secret.expose(), &mut text);
    text.push_str(&tail);
    text
}

#[cfg(test)]
mod tests;
