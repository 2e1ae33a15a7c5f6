//! What edges and shards say to each other, as bytes for the connection between two nodes: `proto/heronry/v1/link.proto`.
//!
//! Stanzas travel as [`heronry_xmpp::stanza::Stanza::encode`] puts them, so nobody parses XML again. Several messages make one
//! frame. What cannot be read as a whole is refused as a whole: its sender and its receiver then do not agree on what was said.

pub(crate) mod administer;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use heronry_proto::link as proto;
use heronry_xmpp::link::{ShardId, Term, ToEdge, ToPeer, ToShard};
use prost::Message;

/// One message between nodes, with the shard it is about and the term in which its sender knows that shard.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// From the sender's edge to a shard.
    ToShard {
        /// Which shard.
        to: ShardId,
        /// The term the edge knows.
        term: Term,
        /// What.
        message: ToShard,
    },
    /// From a shard to the receiver's edge.
    ToEdge {
        /// Which shard.
        from: ShardId,
        /// Its term.
        term: Term,
        /// What.
        message: ToEdge,
    },
    /// From a shard to another.
    ToPeer {
        /// Which shard.
        from: ShardId,
        /// Its term.
        term: Term,
        /// To which.
        to: ShardId,
        /// The term in which the other is known.
        known: Term,
        /// What.
        message: ToPeer,
    },
    /// A shard has taken so much of what the receiver's connections had sent it.
    Taken {
        /// Which shard.
        shard: ShardId,
        /// Its term.
        term: Term,
        /// How many messages.
        messages: u64,
        /// Bytes of their stanzas.
        bytes: u64,
    },
    /// The sender leads that shard: to all shards of the receiver.
    Leads {
        /// Which shard.
        shard: ShardId,
        /// Its term.
        term: Term,
    },
    /// The sender does not lead that shard any more.
    Resigned {
        /// Which shard.
        shard: ShardId,
        /// The term it led in.
        term: Term,
    },
}

/// Bytes that are no frame: a fault of the peer's program, or a version from the future.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// They have not the form.
    #[error("not a frame: {0}")]
    Form(String),
    /// They have the form, and a part says nothing.
    #[error("a frame with {0}")]
    Content(&'static str),
}

/// A frame to which items are added.
#[derive(Debug, Default)]
pub(crate) struct Writer(BytesMut);

/// The number of [`proto::Frame::items`].
const ITEMS: u32 = 2;

impl Writer {
    /// Adds an item; the first begins a frame for the process of that start. When there is something and it would be longer than `max`
    /// with the item, it is returned and the item begins another: so only an item that is longer by itself makes a longer frame.
    pub(crate) fn add(&mut self, to: u64, item: &Item, max: usize) -> Option<Bytes> {
        let item = encode::item(item);
        let full = self.0.len() + item.encoded_len() > max;
        let before = if full { self.take() } else { None };
        if self.0.is_empty() {
            let header = proto::Frame { to, items: Vec::new() };
            self.0.put_slice(&header.encode_to_vec());
        }
        prost::encoding::message::encode(ITEMS, &item, &mut self.0);
        before
    }

    /// Bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The frame; the next item begins another. `None` when there is nothing.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.split().freeze())
    }
}

/// Reads a frame: the start of the process it is for, and what it says.
pub(crate) fn read(frame: Bytes) -> Result<(u64, Vec<Item>), WireError> {
    let frame = proto::Frame::decode(frame).map_err(|error| WireError::Form(error.to_string()))?;
    let items: Result<_, _> = frame.items.into_iter().map(decode::item).collect();
    Ok((frame.to, items?))
}
