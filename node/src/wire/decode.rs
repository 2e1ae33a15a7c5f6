//! From the wire's form to messages; whatever a peer may have sent.

use std::sync::Arc;

use bytes::Bytes;
use heronry_proto::link::{self as proto, item, origin, to_edge, to_peer, to_shard};
use heronry_xmpp::{
    jid::{BareJid, FullJid, Jid},
    link::{
        Ask, Attachment, Binding, Conn, Delivery, Durable, Finding, Forward, Managed, Memory, Origin, ResumeRefused,
        SessionId, ShardId, Tell, Term, ToEdge, ToPeer, ToShard,
    },
    rows::Timestamp,
    sasl::{Credentials, ScramHash, ScramKeys},
    stanza::{Stanza, StanzaError},
    stream::StreamError,
    xep::pubsub::Standing,
    xml::{Element, Limits},
};

use super::{Item, WireError};

type Read<T> = Result<T, WireError>;

const fn no<T>(what: &'static str) -> Read<T> {
    Err(WireError::Content(what))
}

pub(super) fn item(item: proto::Item) -> Read<Item> {
    let shard = shard(item.shard)?;
    let term = Term {
        term: item.term,
        round: item.round,
    };
    Ok(match item.message {
        Some(item::Message::ToShard(message)) => Item::ToShard {
            to: shard,
            term,
            message: to_shard(message)?,
        },
        Some(item::Message::ToEdge(message)) => Item::ToEdge {
            from: shard,
            term,
            message: to_edge(message)?,
        },
        Some(item::Message::ToPeer(message)) => Item::ToPeer {
            from: shard,
            term,
            to: self::shard(message.to)?,
            known: Term {
                term: message.known_term,
                round: message.known_round,
            },
            message: to_peer(message)?,
        },
        Some(item::Message::Taken(proto::Taken { messages, bytes })) => Item::Taken {
            shard,
            term,
            messages,
            bytes,
        },
        Some(item::Message::Leads(_)) => Item::Leads { shard, term },
        Some(item::Message::Resigned(_)) => Item::Resigned { shard, term },
        None => return no("an item of an unknown kind"),
    })
}

fn to_shard(message: proto::ToShard) -> Read<ToShard> {
    let conn = Conn(message.conn);
    Ok(match message.message {
        Some(to_shard::Message::Credentials(asks)) => ToShard::Credentials {
            conn,
            account: account(&asks.account)?,
            hash: match asks.hash() {
                proto::Hash::Any if asks.hash != 0 => return no("an unknown hash function"),
                hash => hash_of(hash),
            },
        },
        Some(to_shard::Message::Register(register)) => ToShard::Register {
            conn,
            account: account(&register.account)?,
            keys: all_keys(&register.keys)?,
        },
        Some(to_shard::Message::Bind(bind)) => ToShard::Bind {
            conn,
            account: account(&bind.account)?,
            resource: bind.resource.map(Into::into),
            version: bind.version,
        },
        Some(to_shard::Message::Resume(resume)) => ToShard::Resume {
            conn,
            account: account(&resume.account)?,
            version: resume.version,
            previd: resume.previd.into(),
            h: resume.h,
        },
        Some(to_shard::Message::Enable(enable)) => ToShard::Enable {
            conn,
            session: session(enable.session)?,
            base: enable.base,
            resume: enable.resume,
            max: enable.max,
        },
        Some(to_shard::Message::Submit(submit)) => ToShard::Submit {
            conn,
            session: session(submit.session)?,
            frame: submit.frame,
            settled: submit.settled,
            repeat: submit.repeat,
            stanza: stanza(&submit.stanza)?,
            finding: match (submit.refused, submit.new_password.as_slice()) {
                (None, []) => None,
                (Some(refused), []) => Some(Box::new(Finding::Refused(error(refused)?))),
                (None, keys) => Some(Box::new(Finding::NewPassword(all_keys(keys)?))),
                (Some(_), _) => return no("two findings about one stanza"),
            },
        },
        Some(to_shard::Message::Progress(progress)) => ToShard::Progress {
            conn,
            session: session(progress.session)?,
            received: progress.received,
            released: progress.released,
            voided: progress.voided,
        },
        Some(to_shard::Message::Detach(detach)) => ToShard::Detach {
            conn,
            session: session(detach.session)?,
            released: detach.released,
            voided: detach.voided,
            clean: detach.clean,
        },
        Some(to_shard::Message::Attach(attach)) => ToShard::Attach {
            sessions: attach.sessions.into_iter().map(attachment).collect::<Read<_>>()?,
            asking: attach.asking.into_iter().map(Conn).collect(),
            last: attach.last,
        },
        None => return no("an unknown message to a shard"),
    })
}

fn to_edge(message: proto::ToEdge) -> Read<ToEdge> {
    let conn = Conn(message.conn);
    Ok(match message.message {
        Some(to_edge::Message::Lead(_)) => ToEdge::Lead,
        Some(to_edge::Message::Leading(_)) => ToEdge::Leading,
        Some(to_edge::Message::Credentials(is)) => {
            use to_edge::credentials::Credentials as Is;
            let credentials = match is.credentials {
                Some(Is::Keys(known)) => {
                    let Some(keys) = &known.keys else {
                        return no("credentials without keys");
                    };
                    Credentials::Keys {
                        keys: keys_of(keys)?,
                        version: known.version,
                    }
                }
                Some(Is::UnknownUser(_)) => Credentials::UnknownUser,
                Some(Is::Unavailable(_)) => Credentials::Unavailable,
                None => return no("unknown credentials"),
            };
            let credentials = Box::new(credentials);
            ToEdge::Credentials { conn, credentials }
        }
        Some(to_edge::Message::Registered(registered)) => ToEdge::Registered {
            conn,
            result: match registered.error {
                None => Ok(()),
                Some(refused) => Err(error(refused)?),
            },
        },
        Some(to_edge::Message::Bound(bound)) => ToEdge::Bound {
            conn,
            result: match bound.result {
                Some(to_edge::bound::Result::Binding(is)) => Ok(Box::new(binding(is)?)),
                Some(to_edge::bound::Result::Error(refused)) => Err(error(refused)?),
                None => return no("no result of a bind"),
            },
        },
        Some(to_edge::Message::Resumed(resumed)) => ToEdge::Resumed {
            conn,
            result: match resumed.result {
                Some(to_edge::resumed::Result::Binding(is)) => Ok(Box::new(binding(is)?)),
                Some(to_edge::resumed::Result::Refused(refused)) => Err(ResumeRefused {
                    error: error(refused.error)?,
                    h: refused.h,
                }),
                None => return no("no result of a resumption"),
            },
        },
        Some(to_edge::Message::Managed(managed)) => ToEdge::Managed {
            conn,
            managed: managed_of(managed),
        },
        Some(to_edge::Message::Accepted(accepted)) => {
            if accepted.conns.len() != accepted.up_to.len() {
                return no("frames accepted of nobody");
            }
            ToEdge::Accepted(accepted.conns.into_iter().map(Conn).zip(accepted.up_to).collect())
        }
        Some(to_edge::Message::Deliver(is)) => ToEdge::Deliver {
            conn,
            delivery: delivery(is)?,
        },
        Some(to_edge::Message::Remember(remember)) => ToEdge::Remember {
            conn,
            memory: remember.memory.as_ref().map(memory).transpose()?,
        },
        Some(to_edge::Message::Detached(_)) => ToEdge::Detached { conn },
        Some(to_edge::Message::Close(error)) => ToEdge::Close {
            conn,
            error: match StreamError::parse(&element(error)?) {
                Some(error) => error,
                None => return no("what is no stream error"),
            },
        },
        None => return no("an unknown message to an edge"),
    })
}

fn to_peer(message: proto::ToPeer) -> Read<ToPeer> {
    Ok(match message.message {
        Some(to_peer::Message::Forward(forward)) => ToPeer::Forward(Forward {
            session: session(forward.session)?,
            frame: forward.frame,
            settled: forward.settled,
            repeat: forward.repeat,
            stanza: stanza(&forward.stanza)?,
        }),
        Some(to_peer::Message::Answer(answer)) => ToPeer::Answer {
            session: session(answer.session)?,
            frame: answer.frame,
            replies: answer.replies.iter().map(stanza).collect::<Read<_>>()?,
        },
        Some(to_peer::Message::Tell(tell)) => ToPeer::Tell(Tell {
            number: tell.number,
            presence: stanza(&tell.presence)?,
            to: tell.to.iter().map(|jid| address(jid)).collect::<Read<_>>()?,
            probes: tell.probes.iter().map(|jid| account(jid)).collect::<Read<_>>()?,
        }),
        Some(to_peer::Message::Told(number)) => ToPeer::Told { number },
        Some(to_peer::Message::Durable(durable)) => ToPeer::Durable {
            number: durable.number,
            effect: effect(&durable.effect)?,
        },
        Some(to_peer::Message::Done(number)) => ToPeer::Done { number },
        Some(to_peer::Message::Ask(ask)) => ToPeer::Ask(Ask {
            number: ask.number,
            account: account(&ask.account)?,
            about: account(&ask.about)?,
        }),
        Some(to_peer::Message::Stands(stands)) => ToPeer::Stands {
            number: stands.number,
            standing: Standing {
                subscribed: stands.subscribed,
                groups: stands.groups,
            },
        },
        None => return no("an unknown message to a shard from another"),
    })
}

fn shard(number: u32) -> Read<ShardId> {
    u16::try_from(number).map_or(no("no number of a shard"), |number| Ok(ShardId(number)))
}

fn session(session: Option<proto::SessionId>) -> Read<SessionId> {
    let Some(session) = session else {
        return no("no session");
    };
    Ok(SessionId {
        term: session.term,
        counter: session.counter,
        shard: shard(session.shard)?.0,
    })
}

fn origin(origin: Option<proto::Origin>) -> Read<Origin> {
    let Some(origin) = origin else { return Ok(Origin::None) };
    Ok(match origin.origin {
        Some(origin::Origin::Frame(from)) => Origin::Frame {
            session: session(from.session)?,
            frame: from.frame,
        },
        Some(origin::Origin::Answer(frame)) => Origin::Answer { frame },
        Some(origin::Origin::Stored(stamp)) => Origin::Stored { stamp },
        None => return no("an unknown origin"),
    })
}

/// A stanza of its own: one that is kept must not keep the whole frame in memory.
fn stanza(bytes: &Bytes) -> Read<Arc<Stanza>> {
    Stanza::decode(Bytes::copy_from_slice(bytes)).map_or(no("what is no stanza"), |stanza| Ok(Arc::new(stanza)))
}

fn effect(bytes: &Bytes) -> Read<Durable> {
    Durable::decode(Bytes::copy_from_slice(bytes)).map_or(no("what is no effect"), Ok)
}

fn presence(bytes: Option<&Bytes>) -> Read<Option<Arc<Stanza>>> {
    bytes.map(stanza).transpose()
}

fn account(name: &str) -> Read<BareJid> {
    BareJid::parse(name).map_or(no("what is no account"), Ok)
}

fn full(name: &str) -> Read<FullJid> {
    FullJid::parse(name).map_or(no("what is no full address"), Ok)
}

fn address(name: &str) -> Read<Jid> {
    Jid::parse(name).map_or(no("what is no address"), Ok)
}

fn hash_of(hash: proto::Hash) -> Option<ScramHash> {
    match hash {
        proto::Hash::Any => None,
        proto::Hash::Sha1 => Some(ScramHash::Sha1),
        proto::Hash::Sha256 => Some(ScramHash::Sha256),
        proto::Hash::Sha512 => Some(ScramHash::Sha512),
    }
}

fn keys_of(keys: &proto::Keys) -> Read<ScramKeys> {
    let Some(hash) = hash_of(keys.hash()) else {
        return no("keys for no hash function");
    };
    ScramKeys::new(hash, &keys.salt, keys.iterations, &keys.stored_key, &keys.server_key)
        .map_or(no("what are no keys"), Ok)
}

pub(super) fn all_keys(keys: &[proto::Keys]) -> Read<Box<[ScramKeys]>> {
    keys.iter().map(keys_of).collect()
}

fn delivery(delivery: proto::Delivery) -> Read<Delivery> {
    Ok(Delivery {
        seq: delivery.seq,
        origin: origin(delivery.origin)?,
        at: Timestamp(delivery.at),
        stanza: stanza(&delivery.stanza)?,
    })
}

fn memory(memory: &proto::Memory) -> Read<Arc<Memory>> {
    Ok(Arc::new(Memory {
        roster: memory.roster,
        blocklist: memory.blocklist,
        carbons: memory.carbons,
        directed: memory.directed.iter().map(|jid| address(jid)).collect::<Read<_>>()?,
    }))
}

fn managed_of(managed: proto::Managed) -> Managed {
    Managed {
        id: managed.id.map(Into::into),
        max: managed.max,
        base: managed.base,
        acknowledged: managed.acknowledged,
    }
}

fn binding(binding: proto::Binding) -> Read<Binding> {
    Ok(Binding {
        session: session(binding.session)?,
        full: full(&binding.full)?,
        accepted: binding.accepted,
        released: binding.released,
        managed: binding.managed.map(managed_of),
        presence: presence(binding.presence.as_ref())?,
        memory: binding.memory.as_ref().map(memory).transpose()?,
        given: origins(binding.given)?,
    })
}

fn origins(origins: Vec<proto::Origin>) -> Read<Vec<Origin>> {
    origins.into_iter().map(|seen| origin(Some(seen))).collect()
}

fn attachment(attachment: proto::Attachment) -> Read<Attachment> {
    Ok(Attachment {
        session: session(attachment.session)?,
        conn: Conn(attachment.conn),
        full: full(&attachment.full)?,
        accepted: attachment.accepted,
        received: attachment.received,
        released: attachment.released,
        acknowledged: attachment.acknowledged,
        seen: origins(attachment.seen)?,
        unreleased: attachment.unreleased.into_iter().map(delivery).collect::<Read<_>>()?,
        presence: presence(attachment.presence.as_ref())?,
        memory: attachment.memory.as_ref().map(memory).transpose()?,
    })
}

fn element(bytes: Bytes) -> Read<Element> {
    Element::parse(bytes, &Limits::after_auth()).map_or(no("what is no element"), Ok)
}

fn error(bytes: Bytes) -> Read<StanzaError> {
    Ok(StanzaError::from_element(&element(bytes)?))
}
