//! RFC 6121's own features and delivery rules.

pub(crate) mod chat_state;
pub mod delivery;
pub mod presence;
pub mod roster;
pub mod session_establishment;
pub mod stored;
pub mod subscription;
pub(crate) mod subscriptions;
