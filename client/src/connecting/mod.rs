//! Finding a server: where it may be, in which order, and going on to the next when one does not take us (RFC 6120 §3).

mod names;
mod place;
mod plan;
mod service;

pub(crate) use self::place::{Encryption, HostPort};
pub use self::place::{Server, ServerError};
pub(crate) use self::plan::{Candidate, Plan};
