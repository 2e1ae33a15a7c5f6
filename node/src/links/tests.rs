use std::sync::{Arc, Mutex};

use bytes::Bytes;
use heronry_xmpp::{
    edge::Attach,
    link::{Attachment, Conn, Delivery, EdgeId, NodeId, Origin, SessionId, ShardId, Term, ToEdge, ToPeer, ToShard},
    rows::Timestamp,
    shard::ShardMap,
    stanza::{Kind, MessageType, Stanza},
    xml::Element,
};

use super::*;
use crate::{
    edge::Hub,
    shard::{Inboxes, ShardLimits},
    telemetry::Traces,
    wire::{self, Item},
};

const HERE: EdgeId = EdgeId {
    node: NodeId(1),
    start: 10,
};
const THERE: EdgeId = EdgeId {
    node: NodeId(2),
    start: 20,
};
const SHARD: ShardId = ShardId(1);

const fn term(term: u64, round: u32) -> Term {
    Term { term, round }
}

/// Links that note what is sent.
#[derive(Default)]
struct Noted {
    sent: Mutex<Vec<Bytes>>,
    broken: Mutex<Vec<NodeId>>,
}

impl Noted {
    /// What has been sent since this was asked last.
    fn items(&self) -> Vec<Item> {
        flush_now();
        let frames = std::mem::take(&mut *self.sent.lock().unwrap());
        let read = frames.into_iter().map(|frame| wire::read(frame).unwrap());
        read.flat_map(|(to, items)| {
            assert_eq!(to, THERE.start);
            items
        })
        .collect()
    }

    /// The same, in short.
    fn said(&self) -> Vec<String> {
        let short = |item| match item {
            Item::ToShard { term, .. } => format!("to shard in {}.{}", term.term, term.round),
            Item::ToEdge {
                term,
                message: ToEdge::Lead,
                ..
            } => format!("lead {}.{}", term.term, term.round),
            Item::ToEdge {
                term,
                message: ToEdge::Leading,
                ..
            } => format!("leading {}.{}", term.term, term.round),
            Item::Leads { term, .. } => format!("peers: leading {}.{}", term.term, term.round),
            Item::Resigned { term, .. } => format!("resigned {}.{}", term.term, term.round),
            other => format!("{other:?}"),
        };
        self.items().into_iter().map(short).collect()
    }
}

impl Links for Noted {
    fn send(&self, to: NodeId, frame: Bytes) -> bool {
        assert_eq!(to, THERE.node);
        self.sent.lock().unwrap().push(frame);
        true
    }

    fn break_link(&self, to: NodeId) {
        self.broken.lock().unwrap().push(to);
    }

    fn has_edge(&self, node: NodeId) -> bool {
        node == THERE.node
    }

    fn is_member(&self, node: NodeId) -> bool {
        node == THERE.node || node == NodeId(3)
    }
}

struct Stand {
    links: Arc<Noted>,
    hub: Arc<Hub>,
    router: Arc<Router>,
}

fn stand() -> Stand {
    let limits = ShardLimits {
        inbox_messages_max: 8,
        ..ShardLimits::default()
    };
    let inboxes = Arc::new(Inboxes::new(2, &limits));
    let outboxes = Arc::new(Outboxes::default());
    let hub = Hub::new(
        HERE,
        ShardMap::even(2),
        Arc::clone(&inboxes),
        Arc::clone(&outboxes),
        Traces::off(),
    );
    let hub = Arc::new(hub);
    let router = Router::new(Arc::clone(&hub), inboxes, outboxes);
    let links = Arc::new(Noted::default());
    router.go_over(Arc::clone(&links) as _);
    Stand { links, hub, router }
}

fn frame(to: EdgeId, items: &[Item]) -> Bytes {
    let mut writer = wire::Writer::default();
    for item in items {
        assert_eq!(writer.add(to.start, item, usize::MAX), None);
    }
    writer.take().unwrap()
}

fn from_there(term: Term, message: ToEdge) -> Item {
    Item::ToEdge {
        from: SHARD,
        term,
        message,
    }
}

fn progress(of: Term) -> (Term, ToShard) {
    let message = ToShard::Progress {
        conn: Conn(1),
        session: SessionId::default(),
        received: 1,
        released: 1,
        voided: Vec::new(),
    };
    (of, message)
}

#[test]
fn a_node_hears_first_who_leads_and_nothing_of_before_when_it_comes_back() {
    let Stand { links, router, .. } = stand();
    router.announce(SHARD, term(5, 0), false);
    router.announce(SHARD, term(5, 0), true);
    router.leads(SHARD, term(5, 0));
    assert!(links.said().is_empty(), "there is no link");

    router.up(THERE, false);
    assert_eq!(links.said(), ["lead 5.0", "leading 5.0", "peers: leading 5.0"]);

    // The link breaks and comes back: until another round begins, nothing more is said.
    router.down(THERE);
    router.up(THERE, true);
    router.announce(SHARD, term(5, 0), true);
    let conn = Conn(1);
    router.to_edge(THERE, SHARD, term(5, 0), ToEdge::Detached { conn }, &mut Vec::new());
    assert!(links.said().is_empty(), "what was interrupted goes on");
    router.announce(SHARD, term(5, 1), false);
    router.announce(SHARD, term(5, 1), true);
    assert_eq!(links.said(), ["lead 5.1", "leading 5.1"]);
    router.resigns(SHARD);
    assert_eq!(links.said(), ["resigned 5.1"]);
    router.down(THERE);
    router.up(THERE, false);
    assert!(links.said().is_empty(), "it leads nothing");
}

#[test]
fn nothing_is_sent_to_a_shard_whose_leader_is_not_known_and_only_the_highest_term_counts() {
    let Stand { links, router, .. } = stand();
    router.up(THERE, false);
    let done = || ToPeer::Done { number: 1 };
    router.to_peer(ShardId(0), term(1, 0), SHARD, term(3, 0), done());
    assert!(links.items().is_empty());
    let leading = |of| Item::Leads { shard: SHARD, term: of };
    router.message(THERE, frame(HERE, &[leading(term(3, 0))]));
    router.to_peer(ShardId(0), term(1, 0), SHARD, term(3, 0), done());
    assert_eq!(links.items().len(), 1);
    // It has moved here since; what its former leader says late is not believed.
    router.leads(SHARD, term(4, 0));
    links.items();
    router.message(THERE, frame(HERE, &[leading(term(3, 1))]));
    router.to_peer(ShardId(0), term(1, 0), SHARD, term(3, 0), done());
    assert!(links.items().is_empty());
}

#[test]
fn a_connection_is_held_when_a_shard_elsewhere_does_not_keep_up_and_goes_on_when_it_does() {
    let Stand { links, hub, router } = stand();
    router.up(THERE, false);
    let leads = [ToEdge::Lead, ToEdge::Leading].map(|message| from_there(term(2, 0), message));
    router.message(THERE, frame(HERE, &leads));
    let attached = links.said();
    assert_eq!(attached, ["to shard in 2.0"], "it says what it holds");

    let some = |count: usize| {
        let mut messages: Vec<_> = (0..count).map(|_| progress(term(2, 0))).collect();
        hub.submit(SHARD, Conn(1), &mut messages)
    };
    assert!(some(7));
    assert!(!some(1), "eight wait there");
    assert!(!some(1), "a turn that has begun is not lost");
    assert_eq!(links.items().len(), 9);
    hub.taken(SHARD, term(1, 0), 9, 0);
    assert!(!some(0), "that was of a former term");
    hub.taken(SHARD, term(2, 0), 5, 0);
    assert!(some(1));
}

#[test]
fn after_a_link_has_broken_nothing_is_said_in_the_term_it_broke_in() {
    let Stand { links, hub, router } = stand();
    router.up(THERE, false);
    let leads = [ToEdge::Lead, ToEdge::Leading].map(|message| from_there(term(2, 0), message));
    router.message(THERE, frame(HERE, &leads));
    links.items();
    router.down(THERE);
    router.up(THERE, true);
    assert!(hub.submit(SHARD, Conn(1), &mut vec![progress(term(2, 0))]));
    assert!(links.items().is_empty());
    let leads = [ToEdge::Lead, ToEdge::Leading].map(|message| from_there(term(2, 1), message));
    router.message(THERE, frame(HERE, &leads));
    links.items();
    assert!(hub.submit(SHARD, Conn(1), &mut vec![progress(term(2, 0)), progress(term(2, 1))]));
    assert_eq!(links.said(), ["to shard in 2.1"]);
}

#[test]
fn what_makes_no_sense_breaks_the_link_and_what_is_for_a_former_process_is_refused() {
    let Stand { links, hub, router } = stand();
    router.up(THERE, false);
    router.message(THERE, Bytes::from_static(b"\xff\xff\xff"));
    assert_eq!(*links.broken.lock().unwrap(), [THERE.node]);
    let former = EdgeId { start: 9, ..HERE };
    router.message(THERE, frame(former, &[from_there(term(2, 0), ToEdge::Lead)]));
    let other = EdgeId { start: 19, ..THERE };
    router.message(other, frame(HERE, &[from_there(term(2, 0), ToEdge::Lead)]));
    assert!(links.items().is_empty(), "it has attached");
    assert!(hub.submit(SHARD, Conn(1), &mut vec![progress(term(2, 0))]));
    assert!(links.items().is_empty());
}

#[test]
fn an_edge_is_dead_when_its_process_is_known_to_have_ended() {
    let Stand { router, .. } = stand();
    let edge = |node, start| EdgeId {
        node: NodeId(node),
        start,
    };
    assert!(!router.is_dead(HERE));
    assert!(router.is_dead(edge(1, 9)), "this node has started since");
    assert!(!router.is_dead(THERE), "it may come");
    assert!(router.is_dead(edge(4, 1)), "it belongs to the cluster no more");
    router.up(THERE, false);
    assert!(!router.is_dead(THERE));
    assert!(router.is_dead(edge(2, 19)), "it has started since");
    router.down(THERE);
    assert!(!router.is_dead(THERE), "its link is broken, it may live");
    router.lost(THERE);
    assert!(router.is_dead(THERE));
    router.up(edge(2, 21), false);
    assert!(router.is_dead(THERE));
    assert!(!router.is_dead(edge(2, 21)));
}

#[test]
fn a_frame_that_is_long_leaves_at_once() {
    let Stand { links, router, .. } = stand();
    router.up(THERE, false);
    let accepted = ToEdge::Accepted((0..40_000).map(|conn| (Conn(conn), conn)).collect());
    router.to_edge(THERE, SHARD, term(1, 0), accepted, &mut Vec::new());
    assert_eq!(links.sent.lock().unwrap().len(), 1);
}

#[test]
fn what_an_edge_holds_leaves_in_parts_that_are_frames() {
    let Stand { links, hub, router } = stand();
    router.up(THERE, false);
    let lead = from_there(term(2, 0), ToEdge::Lead);
    router.message(THERE, frame(HERE, std::slice::from_ref(&lead)));
    links.items();
    let attaching = crate::edge::Attaching::new(SHARD, term(2, 0), hub);
    for conn in 0..8 {
        attaching.add(Attach::Session(Box::new(large(conn))));
    }
    attaching.add(Attach::Asking(Conn(99)));
    drop(attaching);
    flush_now();
    let frames = links.sent.lock().unwrap().clone();
    assert!(
        frames.iter().all(|frame| frame.len() < 512 << 10),
        "a frame is too long"
    );
    let (mut sessions, mut askings, mut lasts) = (0, 0, Vec::new());
    for item in links.items() {
        let Item::ToShard {
            message:
                ToShard::Attach {
                    sessions: some,
                    asking,
                    last,
                },
            ..
        } = item
        else {
            panic!("{item:?}");
        };
        assert!(
            some.iter()
                .all(|session| session.seen.last() == Some(&Origin::Answer { frame: 19_999 }))
        );
        sessions += some.len();
        askings += asking.len();
        lasts.push(last);
    }
    assert_eq!((sessions, askings), (8, 1));
    assert!(lasts.len() > 2 && lasts.iter().position(|last| *last) == Some(lasts.len() - 1));
}

/// A session that holds as much as one can.
fn large(conn: u64) -> Attachment {
    let body = Element::new("body", "jabber:client").with_text("x".repeat(300 << 10));
    let stanza = Arc::new(Stanza::new(Kind::Message(MessageType::Chat), [&body]));
    let delivery = Delivery {
        seq: 1,
        origin: Origin::None,
        at: Timestamp(1),
        stanza,
    };
    Attachment {
        session: SessionId::default(),
        conn: Conn(conn),
        full: "juliet@example.org/balcony".parse().unwrap(),
        accepted: 0,
        received: 1,
        released: 0,
        acknowledged: 0,
        seen: (0..20_000).map(|frame| Origin::Answer { frame }).collect(),
        unreleased: vec![delivery],
        presence: None,
        memory: None,
    }
}
