//! Reads and writes of a row are linearizable: there is one order of all calls, in which each comes after those that had returned
//! before it was called, and each read returns what was written last.
//!
//! Found by trying (Wing and Gong): of the calls that nothing else has to precede, one is next. What has been tried is remembered, so that
//! a row costs as much as its calls overlap.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{History, Returned, Violation, What};

/// States that are tried for one row at most; a history that needs more has too many calls at once.
const TRIED_MAX: usize = 1_000_000;

/// A call: `place`s are those in the history.
#[derive(Debug)]
struct Call<'a> {
    writes: Option<&'a str>,
    called: usize,
    /// `None`: it may be carried out at any time from then on, or never.
    returned: Option<usize>,
    /// What it read.
    read: Option<Option<&'a str>>,
}

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    for (row, calls) in rows(history, found) {
        match explain(&calls) {
            Some(true) => {}
            Some(false) => found.push(Violation::NotLinearizable {
                row: row.to_owned(),
                calls: calls.len(),
            }),
            None => found.push(Violation::Nonsense(format!("row {row} has too many calls at once"))),
        }
    }
}

/// The calls of each row. Reads that did not return say nothing and are left out.
fn rows<'a>(history: &'a History, found: &mut Vec<Violation>) -> BTreeMap<&'a str, Vec<Call<'a>>> {
    let mut calls = BTreeMap::new();
    for (place, event) in history.events().iter().enumerate() {
        match &event.what {
            What::Called { call, row, writes } => {
                let begun = Call {
                    writes: writes.as_deref(),
                    called: place,
                    returned: None,
                    read: None,
                };
                if calls.insert(call.as_str(), (row.as_str(), begun)).is_some() {
                    found.push(Violation::Nonsense(format!("two calls have the name {call}")));
                }
            }
            What::Returned { call, returned } => {
                let Some((_, begun)) = calls.get_mut(call.as_str()) else {
                    found.push(Violation::Nonsense(format!("call {call} returns and was not called")));
                    continue;
                };
                match (returned, begun.writes) {
                    (Returned::Wrote, Some(_)) => begun.returned = Some(place),
                    (Returned::Read(value), None) => {
                        begun.returned = Some(place);
                        begun.read = Some(value.as_deref());
                    }
                    (Returned::Failed, _) => {}
                    _ => found.push(Violation::Nonsense(format!(
                        "call {call} returns as another kind of call"
                    ))),
                }
            }
            _ => {}
        }
    }
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (row, call) in calls.into_values() {
        if call.writes.is_some() || call.read.is_some() {
            rows.entry(row).or_default().push(call);
        }
    }
    rows.values_mut()
        .for_each(|calls| calls.sort_by_key(|call| call.called));
    rows
}

/// Whether there is such an order; `None`: it would take too long to say.
fn explain(calls: &[Call<'_>]) -> Option<bool> {
    // What has been carried out, as far as it is not everything before `from`; and the row's value afterwards.
    type State<'a> = (usize, BTreeSet<usize>, Option<&'a str>);
    let mut tried: HashSet<State<'_>> = HashSet::new();
    let mut open: Vec<State<'_>> = vec![(0, BTreeSet::new(), None)];
    while let Some((from, done, value)) = open.pop() {
        let left = || (from..calls.len()).filter(|place| !done.contains(place));
        // Whatever has returned must come before what was called afterwards.
        let first_return = left().filter_map(|place| calls[place].returned).min();
        let Some(first_return) = first_return else {
            return Some(true);
        };
        for place in left().take_while(|place| calls[*place].called < first_return) {
            let call = &calls[place];
            if call.read.is_some_and(|read| read != value) {
                continue;
            }
            let (mut from, mut done) = (from, done.clone());
            done.insert(place);
            while done.remove(&from) {
                from += 1;
            }
            let next = (from, done, call.writes.or(value));
            if tried.insert(next.clone()) {
                open.push(next);
            }
        }
        if tried.len() > TRIED_MAX {
            return None;
        }
    }
    Some(false)
}
