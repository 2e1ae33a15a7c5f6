//! What an evaluation causes besides its rows and its reply, in the words of accounts and their resources.

use crate::jid::Jid;
use crate::stanza::Stanza;
use crate::xml::Element;

/// Which resources of an account hear of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The one that asks.
    Origin,
    /// Those that have sent presence (RFC 6121 §4.2).
    Available,
    /// Those that asked for the roster (RFC 6121 §2.2).
    Interested,
    /// Those that asked for the block list (XEP-0191 §3.2).
    Blocklist,
    /// Those that enabled message carbons (XEP-0280 §4).
    Carbons,
}

/// What a device lets its session know, until the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It asked for the roster.
    Roster,
    /// It asked for the block list.
    Blocklist,
    /// It enables or disables message carbons.
    Carbons(bool),
}

/// What an evaluation causes, after its writes are committed and in the order in which it was said.
#[derive(Clone, Debug)]
pub enum Consequence {
    /// An iq set with this content, from the account to its own resources. Committed with the writes.
    Push(Audience, Element),
    /// A stanza for the account's own resources. Committed with the writes.
    Deliver(Audience, Stanza),
    /// The session of the device that asks keeps this in mind.
    Remember(Said),
    /// A stanza that is routed to its `to` exactly once, whatever dies.
    Send(Stanza),
    /// The last presence of each available resource of the account goes to this address.
    Show(Jid),
    /// Each available resource of the account is `unavailable` to this address.
    Hide(Jid),
    /// Whether the account blocks anybody.
    Blocks(bool),
}
