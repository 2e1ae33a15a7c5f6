//! Groups, from outside: what is proposed is committed, once, in order, and found again.

#![allow(clippy::unwrap_used)]

mod groups;
