//! What is measured, one file each.

pub mod floor;
pub mod idle;
pub mod login;
pub mod messages;
