//! What must be fresh: the time.

pub mod clock;
