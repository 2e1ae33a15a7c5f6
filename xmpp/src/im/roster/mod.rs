//! RFC 6121 §2: the roster of an account, with versioning.

pub mod payload;
