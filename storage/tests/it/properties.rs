//! Both stores do the same, whatever is done to them.

use std::collections::BTreeMap;

use heronry_storage::{MemoryStore, NodeId, Rows, ShardId, Store, Write};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Apply(u16, Vec<(u16, u8, Option<u8>)>),
    Append(u16, u8),
    Truncate(u16, u8),
    Purge(u16, u8),
    Vote(u16, u8),
    Copy(u16, u16),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let shard = 0..3u16;
    let row = (0..4u16, 0..12u8, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        4 => (shard.clone(), prop::collection::vec(row, 0..8)).prop_map(|(shard, rows)| Op::Apply(shard, rows)),
        4 => (shard.clone(), 1..5u8).prop_map(|(shard, count)| Op::Append(shard, count)),
        1 => (shard.clone(), any::<u8>()).prop_map(|(shard, at)| Op::Truncate(shard, at)),
        1 => (shard.clone(), any::<u8>()).prop_map(|(shard, at)| Op::Purge(shard, at)),
        1 => (shard.clone(), any::<u8>()).prop_map(|(shard, vote)| Op::Vote(shard, vote)),
        1 => (shard.clone(), shard).prop_map(|(from, to)| Op::Copy(from, to)),
        1 => Just(Op::Restart),
    ]
}

/// The ends of each shard's log: the next index, and the first.
type Ends = BTreeMap<u16, (u64, u64)>;

fn perform(store: &dyn Store, op: &Op, ends: &Ends) {
    let shard = |number: &u16| ShardId(*number);
    let (next, first) = match op {
        Op::Append(shard, _) | Op::Truncate(shard, _) | Op::Purge(shard, _) => {
            ends.get(shard).copied().unwrap_or_default()
        }
        _ => (0, 0),
    };
    match op {
        Op::Apply(number, rows) => {
            let writes = rows.iter().map(|(slot, key, value)| match value {
                Some(value) => put(*slot, &key.to_string(), &value.to_string()),
                None => Write::Delete(row_key(*slot, &key.to_string())),
            });
            store
                .apply(shard(number), &[batch(writes)], text(&format!("{rows:?}")))
                .unwrap();
        }
        Op::Append(number, count) => append(store, shard(number), next..next + u64::from(*count)).unwrap(),
        Op::Truncate(number, at) => {
            let from = first + u64::from(*at) % (next - first + 1);
            durable(|done| store.truncate(shard(number), from, done)).unwrap();
        }
        Op::Purge(number, at) => {
            if next > first {
                let upto = first + u64::from(*at) % (next - first);
                durable(|done| store.purge(shard(number), upto, text(&upto.to_string()), done)).unwrap();
            }
        }
        Op::Vote(number, vote) => {
            durable(|done| store.save_vote(shard(number), text(&vote.to_string()), done)).unwrap();
        }
        Op::Copy(from, to) => {
            store.import(shard(to), store.export(shard(from)).unwrap()).unwrap();
        }
        Op::Restart => {}
    }
}

fn advance(ends: &mut Ends, op: &Op) {
    match op {
        Op::Append(shard, count) => ends.entry(*shard).or_default().0 += u64::from(*count),
        Op::Truncate(shard, at) => {
            let (next, first) = ends.entry(*shard).or_default();
            *next = *first + u64::from(*at) % (*next - *first + 1);
        }
        Op::Purge(shard, at) => {
            let (next, first) = ends.entry(*shard).or_default();
            if next > first {
                *first += u64::from(*at) % (*next - *first) + 1;
            }
        }
        _ => {}
    }
}

fn state(store: &dyn Store) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let shards = (0..3).map(ShardId);
    shards
        .map(|shard| {
            let rows: Vec<_> = (0..4u16)
                .flat_map(|slot| store.rows(shard).scan(&slot.to_be_bytes(), &[], usize::MAX).unwrap())
                .collect();
            for (key, value) in &rows {
                assert_eq!(store.rows(shard).row(key).unwrap().as_ref(), Some(value));
            }
            let applied = store.applied(shard).unwrap().unwrap_or_default();
            (store.log_state(shard).unwrap(), log(store, shard), rows, applied)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_on_disk_does_what_the_one_in_memory_does(ops in prop::collection::vec(op(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Some(open(directory.path()));
        let memory = MemoryStore::new(NodeId(1));
        let mut ends = Ends::new();
        for op in &ops {
            if matches!(op, Op::Restart) {
                disk = None;
            }
            let disk = &*disk.get_or_insert_with(|| open(directory.path()));
            perform(disk, op, &ends);
            perform(&memory, op, &ends);
            advance(&mut ends, op);
            prop_assert_eq!(state(disk), state(&memory));
        }
    }
}
