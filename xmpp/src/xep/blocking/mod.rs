//! XEP-0191: Blocking Command.

pub mod payload;
