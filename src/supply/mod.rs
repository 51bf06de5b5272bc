//! What must be fresh: the time, the numbers of a key, its token. Owned by one task per account, through which every
//! request passes that carries one of the key's numbers.

pub mod account;
pub mod breaker;
pub mod clock;
pub mod lane;
pub mod token;
