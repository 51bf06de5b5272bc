//! How venues write: the formats that their messages come in. Not what a message means: that is each venue's table.

pub mod form;
pub mod json;
pub mod path;
pub mod signalr;
