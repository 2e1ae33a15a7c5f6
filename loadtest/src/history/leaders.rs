//! A row has one writer: one process leads a shard in a term, and replicas that have applied the same entries are the same.

use std::collections::BTreeMap;

use super::{History, Violation, What};

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let (mut leaders, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for event in history.events() {
        let by = event.by.as_str();
        match &event.what {
            What::Leads { shard, term } => {
                let one = *leaders.entry((*shard, *term)).or_insert(by);
                if one != by {
                    found.push(Violation::TwoLeaders {
                        shard: *shard,
                        term: *term,
                        one: one.to_owned(),
                        other: by.to_owned(),
                    });
                }
            }
            What::Rows { shard, applied, digest } => {
                let (one, same) = *rows.entry((*shard, *applied)).or_insert((by, digest));
                if same != digest {
                    found.push(Violation::Diverged {
                        shard: *shard,
                        applied: *applied,
                        one: one.to_owned(),
                        other: by.to_owned(),
                    });
                }
            }
            _ => {}
        }
    }
}
