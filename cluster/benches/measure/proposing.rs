//! Proposers that each write one row after another, and what that costs.

use std::time::{Duration, Instant};

use heronry_cluster::{Batch, Group, ProposeError, Term, Timestamp, Write};

use super::{cpu_time, fsyncs};

const ROW_BYTES: usize = 1000;
/// Rows that are written again and again, by each proposer.
const ROWS: u64 = 1000;

/// The heads of what [`measure`] prints.
pub(crate) const HEADS: &str = "proposers  writes/s  p50 ms  p99 ms  CPU us/write  writes/fsync  refused as busy";

/// Lets so many proposers write for that long, spread over these groups, and prints what it has cost. A write is a batch with one row of 1 KB. CPU is
/// that of the whole process, and so includes the proposers.
pub(crate) async fn measure(groups: &[(Group, Term)], proposers: u16, length: Duration) {
    let (began, cpu, syncs) = (Instant::now(), cpu_time(), fsyncs());
    let deadline = began + length;
    let proposing: Vec<_> = (0..proposers)
        .map(|proposer| {
            let (group, term) = groups[usize::from(proposer) % groups.len()].clone();
            tokio::spawn(propose(group, term, proposer, deadline))
        })
        .collect();
    let (mut latencies, mut busy) = (Vec::new(), 0);
    for proposing in proposing {
        let (more, refused) = proposing.await.unwrap();
        latencies.extend(more);
        busy += refused;
    }
    let (took, cpu, syncs) = (began.elapsed(), cpu_time() - cpu, fsyncs() - syncs);
    latencies.sort();
    let writes = latencies.len() as f64;
    println!(
        "{proposers:9}  {:8.0}  {:6.2}  {:6.2}  {:12.1}  {:12.1}  {busy:15}",
        writes / took.as_secs_f64(),
        at(&latencies, 0.5),
        at(&latencies, 0.99),
        cpu.as_secs_f64() * 1e6 / writes,
        writes / syncs.max(1) as f64,
    );
}

/// How long each write took, and how many were refused.
async fn propose(group: Group, term: Term, proposer: u16, deadline: Instant) -> (Vec<Duration>, u64) {
    let (mut latencies, mut busy) = (Vec::new(), 0);
    for count in 0.. {
        let began = Instant::now();
        if began >= deadline {
            break;
        }
        match group.propose(term, vec![batch(proposer, count % ROWS)]).await {
            Ok(_) => latencies.push(began.elapsed()),
            Err(ProposeError::Busy) => {
                busy += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (latencies, busy)
}

/// Milliseconds.
pub(crate) fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

fn batch(proposer: u16, row: u64) -> Batch {
    let key = [&(proposer % 4096).to_be_bytes()[..], &row.to_be_bytes()].concat();
    Batch {
        at: Timestamp(row),
        writes: vec![Write::Put(key.into(), vec![b'x'; ROW_BYTES].into())],
    }
}
