//! Countersign: a sidecar auth proxy that terminates and re-signs exchange sockets.
//!
//! A local trading bot connects over TLS with no exchange credentials. Countersign finds out who the bot is,
//! decides what it may do, opens the exchange's socket itself with the real key, nonce, signature and token,
//! and moves frames both ways.

pub mod credential;
pub mod fresh;
pub mod message;
pub mod names;
pub mod scope;
pub mod secret;

pub mod store;
pub mod supply;
pub mod tls;

pub mod config;
