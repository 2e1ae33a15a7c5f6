//! Everything that can go wrong, at random, and what must hold all the same. One number makes a run: `STORM_SEED=n`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use heronry_cluster::{Round, ShardId, Term};
use tokio::time::{Instant, sleep, timeout};

use super::{Town, id, options, put, read, try_read};

const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

/// How long a storm lasts, in virtual time.
const STORM: Duration = Duration::from_secs(40);

/// How long a client waits for a proposal.
const GIVE_UP: Duration = Duration::from_secs(4);

/// What clients did and saw.
#[derive(Default)]
struct History {
    /// Of each shard: the highest number that was acknowledged.
    acknowledged: BTreeMap<ShardId, u64>,
    /// Of each shard and term: the node that acted in it.
    acted: BTreeMap<(ShardId, Term), u64>,
    writes: u64,
    reads: u64,
}

/// One client of a shard: it writes 1, 2, 3... each upon the one before it, and reads in between. What it reads under a lease is
/// at least what was acknowledged.
async fn client(town: Town, shard: ShardId, history: Arc<Mutex<History>>, until: Instant) {
    let mut rounds: BTreeMap<Term, u32> = BTreeMap::new();
    while Instant::now() < until {
        let Some((node, group, term)) = town.leaders(shard).into_iter().next() else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let round = rounds.entry(term).and_modify(|round| *round += 1).or_insert(0);
        let round = Round { term, round: *round };
        {
            let mut history = history.lock().unwrap();
            let before = history.acted.insert((shard, term), node);
            assert!(
                before.is_none_or(|before| before == node),
                "two nodes acted in term {term} of shard {shard}"
            );
        }
        // As an evaluator does: on the rows as they are, as long as the lease lasts.
        while group.has_lease(term) && Instant::now() < until {
            let Some(found) = try_read(&group, "n") else {
                // Its node has died.
                break;
            };
            let found = found.unwrap_or(0);
            let known = {
                let mut history = history.lock().unwrap();
                history.reads += 1;
                history.acknowledged.get(&shard).copied().unwrap_or(0)
            };
            // Read under the lease: nothing that was acknowledged can be missing.
            assert!(
                found >= known,
                "shard {shard}: {known} was acknowledged, {found} is read by {node} in {term}"
            );
            let proposals: Vec<_> = (1..=3)
                .map(|step| {
                    (
                        found + step,
                        group.propose(
                            round,
                            vec![put("n", found + step), put(&(found + step).to_string(), term.0)],
                        ),
                    )
                })
                .collect();
            let mut failed = false;
            for (value, proposal) in proposals {
                // Whoever is dead or cut off never learns what became of it.
                match timeout(GIVE_UP, proposal).await {
                    Err(_) => {
                        failed = true;
                        break;
                    }
                    Ok(Ok(_)) => {
                        assert!(
                            !failed,
                            "shard {shard}: {value} was committed, but one before it was not"
                        );
                        let mut history = history.lock().unwrap();
                        history.writes += 1;
                        let known = history.acknowledged.entry(shard).or_default();
                        *known = value.max(*known);
                    }
                    Ok(Err(_)) => failed = true,
                }
            }
            if failed {
                sleep(Duration::from_millis(10)).await;
                break;
            }
            sleep(Duration::from_millis(15)).await;
        }
    }
}

/// Breaks something, or mends it.
async fn weather(town: &Town, random: &mut fastrand::Rng) {
    let node = random.u64(1..=3);
    let others: Vec<u64> = (1..=3).filter(|other| *other != node).collect();
    match random.u32(0..13) {
        0 | 1 if (1..=3).all(|node| town.is_alive(node)) => town.kill(node),
        0..=3 => {
            for dead in 1..=3 {
                if !town.is_alive(dead) {
                    town.revive(dead).await;
                }
            }
        }
        4 => town.isolate(node),
        5 => town.cut(node, others[0]),
        12 => {
            town.cut(node, others[0]);
            town.cut(others[0], node);
        }
        6 => others.iter().for_each(|other| town.cut(node, *other)),
        7 => others.iter().for_each(|other| town.cut(*other, node)),
        8 => {
            let store = town.store(node);
            store.stall(options().stall_after);
            sleep(Duration::from_millis(random.u64(0..3000))).await;
            store.stall(Duration::ZERO);
        }
        9 => {
            for (_, group, _) in town.leaders(SHARDS[random.usize(0..2)]) {
                group.hand_over(id(node));
            }
        }
        _ => town.heal(),
    }
}

fn storm(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()))
        .build()
        .unwrap();
    runtime.block_on(async {
        timeout(10 * STORM, run(seed)).await.expect("it takes for ever");
    });
}

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let town = Town::new(3).await;
    for shard in SHARDS {
        town.found(shard, &[1, 2, 3]).await;
    }
    town.streets_are_bad(random.fork(), random.clone().u32(0..30));
    let history = Arc::new(Mutex::new(History::default()));
    let until = Instant::now() + STORM;
    let clients: Vec<_> = SHARDS
        .map(|shard| tokio::spawn(client(town.clone(), shard, Arc::clone(&history), until)))
        .into();
    while Instant::now() < until {
        for shard in SHARDS {
            let leaders = town.leaders(shard);
            assert!(leaders.len() <= 1, "shard {shard} has several leaders with a lease");
        }
        weather(&town, &mut random).await;
        if std::env::var("STORM_SEED").is_ok() {
            eprintln!("{:?}", until - Instant::now());
        }
        sleep(Duration::from_millis(random.u64(1..1500))).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    // The weather clears up: everything that was acknowledged is there, everywhere.
    town.heal();
    for node in 1..=3 {
        if !town.is_alive(node) {
            town.revive(node).await;
        }
        town.store(node).stall(Duration::ZERO);
    }
    for shard in SHARDS {
        let known = history.lock().unwrap().acknowledged.get(&shard).copied().unwrap_or(0);
        let (_, group, term) = town.leader(shard).await;
        let found = read(&group, "n").unwrap_or(0);
        assert!(
            found >= known,
            "shard {shard}: {known} was acknowledged, {found} is left"
        );
        for value in 1..=known {
            assert!(
                read(&group, &value.to_string()).is_some(),
                "shard {shard}: {value} is gone"
            );
        }
        group
            .propose(Round { term, round: u32::MAX }, Vec::new())
            .await
            .unwrap();
    }
    let history = history.lock().unwrap();
    assert!(history.writes > 20, "seed {seed} wrote {} times only", history.writes);
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_acts_twice_in_any_weather() {
    let one = std::env::var("STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = std::env::var("STORM_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(40);
    for seed in one.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        println!("to see this again: STORM_SEED={seed}");
        storm(seed);
    }
}
