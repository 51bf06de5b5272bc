//! What must be fresh: the time, the numbers of a key.

pub mod clock;
pub mod lane;
