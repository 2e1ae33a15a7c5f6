//! Messages under way: in order between any two, and lost when one of them dies.

use std::collections::{BTreeMap, VecDeque};

use crate::link::{EdgeId, ShardId, Term, ToEdge, ToPeer, ToShard};

/// Somebody who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    /// A device, by its place.
    Device(usize),
    /// One life of an edge.
    Edge(EdgeId),
    /// A shard, wherever it is evaluated.
    Shard(ShardId),
}

/// What is under way.
#[derive(Debug)]
pub(super) enum Parcel {
    /// Bytes of a stream, of the device's n-th socket.
    Bytes(u32, Vec<u8>),
    /// The end of that socket.
    End(u32),
    ToShard(Term, ToShard),
    ToEdge(Term, ToEdge),
    /// The sender's term, and the one in which it knows the receiver.
    ToPeer(Term, Term, ToPeer),
    PeerLeads(Term),
    /// A shard hears that an edge is dead.
    Died(EdgeId),
}

/// All links between all parties.
#[derive(Debug, Default)]
pub(super) struct Network(BTreeMap<(Party, Party), VecDeque<Parcel>>);

impl Network {
    pub(super) fn send(&mut self, from: Party, to: Party, parcel: Parcel) {
        self.0.entry((from, to)).or_default().push_back(parcel);
    }

    /// The links on which something is under way.
    pub(super) fn busy(&self) -> impl Iterator<Item = (Party, Party)> + '_ {
        self.0
            .iter()
            .filter(|(_, parcels)| !parcels.is_empty())
            .map(|(link, _)| *link)
    }

    pub(super) fn receive(&mut self, link: (Party, Party)) -> Option<Parcel> {
        self.0.get_mut(&link)?.pop_front()
    }

    /// Nothing reaches this party any more; what it has sent arrives only if `keep`.
    pub(super) fn dies(&mut self, party: Party, keep: bool) {
        self.0.retain(|(from, to), _| *to != party && (keep || *from != party));
    }

    /// What `from` has sent is lost.
    pub(super) fn forget_from(&mut self, party: Party) {
        self.0.retain(|(from, _), _| *from != party);
    }
}
