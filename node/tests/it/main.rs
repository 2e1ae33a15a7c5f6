//! The process from outside: what an operator, a script and a client see.

#![allow(clippy::unwrap_used)]

mod accounts;
mod admin;
mod backup;
mod broker;
mod commands;
mod confined;
mod conversations;
mod dashboard;
mod door;
mod drained;
mod exit_codes;
mod failover;
mod fake;
mod faults;
mod fleet;
mod forward;
mod full_disk;
mod guide;
mod interop;
mod kill;
mod load;
mod operators;
mod process;
mod proxy;
mod readme;
mod sdk;
mod secret;
mod seen;
mod sessions;
mod slow;
mod traces;
