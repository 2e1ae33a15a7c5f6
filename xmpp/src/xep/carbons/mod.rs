//! XEP-0280: Message Carbons.

pub mod forward;
