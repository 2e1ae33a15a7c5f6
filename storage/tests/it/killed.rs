//! A process killed with SIGKILL at any moment: what it was told is durable is found, and rows are never ahead of the log.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use heronry_storage::{Options, RocksStore, Rows, ShardId, Store};

use super::*;

/// Set for a copy of this test program that is to write until it is killed.
const WRITER: &str = "HERONRY_TEST_WRITE";

const SHARDS: u16 = 3;

/// Buffers so small that flushes, compactions and new write-ahead logs happen all the time.
fn options() -> Options {
    Options {
        write_buffer_bytes: 128 << 10,
        wal_bytes_max: 512 << 10,
        ..Options::default()
    }
}

/// One shard's writer: appends record n, waits until it is durable, says so, applies it; now and then purges, votes, or
/// replaces all rows by a snapshot of themselves.
fn write(store: &dyn Store, shard: ShardId) {
    let mut next = log_end(store, shard);
    loop {
        append(store, shard, [next]).unwrap();
        println!("durable {shard} {next}");
        let write = put(
            shard.0,
            &(next % 50).to_string(),
            &format!("{next} {}", "x".repeat(500)),
        );
        store.apply(shard, &[batch([write])], text(&next.to_string())).unwrap();
        if next % 40 == 39 {
            store.purge(
                shard,
                next - 20,
                text(&(next - 20).to_string()),
                Box::new(|result| result.unwrap()),
            );
        }
        if next % 60 == 59 {
            durable(|done| store.save_vote(shard, text(&next.to_string()), done)).unwrap();
            println!("voted {shard} {next}");
        }
        if next % 100 == 99 {
            let applied = store.import(shard, store.export(shard).unwrap()).unwrap();
            assert_eq!(applied, next.to_string());
            println!("imported {shard} {next}");
        }
        next += 1;
    }
}

fn log_end(store: &dyn Store, shard: ShardId) -> u64 {
    let state = store.log_state(shard).unwrap();
    state.range.map_or(0, |(_, last)| last + 1)
}

#[test]
fn what_was_acknowledged_before_a_kill_is_found() {
    if let Some(directory) = std::env::var_os(WRITER) {
        let store = shared(RocksStore::open(directory.as_ref(), options()).unwrap());
        std::thread::scope(|scope| {
            for shard in 0..SHARDS {
                let store = &store;
                scope.spawn(move || write(&**store, ShardId(shard)));
            }
        });
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Longer each time, so that every phase of a process's life is cut somewhere: opening, founding, recovering, writing.
    for round in 0..30u64 {
        let lifetime = Duration::from_millis(if round % 3 == 0 { round * 4 } else { 50 + round * 25 });
        let told = kill_after(directory.path(), lifetime);
        check(directory.path(), &told, round);
    }
}

/// What a writer said before it was killed: the last of each kind, by shard.
#[derive(Default, Debug)]
struct Told {
    durable: [Option<u64>; SHARDS as usize],
    voted: [Option<u64>; SHARDS as usize],
    imported: [Option<u64>; SHARDS as usize],
}

fn kill_after(directory: &Path, lifetime: Duration) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "killed::what_was_acknowledged_before_a_kill_is_found",
        "--nocapture",
    ]);
    command
        .env(WRITER, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let stdout = BufReader::new(child.0.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut told = Told::default();
        for line in stdout.lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            let (what, shard, number) = (words.next(), words.next(), words.next());
            let (Some(shard), Some(number)) = (
                shard.and_then(|word| word.parse::<usize>().ok()),
                number.and_then(|word| word.parse().ok()),
            ) else {
                continue;
            };
            match what {
                Some("durable") => told.durable[shard] = Some(number),
                Some("voted") => told.voted[shard] = Some(number),
                Some("imported") => told.imported[shard] = Some(number),
                _ => {}
            }
        }
        told
    });
    std::thread::sleep(lifetime);
    assert_eq!(
        child.0.try_wait().unwrap(),
        None,
        "the writer has ended by itself: {}",
        child.stderr()
    );
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    reader.join().unwrap()
}

struct Killed(Child);

impl Killed {
    fn stderr(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check(directory: &Path, told: &Told, round: u64) {
    let store = RocksStore::open(directory, options()).unwrap();
    for shard in 0..SHARDS {
        let (at, shard) = (usize::from(shard), ShardId(shard));
        let context = format!("round {round}, shard {shard}: {told:?}");
        let state = store.log_state(shard).unwrap();
        let records = log(&store, shard);
        let end = records.last().map_or(0, |record| record.index + 1);

        assert!(
            told.durable[at].is_none_or(|durable| durable < end),
            "log ends at {end}: {context}"
        );
        assert!(
            records.windows(2).all(|pair| pair[0].index + 1 == pair[1].index),
            "{context}"
        );
        assert!(records.iter().all(|found| *found == record(found.index)), "{context}");
        let first = state.purged.map_or(0, |purged| number(&purged) + 1);
        assert!(records.first().is_none_or(|record| record.index == first), "{context}");
        let voted = state.vote.as_ref().map(number);
        assert!(told.voted[at] <= voted, "voted {voted:?}: {context}");

        let applied = store.applied(shard).unwrap().as_ref().map(number);
        assert!(told.imported[at] <= applied, "applied {applied:?}: {context}");
        assert!(
            applied.is_none_or(|applied| applied < end),
            "rows are ahead of the log: {context}"
        );
        assert!(
            applied.map_or(0, |applied| applied + 1) >= first,
            "purged before it was applied: {context}"
        );
        // The rows are exactly those of the position.
        let rows = store.rows(shard).scan(&shard.0.to_be_bytes(), &[], usize::MAX).unwrap();
        let applied_end = applied.map_or(0, |applied| applied + 1);
        assert_eq!(rows.len() as u64, applied_end.min(50), "{context}");
        for (key, value) in rows {
            let written = number(&Bytes::copy_from_slice(
                value.split(|byte| *byte == b' ').next().unwrap(),
            ));
            assert_eq!(key, row_key(shard.0, &(written % 50).to_string()), "{context}");
            assert!(
                written < applied_end && written + 50 >= applied_end,
                "row of {written}: {context}"
            );
        }
        // As Raft would do it: what is in the log and not applied is applied now.
        for record in records.iter().filter(|record| record.index >= applied_end) {
            let next = record.index;
            let write = put(shard.0, &(next % 50).to_string(), &format!("{next} "));
            store.apply(shard, &[batch([write])], text(&next.to_string())).unwrap();
        }
    }
    store.close().unwrap();
}

fn number(bytes: &Bytes) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}
