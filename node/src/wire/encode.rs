//! From messages to their form on the wire.

use bytes::Bytes;
use heronry_proto::link::{self as proto, item, origin, to_edge, to_peer, to_shard};
use heronry_xmpp::{
    jid::{BareJid, Jid},
    link::{
        Attachment, Binding, Delivery, Finding, Managed, Memory, Origin, SessionId, ShardId, Term, ToEdge, ToPeer,
        ToShard,
    },
    sasl::{Credentials, ScramHash, ScramKeys},
    stanza::{Stanza, StanzaError},
    stream::{StreamCondition, StreamError},
    xml::{Element, STREAM, STREAMS},
};

use super::Item;

pub(super) fn item(item: &Item) -> proto::Item {
    let (shard, term, message) = match item {
        Item::ToShard { to, term, message } => (to, term, item::Message::ToShard(to_shard(message))),
        Item::ToEdge { from, term, message } => (from, term, item::Message::ToEdge(to_edge(message))),
        Item::ToPeer {
            from,
            term,
            to,
            known,
            message,
        } => (from, term, item::Message::ToPeer(to_peer(*to, *known, message))),
        Item::Taken {
            shard,
            term,
            messages,
            bytes,
        } => {
            let (messages, bytes) = (*messages, *bytes);
            (shard, term, item::Message::Taken(proto::Taken { messages, bytes }))
        }
        Item::Leads { shard, term } => (shard, term, item::Message::Leads(proto::Empty {})),
        Item::Resigned { shard, term } => (shard, term, item::Message::Resigned(proto::Empty {})),
    };
    proto::Item {
        shard: shard.0.into(),
        term: term.term,
        round: term.round,
        message: Some(message),
    }
}

fn to_shard(message: &ToShard) -> proto::ToShard {
    let (conn, message) = match message {
        ToShard::Credentials { conn, account, hash } => {
            let credentials = to_shard::Credentials {
                account: name(account),
                hash: hash.map_or(proto::Hash::Any, hash_of).into(),
            };
            (conn.0, to_shard::Message::Credentials(credentials))
        }
        ToShard::Register { conn, account, keys } => {
            let register = to_shard::Register {
                account: name(account),
                keys: keys.iter().map(keys_of).collect(),
            };
            (conn.0, to_shard::Message::Register(register))
        }
        ToShard::Bind {
            conn,
            account,
            resource,
            version,
        } => {
            let bind = to_shard::Bind {
                account: name(account),
                resource: resource.as_deref().map(str::to_owned),
                version: *version,
            };
            (conn.0, to_shard::Message::Bind(bind))
        }
        ToShard::Resume {
            conn,
            account,
            version,
            previd,
            h,
        } => {
            let resume = to_shard::Resume {
                account: name(account),
                version: *version,
                previd: previd.to_string(),
                h: *h,
            };
            (conn.0, to_shard::Message::Resume(resume))
        }
        ToShard::Enable {
            conn,
            session,
            base,
            resume,
            max,
        } => {
            let enable = to_shard::Enable {
                session: Some(session_of(*session)),
                base: *base,
                resume: *resume,
                max: *max,
            };
            (conn.0, to_shard::Message::Enable(enable))
        }
        ToShard::Submit {
            conn,
            session,
            frame,
            settled,
            repeat,
            stanza,
            finding,
        } => {
            let mut submit = to_shard::Submit {
                session: Some(session_of(*session)),
                frame: *frame,
                settled: *settled,
                repeat: *repeat,
                stanza: stanza.encode(),
                refused: None,
                new_password: Vec::new(),
            };
            match finding.as_deref() {
                None => {}
                Some(Finding::Refused(refused)) => submit.refused = Some(error(refused)),
                Some(Finding::NewPassword(keys)) => submit.new_password = keys.iter().map(keys_of).collect(),
            }
            (conn.0, to_shard::Message::Submit(submit))
        }
        ToShard::Progress {
            conn,
            session,
            received,
            released,
            voided,
        } => {
            let progress = to_shard::Progress {
                session: Some(session_of(*session)),
                received: *received,
                released: *released,
                voided: voided.clone(),
            };
            (conn.0, to_shard::Message::Progress(progress))
        }
        ToShard::Detach {
            conn,
            session,
            released,
            voided,
            clean,
        } => {
            let detach = to_shard::Detach {
                session: Some(session_of(*session)),
                released: *released,
                voided: voided.clone(),
                clean: *clean,
            };
            (conn.0, to_shard::Message::Detach(detach))
        }
        ToShard::Attach { sessions, asking, last } => {
            let attach = to_shard::Attach {
                sessions: sessions.iter().map(attachment).collect(),
                asking: asking.iter().map(|conn| conn.0).collect(),
                last: *last,
            };
            (0, to_shard::Message::Attach(attach))
        }
    };
    proto::ToShard {
        conn,
        message: Some(message),
    }
}

fn to_edge(message: &ToEdge) -> proto::ToEdge {
    let (conn, message) = match message {
        ToEdge::Lead => (0, to_edge::Message::Lead(proto::Empty {})),
        ToEdge::Leading => (0, to_edge::Message::Leading(proto::Empty {})),
        ToEdge::Credentials { conn, credentials } => {
            use to_edge::credentials::{Credentials as Is, Known};
            let credentials = match &**credentials {
                Credentials::Keys { keys, version } => Is::Keys(Known {
                    keys: Some(keys_of(keys)),
                    version: *version,
                }),
                Credentials::UnknownUser => Is::UnknownUser(proto::Empty {}),
                Credentials::Unavailable => Is::Unavailable(proto::Empty {}),
            };
            let credentials = Some(credentials);
            (
                conn.0,
                to_edge::Message::Credentials(to_edge::Credentials { credentials }),
            )
        }
        ToEdge::Registered { conn, result } => {
            let error = result.as_ref().err().map(error);
            (conn.0, to_edge::Message::Registered(to_edge::Registered { error }))
        }
        ToEdge::Bound { conn, result } => {
            let result = Some(match result {
                Ok(is) => to_edge::bound::Result::Binding(binding(is)),
                Err(refused) => to_edge::bound::Result::Error(error(refused)),
            });
            (conn.0, to_edge::Message::Bound(to_edge::Bound { result }))
        }
        ToEdge::Resumed { conn, result } => {
            let result = Some(match result {
                Ok(is) => to_edge::resumed::Result::Binding(binding(is)),
                Err(refused) => to_edge::resumed::Result::Refused(to_edge::resumed::Refused {
                    error: error(&refused.error),
                    h: refused.h,
                }),
            });
            (conn.0, to_edge::Message::Resumed(to_edge::Resumed { result }))
        }
        ToEdge::Managed { conn, managed } => (conn.0, to_edge::Message::Managed(managed_of(managed))),
        ToEdge::Accepted(accepted) => {
            let (conns, up_to) = accepted.iter().map(|(conn, up_to)| (conn.0, *up_to)).unzip();
            (0, to_edge::Message::Accepted(to_edge::Accepted { conns, up_to }))
        }
        ToEdge::Deliver { conn, delivery } => (conn.0, to_edge::Message::Deliver(delivery_of(delivery))),
        ToEdge::Remember { conn, memory } => {
            let memory = memory.as_deref().map(memory_of);
            (conn.0, to_edge::Message::Remember(to_edge::Remember { memory }))
        }
        ToEdge::Detached { conn } => (conn.0, to_edge::Message::Detached(proto::Empty {})),
        ToEdge::Close { conn, error } => (conn.0, to_edge::Message::Close(stream_error(error))),
    };
    proto::ToEdge {
        conn,
        message: Some(message),
    }
}

fn to_peer(to: ShardId, known: Term, message: &ToPeer) -> proto::ToPeer {
    let message = match message {
        ToPeer::Forward(forward) => to_peer::Message::Forward(to_peer::Forward {
            session: Some(session_of(forward.session)),
            frame: forward.frame,
            settled: forward.settled,
            repeat: forward.repeat,
            stanza: forward.stanza.encode(),
        }),
        ToPeer::Answer {
            session,
            frame,
            replies,
        } => to_peer::Message::Answer(to_peer::Answer {
            session: Some(session_of(*session)),
            frame: *frame,
            replies: replies.iter().map(|reply| reply.encode()).collect(),
        }),
        ToPeer::Tell(tell) => to_peer::Message::Tell(to_peer::Tell {
            number: tell.number,
            presence: tell.presence.encode(),
            to: tell.to.iter().map(|jid| jid.as_str().to_owned()).collect(),
            probes: tell.probes.iter().map(name).collect(),
        }),
        ToPeer::Told { number } => to_peer::Message::Told(*number),
        ToPeer::Durable { number, effect } => to_peer::Message::Durable(to_peer::Durable {
            number: *number,
            effect: effect.encode(),
        }),
        ToPeer::Done { number } => to_peer::Message::Done(*number),
        ToPeer::Ask(ask) => to_peer::Message::Ask(to_peer::Ask {
            number: ask.number,
            account: name(&ask.account),
            about: name(&ask.about),
        }),
        ToPeer::Stands { number, standing } => to_peer::Message::Stands(to_peer::Stands {
            number: *number,
            subscribed: standing.subscribed,
            groups: standing.groups.clone(),
        }),
    };
    proto::ToPeer {
        to: to.0.into(),
        known_term: known.term,
        known_round: known.round,
        message: Some(message),
    }
}

fn name(account: &BareJid) -> String {
    account.as_str().to_owned()
}

fn session_of(session: SessionId) -> proto::SessionId {
    proto::SessionId {
        term: session.term,
        counter: session.counter,
        shard: session.shard.into(),
    }
}

fn origin_of(of: Origin) -> Option<proto::Origin> {
    let origin = match of {
        Origin::Frame { session, frame } => origin::Origin::Frame(proto::OriginFrame {
            session: Some(session_of(session)),
            frame,
        }),
        Origin::Answer { frame } => origin::Origin::Answer(frame),
        Origin::Stored { stamp } => origin::Origin::Stored(stamp),
        Origin::None => return None,
    };
    Some(proto::Origin { origin: Some(origin) })
}

fn hash_of(hash: ScramHash) -> proto::Hash {
    match hash {
        ScramHash::Sha1 => proto::Hash::Sha1,
        ScramHash::Sha256 => proto::Hash::Sha256,
        ScramHash::Sha512 => proto::Hash::Sha512,
    }
}

pub(super) fn keys_of(keys: &ScramKeys) -> proto::Keys {
    proto::Keys {
        hash: hash_of(keys.hash()).into(),
        salt: Bytes::copy_from_slice(keys.salt()),
        iterations: keys.iterations(),
        stored_key: Bytes::copy_from_slice(keys.stored_key()),
        server_key: Bytes::copy_from_slice(keys.server_key()),
    }
}

fn delivery_of(delivery: &Delivery) -> proto::Delivery {
    proto::Delivery {
        seq: delivery.seq,
        origin: origin_of(delivery.origin),
        at: delivery.at.0,
        stanza: delivery.stanza.encode(),
    }
}

fn memory_of(memory: &Memory) -> proto::Memory {
    proto::Memory {
        roster: memory.roster,
        blocklist: memory.blocklist,
        carbons: memory.carbons,
        directed: memory
            .directed
            .iter()
            .map(|jid: &Jid| jid.as_str().to_owned())
            .collect(),
    }
}

fn managed_of(managed: &Managed) -> proto::Managed {
    proto::Managed {
        id: managed.id.as_deref().map(str::to_owned),
        max: managed.max,
        base: managed.base,
        acknowledged: managed.acknowledged,
    }
}

fn presence_of(presence: Option<&Stanza>) -> Option<Bytes> {
    presence.map(Stanza::encode)
}

fn binding(binding: &Binding) -> proto::Binding {
    proto::Binding {
        session: Some(session_of(binding.session)),
        full: binding.full.as_str().to_owned(),
        accepted: binding.accepted,
        released: binding.released,
        managed: binding.managed.as_ref().map(managed_of),
        presence: presence_of(binding.presence.as_deref()),
        memory: binding.memory.as_deref().map(memory_of),
        given: binding.given.iter().filter_map(|origin| origin_of(*origin)).collect(),
    }
}

fn attachment(attachment: &Attachment) -> proto::Attachment {
    proto::Attachment {
        session: Some(session_of(attachment.session)),
        conn: attachment.conn.0,
        full: attachment.full.as_str().to_owned(),
        accepted: attachment.accepted,
        received: attachment.received,
        released: attachment.released,
        acknowledged: attachment.acknowledged,
        seen: attachment.seen.iter().filter_map(|origin| origin_of(*origin)).collect(),
        unreleased: attachment.unreleased.iter().map(delivery_of).collect(),
        presence: presence_of(attachment.presence.as_deref()),
        memory: attachment.memory.as_deref().map(memory_of),
    }
}

fn error(error: &StanzaError) -> Bytes {
    error.to_element().to_bytes()
}

/// The error as an element that stands alone: a stream declares the prefix of its own errors.
fn stream_error(error: &StreamError) -> Bytes {
    let mut condition = Element::new(error.condition.name(), STREAMS);
    if let StreamCondition::SeeOtherHost(host) = &error.condition {
        condition.push_text(&**host);
    }
    let mut element = Element::new("error", STREAM).with_child(condition);
    if let Some(text) = &error.text {
        element.push_child(Element::new("text", STREAMS).with_text(text.as_ref()));
    }
    element.with_children(error.application.as_deref().cloned()).to_bytes()
}
