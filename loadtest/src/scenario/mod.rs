//! What is measured, one file each.

pub mod check;
pub mod floor;
pub mod idle;
pub mod login;
pub mod messages;
pub mod steady;
