//! How terms follow each other.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Empty;
use crate::link::{Attachment, Conn, EdgeId, NodeId, SessionId, ShardId, Term, ToEdge, ToShard};
use crate::rows::Timestamp;
use crate::shard::{Config, Event, Io, Output, Shard};
use crate::stream::StreamCondition;
use crate::testkit::Seed;

fn step(shard: &mut Shard, step: impl FnOnce(&mut Shard, &mut Io<'_>)) -> Vec<Output> {
    let mut out = Vec::new();
    let mut io = Io {
        rows: &Empty,
        now: Timestamp(1),
        elapsed: Duration::ZERO,
        random: &mut Seed::new(1),
        out: &mut out,
    };
    step(shard, &mut io);
    out
}

fn leads(shard: &mut Shard, term: u64) -> Term {
    step(shard, |shard, io| shard.lead(term, io).expect("readable"));
    assert!(shard.is_leading());
    shard.term()
}

/// DESIGN §4.6: what was said before must not be taken for what is said now.
#[test]
fn a_leader_that_follows_and_leads_again_in_the_same_term_begins_another_round() {
    let mut shard = Shard::new(ShardId(0), Arc::new(Config::alone("example.org", 1)));
    assert_eq!(leads(&mut shard, 5), Term { term: 5, round: 0 });
    shard.follow();
    assert_eq!(leads(&mut shard, 5), Term { term: 5, round: 1 });
    step(&mut shard, |shard, io| shard.failed(io).expect("readable"));
    shard.follow();
    assert_eq!(leads(&mut shard, 5), Term { term: 5, round: 3 });
    shard.follow();
    assert_eq!(leads(&mut shard, 6), Term { term: 6, round: 0 });
}

#[test]
fn an_edge_that_attaches_late_hears_that_its_sessions_are_no_more() {
    let mut shard = Shard::new(ShardId(0), Arc::new(Config::alone("example.org", 1)));
    let term = leads(&mut shard, 5);
    let edge = EdgeId {
        node: NodeId(2),
        start: 1,
    };
    let attachment = Attachment {
        session: SessionId {
            term: 4,
            counter: 1,
            shard: 0,
        },
        conn: Conn(7),
        full: "juliet@example.org/balcony".parse().expect("an address"),
        accepted: 0,
        received: 0,
        released: 0,
        acknowledged: 0,
        seen: Vec::new(),
        unreleased: Vec::new(),
        presence: None,
        memory: None,
    };
    let attach = |sessions| ToShard::Attach {
        sessions,
        asking: Vec::new(),
        last: true,
    };
    let message = attach(vec![attachment]);
    let out = step(&mut shard, |shard, io| shard.from_edge(edge, term, message, io));
    let [
        Output::Edge {
            to,
            message: ToEdge::Close { conn, error },
            ..
        },
    ] = out.as_slice()
    else {
        panic!("{out:?}");
    };
    assert_eq!((*to, *conn), (edge, Conn(7)));
    assert_eq!(error.condition, StreamCondition::Reset);
    // In a former term it is not even heard.
    let former = Term { term: 4, round: 9 };
    let message = attach(Vec::new());
    let out = step(&mut shard, |shard, io| shard.from_edge(edge, former, message, io));
    assert!(matches!(out.as_slice(), [Output::Count(Event::Fenced)]), "{out:?}");
}
