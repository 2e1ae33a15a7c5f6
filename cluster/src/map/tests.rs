use heronry_storage::{Batch, MemoryStore, Store, Timestamp};
use proptest::prelude::*;

use super::*;

const LEVEL: u32 = 3;

fn newcomer(node: u64) -> Newcomer {
    Newcomer {
        node: NodeId(node),
        roles: Roles { edge: true, core: true },
        address: format!("node-{node}:5270"),
        zone: String::new(),
        feature_level: LEVEL,
        version: "0.1.0".to_owned(),
        services: Services::new(),
    }
}

fn founded() -> ClusterMap {
    ClusterMap::founded(ClusterId(7), "colony", &newcomer(1), 4)
}

impl ClusterMap {
    /// The map after a command that is not refused.
    #[track_caller]
    fn after(&self, command: &Command) -> Self {
        let writes = command.evaluate(self).unwrap();
        self.with(&writes, self.version + 1).unwrap()
    }
}

fn admit(node: u64) -> Command {
    Command::Admit(newcomer(node))
}

fn set_state(node: u64, state: MemberState) -> Command {
    Command::SetState {
        node: NodeId(node),
        state,
    }
}

fn set_shard(shard: u16, target: &[u64]) -> Command {
    Command::SetShard {
        shard: ShardId(shard),
        target: target.iter().copied().map(NodeId).collect(),
    }
}

fn refusal(map: &ClusterMap, command: &Command) -> String {
    command.evaluate(map).unwrap_err().to_string()
}

#[test]
fn a_cluster_of_one_has_everything_on_its_founder() {
    let map = founded();
    assert_eq!(map.shards_count(), 4);
    assert_eq!(map.shards_of(NodeId(1)).len(), 5);
    assert!(
        map.shards
            .values()
            .all(|shard| shard.preferred_leader() == Some(NodeId(1)))
    );
}

#[test]
fn a_map_is_read_from_rows_as_it_was_written() {
    let mut map = founded();
    for node in 2..600 {
        map = map.after(&admit(node));
    }
    map = map.after(&Command::SetSetting {
        name: "moves_max".to_owned(),
        value: Some("2".to_owned()),
    });
    let store = MemoryStore::new(NodeId(1));
    let rows = store.rows(METADATA);
    assert_eq!(ClusterMap::read(&rows, 0).unwrap(), None);
    let batch = Batch {
        at: Timestamp(1),
        writes: map.rows(),
    };
    store.apply(METADATA, &[batch], Vec::new().into()).unwrap();
    assert_eq!(ClusterMap::read(&rows, map.version).unwrap(), Some(map.clone()));
    assert_eq!(ClusterMap::decode(&map.encode()).unwrap(), map);
    assert_eq!(map.settings().moves_max, 2);
}

#[test]
fn rows_of_tables_that_a_newer_program_has_are_left_alone() {
    let unknown = Write::Put(vec![0xff, 0xff, b'z', 1].into(), vec![1, 2, 3].into());
    assert_eq!(founded().with(&[unknown], 0).unwrap(), founded());
}

#[test]
fn a_row_under_another_s_key_is_malformed() {
    let map = founded();
    let Write::Put(_, value) = rows::put_member(NodeId(1), &map.nodes[&NodeId(1)]) else {
        unreachable!()
    };
    let Write::Put(key, _) = rows::put_member(NodeId(2), &map.nodes[&NodeId(1)]) else {
        unreachable!()
    };
    assert!(map.with(&[Write::Put(key, value)], 0).is_err());
}

#[test]
fn admission_is_refused_with_a_sentence() {
    let map = founded().after(&admit(2)).after(&set_state(2, MemberState::Evicted));
    assert_eq!(
        refusal(&map, &admit(2)),
        "node 0000000000000002 was evicted from the cluster and what it holds is out of date; give it an empty data \
         directory, and it joins as a new node"
    );
    let old = Newcomer {
        feature_level: 2,
        ..newcomer(3)
    };
    assert_eq!(
        refusal(&map, &Command::Admit(old)),
        "the cluster writes feature level 3, but node 0000000000000003 knows levels up to 2 only; upgrade it"
    );
    let idle = Newcomer {
        roles: Roles {
            edge: false,
            core: false,
        },
        ..newcomer(3)
    };
    assert_eq!(
        refusal(&map, &Command::Admit(idle)),
        "node 0000000000000003 has neither the role edge nor the role core"
    );
    let edge = Newcomer {
        roles: Roles {
            edge: true,
            core: false,
        },
        ..newcomer(1)
    };
    assert_eq!(
        refusal(&map, &Command::Admit(edge)),
        "node 0000000000000001 holds replicas of shards 0, 1, 2, 3 and the metadata group; drain it, and wait until it \
         has none"
    );
    let nowhere = Newcomer {
        address: String::new(),
        ..newcomer(3)
    };
    assert_eq!(
        refusal(&map, &Command::Admit(nowhere)),
        "its address is empty or longer than 255 bytes"
    );
}

#[test]
fn who_comes_back_is_who_it_was_at_another_address() {
    let map = founded().after(&admit(2));
    let moved = Newcomer {
        address: "elsewhere:5270".to_owned(),
        ..newcomer(2)
    };
    let map = map.after(&Command::Admit(moved));
    assert_eq!(map.nodes[&NodeId(2)].address, "elsewhere:5270");
    // A restart in the middle of a drain does not end it, and one that has left comes back.
    let draining = map.after(&set_state(2, MemberState::Draining)).after(&admit(2));
    assert_eq!(draining.nodes[&NodeId(2)].state, MemberState::Draining);
    let left = draining.after(&set_state(2, MemberState::Left));
    assert_eq!(left.after(&admit(2)).nodes[&NodeId(2)].state, MemberState::Active);
}

#[test]
fn nobody_leaves_with_replicas() {
    let map = founded().after(&admit(2)).after(&set_shard(0, &[2]));
    let draining = map.after(&set_state(2, MemberState::Draining));
    assert_eq!(
        refusal(&draining, &set_state(2, MemberState::Left)),
        "node 0000000000000002 holds replicas of shard 0; drain it, and wait until it has none"
    );
    let map = draining
        .after(&set_shard(0, &[1]))
        .after(&set_state(2, MemberState::Left));
    assert_eq!(
        refusal(&map, &set_state(2, MemberState::Draining)),
        "node 0000000000000002 is left and cannot become draining"
    );
}

#[test]
fn replicas_are_given_to_active_core_nodes_only() {
    let edge = Newcomer {
        roles: Roles {
            edge: true,
            core: false,
        },
        ..newcomer(3)
    };
    let map = founded()
        .after(&admit(2))
        .after(&Command::Admit(edge))
        .after(&set_state(2, MemberState::Draining));
    for target in [&[1, 2][..], &[1, 3], &[1, 9], &[1, 1], &[]] {
        assert!(set_shard(0, target).evaluate(&map).is_err(), "{target:?}");
    }
    assert!(set_shard(9, &[1]).evaluate(&map).is_err());
    assert_eq!(set_shard(0, &[1]).evaluate(&map), Ok(Vec::new()));
}

#[test]
fn a_level_is_raised_when_all_who_are_present_know_it() {
    let upgraded = |node| {
        Command::Admit(Newcomer {
            feature_level: 4,
            ..newcomer(node)
        })
    };
    let map = founded().after(&admit(2)).after(&admit(3)).after(&upgraded(1));
    let raise = Command::RaiseFeatureLevel(4);
    assert_eq!(
        refusal(&map, &raise),
        "feature level 4 is not known to nodes 0000000000000002, 0000000000000003; upgrade them first, or evict those that \
         are gone"
    );
    let map = map.after(&upgraded(2)).after(&set_state(3, MemberState::Evicted));
    let map = map.after(&raise);
    assert_eq!(map.feature_level, 4);
    assert_eq!(
        refusal(&map, &Command::RaiseFeatureLevel(3)),
        "the cluster is at feature level 4 and cannot go back to 3"
    );
}

#[test]
fn of_too_many_members_one_that_left_is_forgotten_and_an_evicted_one_never() {
    let mut map = founded();
    for node in 2..=MEMBERS_MAX as u64 {
        let member = newcomer(node).member(MemberState::Evicted);
        map.nodes.insert(NodeId(node), member);
    }
    assert_eq!(Command::evaluate(&admit(99_999), &map), Err(Refused::Full));
    map.nodes.get_mut(&NodeId(50)).unwrap().state = MemberState::Left;
    let map = map.after(&admit(99_999));
    assert_eq!(map.nodes.len(), MEMBERS_MAX);
    assert!(!map.nodes.contains_key(&NodeId(50)));
}

fn command() -> impl Strategy<Value = Command> {
    let node = || (1..6u64).prop_map(NodeId);
    let text = || "[a-z]{0,8}";
    let state = prop_oneof![
        Just(MemberState::Active),
        Just(MemberState::Draining),
        Just(MemberState::Left),
        Just(MemberState::Evicted)
    ];
    let admit = (node(), any::<bool>(), any::<bool>(), text(), text(), 2..5u32);
    let admit = admit.prop_map(|(node, edge, core, address, zone, feature_level)| {
        Command::Admit(Newcomer {
            node,
            roles: Roles { edge, core },
            address,
            zone,
            feature_level,
            version: "1".to_owned(),
            services: Services::new(),
        })
    });
    let shard = || prop_oneof![(0..5u16).prop_map(ShardId), Just(METADATA)];
    let nodes = || prop::collection::btree_set(node(), 0..4);
    prop_oneof![
        4 => admit,
        2 => (node(), state).prop_map(|(node, state)| Command::SetState { node, state }),
        1 => (node(), text()).prop_map(|(node, address)| Command::SetAddress { node, address }),
        3 => (shard(), prop::collection::vec(node(), 0..4)).prop_map(|(shard, target)| Command::SetShard { shard, target }),
        2 => (shard(), nodes(), nodes()).prop_map(|(shard, voters, learners)| {
            let learners = learners.difference(&voters).copied().collect();
            Command::SetReplicas { shard, voters, learners }
        }),
        1 => (prop::sample::select(vec!["replicas", "moves_max", "other"]), prop::option::of("[0-9]{1,2}"))
            .prop_map(|(name, value)| Command::SetSetting { name: name.to_owned(), value }),
        1 => (2..6u32).prop_map(Command::RaiseFeatureLevel),
    ]
}

#[test]
fn the_first_secret_that_is_proposed_is_the_cluster_s() {
    let propose = |value: &str| Command::SetSetting {
        name: SECRET.to_owned(),
        value: Some(value.to_owned()),
    };
    let (one, other) = ("01".repeat(32), "ab".repeat(32));
    let map = founded().after(&propose(&one));
    assert_eq!(map.settings.get(SECRET), Some(&one));
    assert_eq!(map.after(&propose(&other)).settings.get(SECRET), Some(&one));
    assert_eq!(
        refusal(&founded(), &propose("hunter2")),
        "secret is 64 hexadecimal digits, not \"something else\""
    );
}

proptest! {
    #[test]
    fn commands_make_maps_that_are_read_as_they_are_written(commands in prop::collection::vec(command(), 0..40)) {
        let mut map = founded();
        for command in commands {
            prop_assert_eq!(&Command::decode(&command.encode()).unwrap(), &command);
            let Ok(writes) = command.evaluate(&map) else { continue };
            let after = map.with(&writes, map.version + 1).unwrap();
            // Made twice is made once.
            prop_assert_eq!(command.evaluate(&after), Ok(Vec::new()), "{:?}", command);
            prop_assert!(after.feature_level >= map.feature_level);
            prop_assert!(after.members().all(|(_, member)| member.feature_level >= after.feature_level));
            for (node, member) in &map.nodes {
                prop_assert!(member.state != MemberState::Evicted || after.nodes[node].state == MemberState::Evicted);
            }
            prop_assert_eq!(&ClusterMap::decode(&after.encode()).unwrap(), &after);
            let unread = ClusterMap { nodes: BTreeMap::new(), shards: BTreeMap::new(), settings: BTreeMap::new(), ..founded() };
            prop_assert_eq!(&unread.with(&after.rows(), after.version).unwrap(), &after);
            map = after;
        }
    }

    #[test]
    fn bytes_that_are_no_map_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClusterMap::decode(&bytes);
        let _ = Command::decode(&bytes);
        let key = [&[0xff, 0xff][..], &bytes[..bytes.len() / 2]].concat();
        let _ = founded().with(&[Write::Put(key.clone().into(), bytes.clone().into()), Write::Delete(key.into())], 0);
    }

    #[test]
    fn damaged_maps_are_refused_or_read_without_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = founded().encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ClusterMap::decode(&bytes);
        let _ = ClusterMap::decode(&bytes[..at]);
        let mut bytes = set_shard(3, &[1, 2]).encode().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Command::decode(&bytes);
    }
}
