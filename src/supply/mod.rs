//! What must be fresh: the time, the numbers of a key, its token. Owned by one task per account.

pub mod account;
pub mod breaker;
pub mod clock;
pub mod lane;
pub mod token;
