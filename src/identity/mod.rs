//! Who a client is: proofs, what they prove, and until when.
//!
//! Not what the client may do: that is `policy`. Pure: time comes in as an argument, keys as bytes; no socket, file
//! or clock is touched.

pub mod budget;
