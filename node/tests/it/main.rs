//! The process from outside: what an operator, a script and a client see.

#![allow(clippy::unwrap_used)]

mod admin;
mod broker;
mod fake;
mod sessions;
