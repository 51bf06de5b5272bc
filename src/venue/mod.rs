//! The exchanges: how each one is spoken to.

pub mod wire;
