//! The configuration.

mod secret_ref;

pub use secret_ref::{PublicRef, SecretError, SecretRef};
