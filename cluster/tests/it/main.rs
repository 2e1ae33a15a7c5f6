//! Groups and links, from outside: what is proposed is committed, once, in order, and found again; what is sent arrives in order or
//! the link breaks.

#![allow(clippy::unwrap_used)]

mod groups;
mod members;
mod simulated_net;
mod town;
mod transport;
