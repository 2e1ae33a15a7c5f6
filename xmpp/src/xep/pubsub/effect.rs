//! What pubsub nodes and the shards of their subscribers owe each other, as durable effects.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::address::NodeAddress;
use super::config::{Config, SendLast};
use super::options::Options;
use super::rows::SubscriptionRow;
use crate::jid::Jid;
use crate::stanza::Stanza;

/// A notification for everybody in a shard who is subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Of which node.
    pub address: NodeAddress,
    /// Of which of the nodes that have had this address.
    pub incarnation: u64,
    /// Its number in the node's sequence: subscriptions that began there or later do not get it.
    pub number: u64,
    /// Only available resources get it, whatever the type of the message.
    pub only_available: bool,
    /// The node is gone: the subscriptions end with it.
    pub ends: bool,
    /// The message, without a `to`.
    pub stanza: Arc<Stanza>,
}

/// What the subscriber's shard knows of a subscription.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct FollowerRow {
    /// What the subscriber has chosen.
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<Options>,
    /// The number of the last notification before the subscription.
    #[prost(uint64, tag = "2")]
    pub(crate) since: u64,
    /// The last item is sent to a resource that becomes available.
    #[prost(bool, tag = "3")]
    pub(crate) last_on_presence: bool,
}

impl Eq for FollowerRow {}

impl FollowerRow {
    /// What a node's configuration and a subscription make of it.
    pub(crate) fn of(config: &Config, subscription: &SubscriptionRow) -> Self {
        Self {
            options: subscription.options,
            since: subscription.since,
            last_on_presence: config.send_last_published_item() == SendLast::OnSubAndPresence,
        }
    }
}

/// What a subscriber's shard has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A notification came back with an error that says that there is nobody (XEP-0060 §12.4).
    Undeliverable,
    /// A temporary subscription is over: its subscriber is unavailable (§12.5).
    Unavailable,
    /// A resource has become available and wants the last item (§12.2).
    Available,
}

/// An effect of pubsub, from one shard on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PubsubEffect {
    /// Subscribers are notified.
    Notify(Notify),
    /// This subscription is notified from now on, or in another way.
    Follow {
        /// To which node.
        address: NodeAddress,
        /// Of which of the nodes that have had this address.
        incarnation: u64,
        /// The subscribed address.
        jid: Jid,
        /// Which of its subscriptions.
        subid: String,
        /// What is asked of notifications.
        row: FollowerRow,
    },
    /// This subscription is not notified any more.
    Unfollow {
        /// To which node.
        address: NodeAddress,
        /// Of which of the nodes that have had this address.
        incarnation: u64,
        /// The subscribed address.
        jid: Jid,
        /// Which of its subscriptions.
        subid: String,
    },
    /// The node hears of its subscriber.
    Report {
        /// Which node.
        address: NodeAddress,
        /// Which of the nodes that have had this address; 0: whichever it is.
        incarnation: u64,
        /// The subscribed address; of [`Finding::Available`] the resource.
        jid: Jid,
        /// Which of its subscriptions; empty: all of them.
        subid: String,
        /// What.
        finding: Finding,
    },
}

/// [`PubsubEffect`] as bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct EffectRow {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    entity: String,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(string, tag = "4")]
    jid: String,
    #[prost(string, tag = "5")]
    subid: String,
    #[prost(message, optional, tag = "6")]
    follower: Option<FollowerRow>,
    #[prost(uint64, tag = "7")]
    number: u64,
    #[prost(bool, tag = "8")]
    only_available: bool,
    #[prost(bool, tag = "9")]
    ends: bool,
    #[prost(bytes = "bytes", tag = "10")]
    stanza: Bytes,
    /// In a row of an outbox, in place of the stanza: under which stamp it is kept, once for all shards.
    #[prost(uint64, tag = "11")]
    event: u64,
}

const NOTIFY: u32 = 1;
const FOLLOW: u32 = 2;
const UNFOLLOW: u32 = 3;
const UNDELIVERABLE: u32 = 4;
const UNAVAILABLE: u32 = 5;
const AVAILABLE: u32 = 6;

impl PubsubEffect {
    /// The node it is about.
    pub fn address(&self) -> &NodeAddress {
        match self {
            Self::Notify(Notify { address, .. })
            | Self::Follow { address, .. }
            | Self::Unfollow { address, .. }
            | Self::Report { address, .. } => address,
        }
    }

    /// As bytes that [`Self::decode`] reads.
    pub fn encode(&self) -> Bytes {
        self.row().encode_to_vec().into()
    }

    /// As bytes that name the message instead of holding it.
    pub(crate) fn encode_with_event(&self, event: u64) -> Bytes {
        let row = EffectRow {
            stanza: Bytes::new(),
            event,
            ..self.row()
        };
        row.encode_to_vec().into()
    }

    fn row(&self) -> EffectRow {
        let row = EffectRow {
            entity: self.address().entity().to_owned(),
            ..EffectRow::default()
        };
        match self {
            Self::Notify(notify) => EffectRow {
                kind: NOTIFY,
                incarnation: notify.incarnation,
                number: notify.number,
                only_available: notify.only_available,
                ends: notify.ends,
                stanza: notify.stanza.encode(),
                ..row
            },
            Self::Follow {
                incarnation,
                jid,
                subid,
                row: follower,
                ..
            } => EffectRow {
                kind: FOLLOW,
                incarnation: *incarnation,
                jid: jid.to_string(),
                subid: subid.clone(),
                follower: Some(*follower),
                ..row
            },
            Self::Unfollow {
                incarnation,
                jid,
                subid,
                ..
            } => EffectRow {
                kind: UNFOLLOW,
                incarnation: *incarnation,
                jid: jid.to_string(),
                subid: subid.clone(),
                ..row
            },
            Self::Report {
                incarnation,
                jid,
                subid,
                finding,
                ..
            } => EffectRow {
                kind: match finding {
                    Finding::Undeliverable => UNDELIVERABLE,
                    Finding::Unavailable => UNAVAILABLE,
                    Finding::Available => AVAILABLE,
                },
                incarnation: *incarnation,
                jid: jid.to_string(),
                subid: subid.clone(),
                ..row
            },
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` when it is something else.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        Self::of_row(EffectRow::decode(bytes).ok()?)
    }

    /// Reads what either of the two wrote; `event` finds the message that is named.
    pub(crate) fn decode_with_event(bytes: Bytes, event: impl FnOnce(u64) -> Option<Bytes>) -> Option<Self> {
        let mut row = EffectRow::decode(bytes).ok()?;
        if row.event > 0 {
            row.stanza = event(row.event)?;
        }
        Self::of_row(row)
    }

    /// Under which stamp the message is kept that these bytes name.
    pub(crate) fn event_of(bytes: Bytes) -> Option<u64> {
        let row = EffectRow::decode(bytes).ok()?;
        (row.event > 0).then_some(row.event)
    }

    fn of_row(row: EffectRow) -> Option<Self> {
        let address = NodeAddress::of_entity(&row.entity)?;
        let (incarnation, subid) = (row.incarnation, row.subid);
        let finding = match row.kind {
            NOTIFY => {
                return Some(Self::Notify(Notify {
                    address,
                    incarnation,
                    number: row.number,
                    only_available: row.only_available,
                    ends: row.ends,
                    stanza: Arc::new(Stanza::decode(row.stanza).ok()?),
                }));
            }
            FOLLOW => {
                return Some(Self::Follow {
                    address,
                    incarnation,
                    jid: Jid::parse(&row.jid).ok()?,
                    subid,
                    row: row.follower?,
                });
            }
            UNFOLLOW => {
                return Some(Self::Unfollow {
                    address,
                    incarnation,
                    jid: Jid::parse(&row.jid).ok()?,
                    subid,
                });
            }
            UNDELIVERABLE => Finding::Undeliverable,
            UNAVAILABLE => Finding::Unavailable,
            AVAILABLE => Finding::Available,
            _ => return None,
        };
        Some(Self::Report {
            address,
            incarnation,
            jid: Jid::parse(&row.jid).ok()?,
            subid,
            finding,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::MessageType;

    #[test]
    fn effects_are_read_back() {
        let address = NodeAddress::of_entity("pubsub.example.org/sensors").expect("an address");
        let jid = Jid::parse("juliet@example.org/balcony").expect("an address");
        let stanza = Arc::new(Stanza::message(MessageType::Headline, []).with_id("1:sensors"));
        let (incarnation, subid) = (9, "5f".to_owned());
        let mut effects = vec![
            PubsubEffect::Notify(Notify {
                address: address.clone(),
                incarnation,
                number: 7,
                only_available: true,
                ends: false,
                stanza: Arc::clone(&stanza),
            }),
            PubsubEffect::Follow {
                address: address.clone(),
                incarnation,
                jid: jid.clone(),
                subid: subid.clone(),
                row: FollowerRow {
                    options: Some(Options::by_default()),
                    since: 3,
                    last_on_presence: true,
                },
            },
            PubsubEffect::Unfollow {
                address: address.clone(),
                incarnation,
                jid: jid.clone(),
                subid: subid.clone(),
            },
        ];
        for finding in [Finding::Undeliverable, Finding::Unavailable, Finding::Available] {
            effects.push(PubsubEffect::Report {
                address: address.clone(),
                incarnation,
                jid: jid.clone(),
                subid: subid.clone(),
                finding,
            });
        }
        for effect in effects {
            assert_eq!(PubsubEffect::decode(effect.encode()), Some(effect));
        }
    }

    #[test]
    fn a_message_may_be_kept_elsewhere() {
        let notify = PubsubEffect::Notify(Notify {
            address: NodeAddress::of_entity("pubsub.example.org/sensors").expect("an address"),
            incarnation: 1,
            number: 7,
            only_available: false,
            ends: true,
            stanza: Arc::new(Stanza::message(MessageType::Normal, []).with_id("7:sensors")),
        });
        let PubsubEffect::Notify(Notify { stanza, .. }) = &notify else {
            panic!("a notification")
        };
        let bytes = notify.encode_with_event(5);
        assert_eq!(PubsubEffect::event_of(bytes.clone()), Some(5));
        let found = PubsubEffect::decode_with_event(bytes.clone(), |stamp| (stamp == 5).then(|| stanza.encode()));
        assert_eq!(found, Some(notify));
        assert_eq!(PubsubEffect::decode_with_event(bytes, |_| None), None);
    }
}
