//! Whole nodes in virtual time: edges, shards, groups, members and links as they are, on machines, disks, a network and clocks that are
//! simulated. One number, the seed, makes everything that happens; what devices see of it is judged by [`heronry_loadtest::history`].
//!
//! | | |
//! |---|---|
//! | `HERON_SEED=n` | plays that seed and prints what happens |
//! | `HERON_SEEDS=n` | plays n seeds, not as many as usual |
//! | `HERON_TROUBLES=Killed,Slow` | lets nothing else go wrong ([`weather::Trouble`]) |
//! | `HERON_LOG=filter` | prints what nodes log, too |
//!
//! | file | |
//! |---|---|
//! | `net.rs` | connections that are late, cut and broken |
//! | `host.rs` | a machine: a disk that forgets, clocks that are wrong, a process that dies |
//! | `device.rs` | a device, which writes down what it sees |
//! | `weather.rs` | what goes wrong, when |
//! | `world.rs` | all of them |

mod device;
mod host;
mod net;
mod weather;
mod world;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use self::world::World;
use heronry_loadtest::history::{History, Summary, check};

/// Seeds of one test; there are [`PARTS`] such tests.
const SEEDS: u64 = 50;
const PARTS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays one seed.
fn play(seed: u64) -> History {
    if let Ok(filter) = std::env::var("HERON_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .without_time()
            .try_init();
    }
    let played = std::thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(move || {
            heronry_seeded::seed_this_thread(seed);
            World::new(seed, std::env::var("HERON_QUIET").is_err()).play()
        })
        .expect("a thread");
    played.join().expect("it ends well")
}

/// Plays the seed in `HERON_SEED`, 0 if there is none. The other tests have it played in a process of its own, so that nothing remains of
/// one seed when the next is played.
#[test]
fn one_seed() {
    let began = Instant::now();
    let seed = number("HERON_SEED").unwrap_or(0);
    let history = play(seed);
    if let Ok(path) = std::env::var("HERON_HISTORY") {
        let file = std::fs::File::create(path).expect("a file");
        history.write(std::io::BufWriter::new(file)).expect("a file");
    }
    let summary = Summary::of(&history);
    println!("{summary:?} in {:?}", began.elapsed());
    assert_eq!(check(&history), [], "seed {seed}");
    assert!(
        summary.delivered > 0 && summary.returned > 0,
        "nothing happened: {summary:?}"
    );
}

/// Plays every seed of one part, and says how to see those again that failed.
fn part(part: u64) {
    let seeds = number("HERON_SEEDS").map_or(SEEDS, |seeds| seeds.div_ceil(PARTS));
    let first = number("HERON_FIRST").unwrap_or(1);
    let (program, began) = (std::env::current_exe().expect("this program"), Instant::now());
    let mut failed = Vec::new();
    let mut said = Instant::now();
    for (count, seed) in (0..seeds).map(|count| (count, first + count * PARTS + part)) {
        let output = Command::new(&program)
            .args(["--exact", "node::simulation::one_seed", "--nocapture"])
            .env("HERON_SEED", seed.to_string())
            .env("HERON_QUIET", "1")
            .output()
            .expect("this program");
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let mut reason = text.lines().skip_while(|line| !line.contains("panicked at"));
            let reason: Vec<_> = reason.by_ref().take(4).collect();
            let troubles =
                std::env::var("HERON_TROUBLES").map_or_else(|_| String::new(), |it| format!("HERON_TROUBLES={it} "));
            println!(
                "to see it again: {troubles}HERON_SEED={seed} cargo nextest run -p heronry-node --lib --no-capture simulation::one_seed\n{}",
                reason.join("\n")
            );
            failed.push(seed);
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!("part {part}: {} of {seeds} seeds, {:?}", count + 1, began.elapsed());
        }
    }
    assert!(failed.is_empty(), "of {seeds} seeds these failed: {failed:?}");
}

#[test]
fn seeds_1() {
    part(0);
}

#[test]
fn seeds_2() {
    part(1);
}

#[test]
fn seeds_3() {
    part(2);
}

#[test]
fn seeds_4() {
    part(3);
}
