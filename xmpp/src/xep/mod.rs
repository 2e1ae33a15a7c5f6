//! Every extension, a folder each.

pub mod sm;
