//! Countersign: a sidecar auth proxy that terminates and re-signs exchange sockets.
//!
//! A local trading bot connects over TLS with no exchange credentials. Countersign finds out who the bot is,
//! decides what it may do, and does it with the real key: it signs REST requests anew, opens the exchange's sockets
//! itself, and moves frames both ways.
//!
//! # The map of the house
//!
//! A connection passes these in order; each is one module.
//!
//! 1. [`server`]: accept, take a slot, drain. Clients that read the proxy variables come through [`connect`] first, and
//!    end in the same TLS.
//! 2. [`tls`]: end TLS; certificates by name; the client's certificate out.
//! 3. [`http`]: read the request: route and proof. An upgrade becomes a session, anything else is a REST request.
//! 4. [`identity`]: who is calling? `Proof -> Principal`, by token, certificate, [local key](identity::local) or
//!    placeholder.
//! 5. [`policy`]: what may they do? `(Principal, Route) -> Permit`.
//! 6. [`supply`]: what must be fresh? Clock, nonce lane, token: one [account](supply::account) task per key.
//! 7. [`upstream`]: open the exchange's socket or send it one request, which needs a `&Permit`.
//! 8. [`session`]: what happens next on a socket? `Event -> Actions`, pure; here a message's rights are checked.
//! 9. [`relay`]: move frames between the two legs of a session; do its actions.
//!
//! A REST request takes the same way without the last two:
//!
//! ```text
//! comes in at          http             head and body, whole, within their limits
//! is read at           venue::rest      what it does, whose signature it carries, what of it may stay
//! is judged at         http, policy     Permit::lacks: the rights of everything that it does
//! waits at             supply::account  one lane per key; a cancel goes first
//! is signed at         venue::rest      late: with a connection ready, and the next nonce
//! leaves at            upstream         once; Fate says whether it was unsent, answered, or nobody knows
//! is answered at       http             judged for key and nonce, scrubbed, passed on as it comes
//! ```
//!
//! Everything that knows an exchange is in [`venue`], pure: what a message or request does, where a token or nonce goes,
//! how it is signed. [`fault`] is the one map from what happened to what a peer is told. A module uses what stands before
//! it in *leaves, venue, identity, policy, session, fault, store, buffer, tls, upstream, supply, relay, http, connect, server,
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

pub mod buffer;
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
