//! Countersign: a sidecar auth proxy that terminates and re-signs exchange sockets.
//!
//! A local trading bot connects over TLS with no exchange credentials. Countersign finds out who the bot is,
//! decides what it may do, opens the exchange's socket itself with the real key, nonce, signature and token,
//! and moves frames both ways.
//!
//! # The map of the house
//!
//! A connection passes these in order; each is one module.
//!
//! 1. [`server`]: accept, take a slot, drain. Clients that read the proxy variables come through [`connect`] first.
//! 2. [`tls`]: end TLS; certificates by name; the client's certificate out.
//! 3. [`http`]: read the request: route and proof.
//! 4. [`identity`]: who is calling? `Proof -> Principal`.
//! 5. [`policy`]: what may they do? `(Principal, Route) -> Permit`.
//! 6. [`supply`]: what must be fresh? Clock, nonce lane, token.
//! 7. [`upstream`]: open the exchange's socket, which needs a `&Permit`.
//! 8. [`session`]: what happens next? `Event -> Actions`, pure; here a message's rights are checked.
//! 9. [`relay`]: move messages between the two legs; do the session's actions.
//!
//! Everything that knows an exchange is in [`venue`], pure: what a message does, where a token goes, how a login is
//! signed. [`fault`] is the one map from what happened to what a peer is told. A module uses what stands before it
//! in *leaves, venue, identity, policy, session, fault, store, tls, upstream, supply, relay, http, connect, server,
//! admin, config, cli*, never what stands behind; `tests/architecture.rs` holds that.

pub mod credential;
pub mod fresh;
pub mod message;
pub mod names;
pub mod scope;
pub mod secret;

pub mod venue;

pub mod identity;
pub mod policy;
pub mod session;

pub mod fault;
pub mod store;
pub mod tls;
pub mod upstream;

pub mod supply;

pub mod relay;

pub mod http;

pub mod connect;

pub mod server;

pub mod admin;

pub mod certs;
pub mod config;

pub mod cli;

#[cfg(feature = "simulator")]
pub mod simulator;
