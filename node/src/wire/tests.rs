use std::sync::Arc;

use heronry_xmpp::{
    jid::{BareJid, FullJid, Jid},
    link::{
        Ask as AskPeer, Attachment, Binding, Conn, Delivery, Durable, Finding, Forward, Managed, Memory, Origin,
        ResumeRefused, SessionId, Tell,
    },
    rows::Timestamp,
    sasl::{Credentials, ScramHash, ScramKeys},
    stanza::{IqType, Kind, MessageType, PresenceType, Stanza, StanzaError},
    stream::StreamError,
    xep::pubsub::{
        Standing,
        address::NodeAddress,
        effect::{FollowerRow, Notify, PubsubEffect},
    },
    xml::Element,
};
use proptest::{collection::vec, option, prelude::*};

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[ -~äß☃]{1,12}".prop_filter("no space around it", |text| text.trim() == text)
}

fn bare() -> impl Strategy<Value = BareJid> {
    "[a-z]{1,8}".prop_map(|local| BareJid::new(Some(&local), "example.org").expect("an address"))
}

fn full() -> impl Strategy<Value = FullJid> {
    (bare(), "[a-zA-Z0-9]{1,8}").prop_map(|(bare, resource)| bare.with_resource(&resource).expect("an address"))
}

fn jid() -> impl Strategy<Value = Jid> {
    prop_oneof![bare().prop_map(Jid::from), full().prop_map(Jid::from)]
}

fn session() -> impl Strategy<Value = SessionId> {
    (any::<u64>(), any::<u32>(), any::<u16>()).prop_map(|(term, counter, shard)| SessionId { term, counter, shard })
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        (session(), any::<u64>()).prop_map(|(session, frame)| Origin::Frame { session, frame }),
        any::<u64>().prop_map(|frame| Origin::Answer { frame }),
        any::<u64>().prop_map(|stamp| Origin::Stored { stamp }),
        Just(Origin::None),
    ]
}

/// What is remembered of what was seen has always an origin.
fn seen() -> impl Strategy<Value = Origin> {
    origin().prop_filter("an origin", |origin| *origin != Origin::None)
}

fn stanza() -> impl Strategy<Value = Arc<Stanza>> {
    let kind = prop_oneof![
        Just(Kind::Message(MessageType::Chat)),
        Just(Kind::Presence(PresenceType::Available)),
        Just(Kind::Iq(IqType::Set)),
    ];
    (
        kind,
        option::of(jid()),
        option::of(full()),
        option::of(text()),
        option::of(text()),
    )
        .prop_map(|(kind, to, from, id, body)| {
            let body = body.map(|body| Element::new("body", "jabber:client").with_text(body));
            let mut stanza = Stanza::new(kind, body.as_ref());
            stanza.to = to;
            stanza.from = from.map(Jid::from);
            stanza.id = id.map(Into::into);
            Arc::new(stanza)
        })
}

fn error() -> impl Strategy<Value = StanzaError> {
    let kinds = prop_oneof![
        Just(StanzaError::forbidden()),
        Just(StanzaError::resource_constraint()),
        Just(StanzaError::gone().with_address("xmpp:elsewhere@example.org")),
        Just(StanzaError::not_acceptable().with_application(Element::new("special", "urn:example"))),
    ];
    (kinds, option::of(text())).prop_map(|(error, text)| match text {
        Some(text) => error.with_text(text),
        None => error,
    })
}

fn stream_error() -> impl Strategy<Value = StreamError> {
    let kinds = prop_oneof![
        Just(StreamError::conflict()),
        Just(StreamError::reset()),
        Just(StreamError::see_other_host("b.example.org:5222")),
        Just(StreamError::policy_violation().with_application(Element::new("special", "urn:example"))),
    ];
    (kinds, option::of(text())).prop_map(|(error, text)| match text {
        Some(text) => error.with_text(text),
        None => error,
    })
}

fn keys() -> impl Strategy<Value = ScramKeys> {
    let hash = prop_oneof![Just(ScramHash::Sha1), Just(ScramHash::Sha256), Just(ScramHash::Sha512)];
    (
        hash,
        any::<[u8; 16]>(),
        4096u32..20_000,
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
    )
        .prop_map(|(hash, salt, iterations, stored, server)| {
            let long = |key: [u8; 32]| {
                key.iter()
                    .copied()
                    .cycle()
                    .take(hash.output_bytes())
                    .collect::<Vec<_>>()
            };
            ScramKeys::new(hash, &salt, iterations, &long(stored), &long(server)).expect("keys")
        })
}

fn some_keys() -> impl Strategy<Value = Box<[ScramKeys]>> {
    vec(keys(), 1..3).prop_map(Into::into)
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (any::<u64>(), origin(), any::<u64>(), stanza()).prop_map(|(seq, origin, at, stanza)| Delivery {
        seq,
        origin,
        at: Timestamp(at),
        stanza,
    })
}

fn memory() -> impl Strategy<Value = Arc<Memory>> {
    (any::<bool>(), any::<bool>(), any::<bool>(), vec(jid(), 0..3)).prop_map(
        |(roster, blocklist, carbons, directed)| {
            Arc::new(Memory {
                roster,
                blocklist,
                carbons,
                directed,
            })
        },
    )
}

fn managed() -> impl Strategy<Value = Managed> {
    (option::of(text()), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(id, max, base, acknowledged)| Managed {
        id: id.map(Into::into),
        max,
        base,
        acknowledged,
    })
}

fn binding() -> impl Strategy<Value = Box<Binding>> {
    let state = (
        option::of(managed()),
        option::of(stanza()),
        option::of(memory()),
        vec(seen(), 0..3),
    );
    (session(), full(), any::<u64>(), any::<u64>(), state).prop_map(
        |(session, full, accepted, released, (managed, presence, memory, given))| {
            Box::new(Binding {
                session,
                full,
                accepted,
                released,
                managed,
                presence,
                memory,
                given,
            })
        },
    )
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let counters = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let state = (
        vec(seen(), 0..3),
        vec(delivery(), 0..3),
        option::of(stanza()),
        option::of(memory()),
    );
    (session(), any::<u64>(), full(), counters, state).prop_map(|(session, conn, full, counters, state)| {
        let (accepted, received, released, acknowledged) = counters;
        let (seen, unreleased, presence, memory) = state;
        Attachment {
            session,
            conn: Conn(conn),
            full,
            accepted,
            received,
            released,
            acknowledged,
            seen,
            unreleased,
            presence,
            memory,
        }
    })
}

fn finding() -> impl Strategy<Value = Option<Box<Finding>>> {
    prop_oneof![
        Just(None),
        error().prop_map(|error| Some(Box::new(Finding::Refused(error)))),
        some_keys().prop_map(|keys| Some(Box::new(Finding::NewPassword(keys)))),
    ]
}

fn conn() -> impl Strategy<Value = Conn> {
    any::<u64>().prop_map(Conn)
}

fn to_shard() -> BoxedStrategy<ToShard> {
    let hash = option::of(prop_oneof![Just(ScramHash::Sha1), Just(ScramHash::Sha512)]);
    prop_oneof![
        (conn(), bare(), hash).prop_map(|(conn, account, hash)| ToShard::Credentials { conn, account, hash }),
        (conn(), bare(), some_keys()).prop_map(|(conn, account, keys)| ToShard::Register { conn, account, keys }),
        (conn(), bare(), option::of(text()), any::<u64>()).prop_map(|(conn, account, resource, version)| {
            let resource = resource.map(Into::into);
            ToShard::Bind {
                conn,
                account,
                resource,
                version,
            }
        }),
        (conn(), bare(), any::<u64>(), text(), any::<u32>()).prop_map(|(conn, account, version, previd, h)| {
            let previd = previd.into();
            ToShard::Resume {
                conn,
                account,
                version,
                previd,
                h,
            }
        }),
        (conn(), session(), any::<u64>(), any::<bool>(), any::<Option<u32>>()).prop_map(
            |(conn, session, base, resume, max)| ToShard::Enable {
                conn,
                session,
                base,
                resume,
                max
            }
        ),
        (conn(), session(), any::<[u64; 2]>(), any::<bool>(), stanza(), finding()).prop_map(
            |(conn, session, [frame, settled], repeat, stanza, finding)| ToShard::Submit {
                conn,
                session,
                frame,
                settled,
                repeat,
                stanza,
                finding,
            }
        ),
        (conn(), session(), any::<[u64; 2]>(), vec(any::<u64>(), 0..3)).prop_map(
            |(conn, session, [received, released], voided)| ToShard::Progress {
                conn,
                session,
                received,
                released,
                voided
            }
        ),
        (conn(), session(), any::<u64>(), vec(any::<u64>(), 0..3), any::<bool>()).prop_map(
            |(conn, session, released, voided, clean)| ToShard::Detach {
                conn,
                session,
                released,
                voided,
                clean
            }
        ),
        (vec(attachment(), 0..3), vec(conn(), 0..3), any::<bool>())
            .prop_map(|(sessions, asking, last)| ToShard::Attach { sessions, asking, last }),
    ]
    .boxed()
}

fn to_edge() -> BoxedStrategy<ToEdge> {
    let credentials = prop_oneof![
        (keys(), any::<u64>()).prop_map(|(keys, version)| Credentials::Keys { keys, version }),
        Just(Credentials::UnknownUser),
        Just(Credentials::Unavailable),
    ];
    let refused = (error(), any::<Option<u32>>()).prop_map(|(error, h)| ResumeRefused { error, h });
    prop_oneof![
        Just(ToEdge::Lead),
        Just(ToEdge::Leading),
        (conn(), credentials).prop_map(|(conn, credentials)| {
            let credentials = Box::new(credentials);
            ToEdge::Credentials { conn, credentials }
        }),
        (conn(), option::of(error())).prop_map(|(conn, error)| ToEdge::Registered {
            conn,
            result: error.map_or(Ok(()), Err)
        }),
        (conn(), binding()).prop_map(|(conn, binding)| ToEdge::Bound {
            conn,
            result: Ok(binding)
        }),
        (conn(), error()).prop_map(|(conn, error)| ToEdge::Bound {
            conn,
            result: Err(error)
        }),
        (conn(), binding()).prop_map(|(conn, binding)| ToEdge::Resumed {
            conn,
            result: Ok(binding)
        }),
        (conn(), refused).prop_map(|(conn, refused)| ToEdge::Resumed {
            conn,
            result: Err(refused)
        }),
        (conn(), managed()).prop_map(|(conn, managed)| ToEdge::Managed { conn, managed }),
        vec((conn(), any::<u64>()), 0..4).prop_map(ToEdge::Accepted),
        (conn(), delivery()).prop_map(|(conn, delivery)| ToEdge::Deliver { conn, delivery }),
        (conn(), option::of(memory())).prop_map(|(conn, memory)| ToEdge::Remember { conn, memory }),
        conn().prop_map(|conn| ToEdge::Detached { conn }),
        (conn(), stream_error()).prop_map(|(conn, error)| ToEdge::Close { conn, error }),
    ]
    .boxed()
}

fn to_peer() -> BoxedStrategy<ToPeer> {
    prop_oneof![
        (session(), any::<[u64; 2]>(), any::<bool>(), stanza()).prop_map(
            |(session, [frame, settled], repeat, stanza)| ToPeer::Forward(Forward {
                session,
                frame,
                settled,
                repeat,
                stanza
            })
        ),
        (session(), any::<u64>(), vec(stanza(), 0..3)).prop_map(|(session, frame, replies)| ToPeer::Answer {
            session,
            frame,
            replies
        }),
        (any::<u64>(), stanza(), vec(jid(), 0..4), vec(bare(), 0..4)).prop_map(|(number, presence, to, probes)| {
            ToPeer::Tell(Tell {
                number,
                presence,
                to,
                probes,
            })
        }),
        any::<u64>().prop_map(|number| ToPeer::Told { number }),
        (any::<u64>(), durable()).prop_map(|(number, effect)| ToPeer::Durable { number, effect }),
        any::<u64>().prop_map(|number| ToPeer::Done { number }),
        (any::<u64>(), bare(), bare())
            .prop_map(|(number, account, about)| { ToPeer::Ask(AskPeer { number, account, about }) }),
        (any::<u64>(), any::<bool>(), vec(".{0,8}", 0..3)).prop_map(|(number, subscribed, groups)| ToPeer::Stands {
            number,
            standing: Standing { subscribed, groups },
        }),
    ]
    .boxed()
}

fn durable() -> impl Strategy<Value = Durable> {
    let address = || NodeAddress::of_entity("pubsub.example.org/sensors").expect("an address");
    let notify = (any::<u64>(), any::<u64>(), any::<bool>(), stanza());
    prop_oneof![
        stanza().prop_map(Durable::Stanza),
        notify.prop_map(move |(incarnation, number, ends, stanza)| {
            Durable::Pubsub(Arc::new(PubsubEffect::Notify(Notify {
                address: address(),
                incarnation,
                number,
                only_available: !ends,
                ends,
                stanza,
            })))
        }),
        (any::<u64>(), jid(), ".{0,8}").prop_map(move |(incarnation, jid, subid)| {
            Durable::Pubsub(Arc::new(PubsubEffect::Follow {
                address: address(),
                incarnation,
                jid,
                subid,
                row: FollowerRow::default(),
            }))
        }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let term = (any::<u64>(), any::<u32>()).prop_map(|(term, round)| Term { term, round });
    let what = prop_oneof![
        to_shard().prop_map(|message| Item::ToShard {
            to: ShardId(0),
            term: Term::default(),
            message
        }),
        to_edge().prop_map(|message| Item::ToEdge {
            from: ShardId(0),
            term: Term::default(),
            message
        }),
        (to_peer(), any::<u16>(), any::<(u64, u32)>()).prop_map(|(message, to, (term, round))| Item::ToPeer {
            from: ShardId(0),
            term: Term::default(),
            to: ShardId(to),
            known: Term { term, round },
            message
        }),
        any::<[u64; 2]>().prop_map(|[messages, bytes]| Item::Taken {
            shard: ShardId(0),
            term: Term::default(),
            messages,
            bytes
        }),
        Just(Item::Leads {
            shard: ShardId(0),
            term: Term::default()
        }),
        Just(Item::Resigned {
            shard: ShardId(0),
            term: Term::default()
        }),
    ];
    (what, any::<u16>().prop_map(ShardId), term).prop_map(|(mut item, number, fencing)| {
        match &mut item {
            Item::ToShard { to: shard, term, .. }
            | Item::ToEdge { from: shard, term, .. }
            | Item::ToPeer { from: shard, term, .. }
            | Item::Taken { shard, term, .. }
            | Item::Leads { shard, term }
            | Item::Resigned { shard, term } => (*shard, *term) = (number, fencing),
        }
        item
    })
}

fn written(to: u64, items: &[Item]) -> Bytes {
    let mut writer = Writer::default();
    for item in items {
        assert_eq!(writer.add(to, item, usize::MAX), None);
    }
    writer.take().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(items in vec(item(), 1..4), to: u64) {
        let frame = written(to, &items);
        let (read_to, read) = read(frame.clone()).expect("a frame of ours");
        prop_assert_eq!(read_to, to);
        // Where a name is kept is no difference.
        let said = |items: &[Item]| format!("{items:?}").replace("Shared(", "Static(");
        prop_assert_eq!(said(&read), said(&items));
        // Secrets do not print themselves.
        prop_assert_eq!(written(to, &read), frame);
    }

    #[test]
    fn garbage_is_refused_or_read_and_nothing_else(bytes in vec(any::<u8>(), 0..200)) {
        let _ = read(bytes.into());
    }

    #[test]
    fn a_frame_with_a_fault_is_refused_or_read_and_nothing_else(
        items in vec(item(), 1..3),
        place: proptest::sample::Index,
        byte: u8,
        cut: bool,
    ) {
        let mut frame = written(1, &items).to_vec();
        let place = place.index(frame.len());
        if cut {
            frame.truncate(place);
        } else {
            frame[place] = byte;
        }
        let _ = read(frame.into());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let item = |message| proto::Frame {
        to: 1,
        items: vec![proto::Item {
            shard: 1,
            term: 1,
            round: 0,
            message,
        }],
    };
    let refused = |frame: proto::Frame| read(frame.encode_to_vec().into()).expect_err("it makes no sense");
    assert_eq!(refused(item(None)), WireError::Content("an item of an unknown kind"));
    let mut far = item(Some(proto::item::Message::Resigned(proto::Empty {})));
    far.items[0].shard = 70_000;
    assert_eq!(refused(far), WireError::Content("no number of a shard"));
    let submit = proto::to_shard::Submit {
        session: Some(proto::SessionId::default()),
        stanza: Bytes::from_static(b"<message/>"),
        ..proto::to_shard::Submit::default()
    };
    let submit = proto::ToShard {
        conn: 1,
        message: Some(proto::to_shard::Message::Submit(submit)),
    };
    let submit = item(Some(proto::item::Message::ToShard(submit)));
    assert_eq!(refused(submit), WireError::Content("what is no stanza"));
    let accepted = proto::ToEdge {
        conn: 0,
        message: Some(proto::to_edge::Message::Accepted(proto::to_edge::Accepted {
            conns: vec![1, 2],
            up_to: vec![1],
        })),
    };
    let accepted = item(Some(proto::item::Message::ToEdge(accepted)));
    assert_eq!(refused(accepted), WireError::Content("frames accepted of nobody"));
    assert!(matches!(read(Bytes::from_static(b"\xff\xff")), Err(WireError::Form(_))));
}

#[test]
fn a_stanza_that_is_kept_does_not_keep_the_frame() {
    let stanza = |body: String| {
        let body = Element::new("body", "jabber:client").with_text(body);
        Arc::new(Stanza::new(Kind::Message(MessageType::Chat), [&body]))
    };
    let durable = |number, stanza| Item::ToPeer {
        from: ShardId(1),
        term: Term::default(),
        to: ShardId(0),
        known: Term::default(),
        message: ToPeer::Durable {
            number,
            effect: Durable::Stanza(stanza),
        },
    };
    let frame = written(
        1,
        &[durable(1, stanza("x".into())), durable(2, stanza("y".repeat(100_000)))],
    );
    let held = frame.clone();
    let (_, items) = read(frame).expect("a frame of ours");
    assert_eq!(items.len(), 2);
    assert!(held.is_unique(), "somebody holds a part of the frame");
}

mod administer {
    use heronry_xmpp::{
        rows::SHARD_SLOTS,
        shard::{Account, Administer, Administered, Existing, Imported, Listed, Phase, Restore},
    };

    use super::{super::administer::*, *};
    use crate::admin::UserFilter;

    fn account() -> impl Strategy<Value = Account> {
        (bare(), some_keys()).prop_map(|(jid, keys)| Account {
            jid,
            keys: keys.into_vec(),
        })
    }

    fn position() -> impl Strategy<Value = Position> {
        (0..SHARD_SLOTS, option::of(bare())).prop_map(|(slot, after)| Position { slot, after })
    }

    fn phase() -> impl Strategy<Value = Phase> {
        prop_oneof![
            Just(Phase::Belongings),
            Just(Phase::Accounts),
            Just(Phase::Effects),
            Just(Phase::Done),
        ]
    }

    fn restore() -> impl Strategy<Value = Restore> {
        let row = (vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9)).prop_map(|(key, value)| (key.into(), value.into()));
        prop_oneof![
            any::<u128>().prop_map(|backup| Restore::Look { backup }),
            (any::<u128>(), any::<u64>()).prop_map(|(backup, at)| Restore::Begin {
                backup,
                at: Timestamp(at),
            }),
            (any::<u128>(), phase(), vec(row, 0..4)).prop_map(|(backup, phase, rows)| Restore::Rows {
                backup,
                phase,
                rows: rows.into(),
            }),
            (any::<u128>(), phase()).prop_map(|(backup, to)| Restore::Advance { backup, to }),
        ]
    }

    fn ask() -> impl Strategy<Value = Ask> {
        let existing = prop_oneof![Just(Existing::Replace), Just(Existing::Keep), Just(Existing::Refuse)];
        let administer = prop_oneof![
            account().prop_map(Administer::Add),
            account().prop_map(Administer::SetKeys),
            bare().prop_map(Administer::Delete),
            (vec(account(), 0..4), existing).prop_map(|(accounts, existing)| Administer::Import {
                accounts: accounts.into(),
                existing,
            }),
            restore().prop_map(Administer::Restore),
        ];
        let page = (position(), text(), text(), 1..1000usize, 0..1000usize);
        prop_oneof![
            (any::<u16>(), administer).prop_map(|(shard, request)| Ask::Administer(ShardId(shard), request)),
            page.prop_map(|(from, domain, prefix, count, looked_at_max)| Ask::Page(Page {
                from,
                filter: UserFilter { domain, prefix },
                count,
                looked_at_max,
            })),
            (any::<u16>(), any::<u64>()).prop_map(|(shard, ticket)| Ask::Backup(ShardId(shard), ticket)),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let imported = prop_oneof![
            Just(Imported::Created),
            Just(Imported::Replaced),
            Just(Imported::Kept),
            Just(Imported::Exists),
        ];
        let administered = prop_oneof![
            Just(Administered::Done),
            Just(Administered::Exists),
            Just(Administered::Unknown),
            Just(Administered::Unavailable),
            Just(Administered::HasAccounts),
            Just(Administered::OtherRestore),
            Just(Administered::NotRows),
            phase().prop_map(Administered::Restoring),
            vec(imported, 0..5).prop_map(Administered::Imported),
        ];
        let listed = (account(), any::<u64>()).prop_map(|(Account { jid, keys }, created)| Listed {
            jid,
            created: Timestamp(created),
            keys,
        });
        let listing = (vec(listed, 0..4), 0..9000usize, option::of(position()));
        prop_oneof![
            administered.prop_map(Answer::Administered),
            listing.prop_map(|(accounts, looked_at, next)| Answer::Listing(Listing {
                accounts,
                looked_at,
                next,
            })),
            any::<bool>().prop_map(|elsewhere| Answer::NotLed { elsewhere }),
            text().prop_map(Answer::Failed),
            Just(Answer::Silent),
            Just(Answer::Coming),
        ]
    }

    /// Keys are not shown, so what is compared is the form.
    fn same(one: &Bytes, other: &Bytes, one_shown: String, other_shown: String) -> Result<(), TestCaseError> {
        prop_assert_eq!(one, other);
        prop_assert_eq!(one_shown, other_shown);
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_asked_for_an_operator_is_read_as_it_was_written(ask in ask()) {
            let bytes = ask.encode();
            let read = Ask::decode(bytes.clone()).expect("a question");
            same(&bytes, &read.encode(), format!("{ask:?}"), format!("{read:?}"))?;
        }

        #[test]
        fn what_is_answered_is_read_as_it_was_written(answer in answer()) {
            let bytes = answer.encode();
            let read = Answer::decode(bytes.clone()).expect("an answer");
            same(&bytes, &read.encode(), format!("{answer:?}"), format!("{read:?}"))?;
        }

        #[test]
        fn whatever_a_node_sends_is_read_or_refused(bytes in vec(any::<u8>(), 0..200), ask in ask(), cut in 0..200usize) {
            let _ = (Ask::decode(bytes.clone().into()), Answer::decode(bytes.into()));
            let whole = ask.encode();
            let part = whole.slice(..cut.min(whole.len()));
            let _ = (Ask::decode(part.clone()), Answer::decode(part));
        }
    }

    #[test]
    fn what_would_read_for_ever_or_nowhere_is_refused() {
        let page = |slot, count| {
            let page = proto_page(slot, count);
            Ask::decode(page)
        };
        assert!(page(0, 1).is_ok());
        assert!(page(0, 0).is_err(), "no account at a time");
        assert!(page(u32::from(SHARD_SLOTS), 1).is_err(), "no slot of accounts");
        assert!(page(1 << 16, 1).is_err(), "no slot at all");
        assert!(Ask::decode(Bytes::new()).is_err());
        assert!(Answer::decode(Bytes::new()).is_err());
    }

    fn proto_page(slot: u32, count: u32) -> Bytes {
        use heronry_proto::administer as proto;
        let page = proto::Page {
            slot,
            count,
            ..proto::Page::default()
        };
        let what = Some(proto::ask::What::Page(page));
        proto::Ask { what }.encode_to_vec().into()
    }
}
