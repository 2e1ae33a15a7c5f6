//! Groups of several voters: what holds when one of them dies, is cut off, hangs or comes back.

use std::{collections::BTreeSet, time::Duration};

use heronry_cluster::{Group, Leadership, Options, ProposeError, Round, ShardId, Term};
use tokio::time::{Instant, sleep};

use super::{Town, id, options, put, read, until};

const SHARD: ShardId = ShardId(3);

async fn three() -> Town {
    let town = Town::new(3).await;
    town.found(SHARD, &[1, 2, 3]).await;
    town
}

#[tokio::test(start_paused = true)]
async fn what_a_majority_has_is_on_every_replica_in_the_end() {
    let town = three().await;
    let (_, group, term) = town.leader(SHARD).await;
    for value in 1..=20 {
        group.propose(term, vec![put("a", value)]).await.unwrap();
    }
    for node in 1..=3 {
        let replica = town.group(node, SHARD).unwrap();
        // The last entry is committed at the others when they next hear of it.
        group.propose(term, Vec::new()).await.unwrap();
        until("all is applied", || read(&replica, "a") == Some(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_within_its_lease_and_a_moment() {
    let town = three().await;
    for round in 1..=6 {
        let (leader, group, term) = town.leader(SHARD).await;
        group.propose(term, vec![put("round", round)]).await.unwrap();
        town.kill(leader);
        let died = Instant::now();
        let (next, group, _) = town.leader(SHARD).await;
        let took = died.elapsed();
        assert_ne!(next, leader);
        assert!(took < options().lease + Duration::from_millis(500), "{took:?}");
        assert_eq!(read(&group, "round"), Some(round));
        town.revive(leader).await;
        let revived = town.group(leader, SHARD).unwrap();
        until(
            "the revived replica follows",
            || matches!(*revived.leadership().borrow(), Leadership::Follower { leader } if leader == Some(id(next))),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_groups_keep_their_leader_and_their_lease() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(97)).await;
        assert!(group.has_lease(term), "after {:?}", begun.elapsed());
    }
    assert_eq!(town.leader(SHARD).await.0, leader);
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_before_another_begins() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    town.isolate(leader);
    let mut stopped = None;
    let begun = Instant::now();
    let next = loop {
        let leaders = town.leaders(SHARD);
        assert!(leaders.len() <= 1, "two leaders have a lease");
        if !group.has_lease(term) {
            stopped.get_or_insert_with(|| begun.elapsed());
        }
        match leaders.first() {
            Some((node, _, later)) if *node != leader => break *later,
            _ => sleep(Duration::from_millis(1)).await,
        }
    };
    assert!(stopped.unwrap() < begun.elapsed());
    assert!(next > term);
    // What it proposes now waits for a majority, and is refused by it.
    let late = group.propose(term, vec![put("a", 1)]);
    town.heal();
    assert!(late.await.is_err());
    until(
        "the former leader follows",
        || matches!(*group.leadership().borrow(), Leadership::Follower { leader: Some(other) } if other != id(leader)),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_hears_nobody_disturbs_nobody() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    let deaf = if leader == 1 { 2 } else { 1 };
    for other in 1..=3 {
        if other != deaf {
            town.cut(other, deaf);
        }
    }
    sleep(Duration::from_secs(20)).await;
    town.heal();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(town.leader(SHARD).await.2, term);
    group.propose(term, vec![put("a", 1)]).await.unwrap();
    let replica = town.group(deaf, SHARD).unwrap();
    until("it has caught up", || {
        drop(group.propose(term, Vec::new()));
        read(&replica, "a") == Some(1)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_hears_is_replaced() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    for other in 1..=3 {
        if other != leader {
            town.cut(leader, other);
        }
    }
    until("another leads", || {
        let leaders = town.leaders(SHARD);
        assert!(leaders.len() <= 1);
        leaders.first().is_some_and(|(node, ..)| *node != leader)
    })
    .await;
    assert!(!group.has_lease(term));
}

#[tokio::test(start_paused = true)]
async fn a_leadership_is_handed_over_without_a_pause_for_the_lease() {
    let town = three().await;
    for to in [2, 3, 1, 3, 2, 1] {
        let (leader, group, term) = town.leader(SHARD).await;
        if leader == to {
            continue;
        }
        group.propose(term, vec![put("a", to)]).await.unwrap();
        let begun = Instant::now();
        group.hand_over(id(to));
        assert!(!group.has_lease(term));
        assert!(group.propose(term, vec![put("a", 0)]).await.is_err());
        let (next, group, _) = town.leader(SHARD).await;
        assert_eq!(next, to);
        assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
        assert_eq!(read(&group, "a"), Some(to));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_heir_does_not_come_goes_on_in_the_same_term() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    let heir = if leader == 1 { 2 } else { 1 };
    town.kill(heir);
    group.hand_over(id(heir));
    assert!(!group.has_lease(term));
    let (again, _, later) = town.leader(SHARD).await;
    assert_eq!((again, later), (leader, term));
    let next = Round { term, round: 1 };
    group.propose(next, vec![put("a", 1)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_hangs_gives_its_leaderships_away() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    town.store(leader).stall(options().stall_after);
    until("another leads", || {
        let leaders = town.leaders(SHARD);
        assert!(leaders.len() <= 1);
        leaders.first().is_some_and(|(node, ..)| *node != leader)
    })
    .await;
    assert!(!group.has_lease(term));
    town.store(leader).stall(Duration::ZERO);
    let (next, led, later) = town.leader(SHARD).await;
    assert_ne!(next, leader);
    led.propose(later, vec![put("a", 1)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_is_full_leads_and_takes_nothing_until_it_has_room() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    group.propose(term, vec![put("a", 1)]).await.unwrap();
    town.store(leader).fill(true);
    let late = group.propose(term, vec![put("a", 2)]).await;
    assert!(matches!(late, Err(ProposeError::Busy)), "{late:?}");
    until("another leads", || {
        let leaders = town.leaders(SHARD);
        assert!(leaders.len() <= 1);
        leaders.first().is_some_and(|(node, ..)| *node != leader)
    })
    .await;
    let (next, led, later) = town.leader(SHARD).await;
    let before = town.group(leader, SHARD).unwrap().applied();
    for value in 3..10 {
        led.propose(later, vec![put("a", value)]).await.unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    assert!(
        town.group(leader, SHARD).unwrap().applied() <= before + 1,
        "it took entries"
    );
    // It does not count: with one more gone there is no majority, and it gives no vote.
    let third = (1..=3).find(|node| ![leader, next].contains(node)).unwrap();
    town.kill(third);
    until("the lease has run out", || !led.has_lease(later)).await;
    sleep(Duration::from_secs(10)).await;
    assert!(town.leaders(SHARD).is_empty());
    town.store(leader).fill(false);
    let (_, led, term) = town.leader(SHARD).await;
    led.propose(term, vec![put("a", 10)]).await.unwrap();
    let replica = town.group(leader, SHARD).unwrap();
    until("it has caught up", || {
        drop(led.propose(term, Vec::new()));
        read(&replica, "a") == Some(10)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_promised_and_afterwards_all_goes_on() {
    let town = three().await;
    let (leader, group, term) = town.leader(SHARD).await;
    group.propose(term, vec![put("a", 1)]).await.unwrap();
    let others: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    others.iter().for_each(|node| town.kill(*node));
    until("the lease has run out", || !group.has_lease(term)).await;
    assert!(town.leaders(SHARD).is_empty());
    for node in others {
        town.revive(node).await;
    }
    let (_, group, term) = town.leader(SHARD).await;
    assert_eq!(read(&group, "a"), Some(1));
    group
        .propose(Round { term, round: 7 }, vec![put("a", 2)])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_far_behind_gets_a_snapshot() {
    let town = Town::new(4).await;
    town.found(SHARD, &[1, 2, 3]).await;
    let (_, group, term) = town.leader(SHARD).await;
    let large = Options::default().log_bytes_max / 8;
    for value in 0..40 {
        let mut batch = put("a", value);
        let filler = vec![7; large].into();
        batch
            .writes
            .push(heronry_cluster::Write::Put(super::key("filler"), filler));
        group.propose(term, vec![batch]).await.unwrap();
    }
    group.add_learner(id(4)).await.unwrap();
    until("the new replica has all", || {
        town.group(4, SHARD)
            .is_some_and(|replica| read(&replica, "a") == Some(39))
    })
    .await;
    until("the leader knows", || group.lag_of(id(4)) == Some(0)).await;
    let voters = BTreeSet::from([id(2), id(3), id(4)]);
    group.change_voters(&voters).await.unwrap();
    let (_, group, _) = town.leader(SHARD).await;
    until("it is settled", || group.membership().settled() == Some(&voters)).await;
}

/// Writes so many rows of a quarter of a MiB, which the log does not keep.
async fn write_much(group: &Group, term: Term, rows: u64) {
    for value in 0..rows {
        let mut batch = put("a", value);
        let filler = vec![7; 256 << 10].into();
        let key = super::key(&format!("filler {value:05}"));
        batch.writes.push(heronry_cluster::Write::Put(key, filler));
        group.propose(term, vec![batch]).await.unwrap();
    }
}

const MUCH: u64 = 64;
const MUCH_BYTES: usize = 64 * (256 << 10);

#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_way_breaks_goes_on_and_is_not_sent_again() {
    let town = Town::new(4).await;
    town.found(SHARD, &[1, 2, 3]).await;
    let (_, group, term) = town.leader(SHARD).await;
    write_much(&group, term, MUCH).await;
    town.carried();
    // Some ten times it breaks, and each time the rest is less.
    town.carry_at_most(Some(MUCH_BYTES / 10));
    town.garble_after(20);
    let writing = tokio::spawn({
        let group = group.clone();
        async move {
            for value in 0..100 {
                group.propose(term, vec![put("b", value)]).await?;
                sleep(Duration::from_millis(100)).await;
            }
            Ok::<_, ProposeError>(())
        }
    });
    group.add_learner(id(4)).await.unwrap();
    until("the new replica has all", || {
        town.group(4, SHARD)
            .is_some_and(|replica| read(&replica, "a") == Some(MUCH - 1) && read(&replica, "b") == Some(99))
    })
    .await;
    writing.await.unwrap().unwrap();
    let carried = town.carried();
    assert!(carried > MUCH_BYTES, "{carried} bytes: not all was a snapshot");
    // A chunk that breaks is sent again, and so is what was behind it on the way.
    assert!(carried < MUCH_BYTES * 3 / 2, "{carried} bytes for {MUCH_BYTES}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_another_leader_begins_anew() {
    let town = Town::new(4).await;
    town.found(SHARD, &[1, 2, 3]).await;
    let (leader, group, term) = town.leader(SHARD).await;
    write_much(&group, term, MUCH).await;
    town.carry_at_most(Some(MUCH_BYTES / 2));
    town.carried();
    let learning = tokio::spawn({
        let group = group.clone();
        async move { group.add_learner(id(4)).await }
    });
    until("half of it is there", || town.streets().carried > MUCH_BYTES / 3).await;
    town.kill(leader);
    drop(learning.await);
    let (_, group, term) = town.leader(SHARD).await;
    town.carry_at_most(None);
    group.add_learner(id(4)).await.unwrap();
    group.propose(term, vec![put("b", 1)]).await.unwrap();
    until("the new replica has all", || {
        town.group(4, SHARD)
            .is_some_and(|replica| read(&replica, "a") == Some(MUCH - 1) && read(&replica, "b") == Some(1))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_while_a_snapshot_comes_gets_it_all_the_same() {
    let town = Town::new(4).await;
    town.found(SHARD, &[1, 2, 3]).await;
    let (_, group, term) = town.leader(SHARD).await;
    write_much(&group, term, MUCH).await;
    town.carry_at_most(Some(MUCH_BYTES / 4));
    town.carried();
    let learning = tokio::spawn({
        let group = group.clone();
        async move { group.add_learner(id(4)).await }
    });
    for _ in 0..2 {
        until("a part of it is there", || town.streets().carried > MUCH_BYTES / 8).await;
        town.kill(4);
        town.carried();
        sleep(Duration::from_secs(1)).await;
        town.revive(4).await;
    }
    town.carry_at_most(None);
    learning.await.unwrap().unwrap();
    until("the new replica has all", || {
        town.group(4, SHARD)
            .is_some_and(|replica| read(&replica, "a") == Some(MUCH - 1))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_moves_while_the_leader_writes() {
    let town = Town::new(4).await;
    town.found(SHARD, &[1, 2, 3]).await;
    let (_, group, term) = town.leader(SHARD).await;
    let writing = tokio::spawn({
        let group = group.clone();
        async move {
            for value in 1..=200 {
                group.propose(term, vec![put("a", value)]).await?;
                sleep(Duration::from_millis(3)).await;
            }
            Ok::<_, ProposeError>(())
        }
    });
    group.add_learner(id(4)).await.unwrap();
    until("it has caught up", || group.lag_of(id(4)).is_some_and(|lag| lag < 5)).await;
    let leader = town.leader(SHARD).await.0;
    let leaves = (1..=3).find(|node| *node != leader).unwrap();
    let voters: BTreeSet<_> = (1..=4).filter(|node| *node != leaves).map(id).collect();
    group.change_voters(&voters).await.unwrap();
    assert_eq!(group.membership().nodes(), voters);
    town.groups(leaves).unwrap().remove(SHARD).await.unwrap();
    writing.await.unwrap().unwrap();
    assert!(town.group(leaves, SHARD).is_none());
    assert_eq!(read(&town.leader(SHARD).await.1, "a"), Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_refused_proposal_takes_the_later_ones_of_its_round_with_it() {
    let town = three().await;
    let (_, group, term) = town.leader(SHARD).await;
    let first = Round { term, round: 0 };
    group.propose(first, vec![put("a", 1)]).await.unwrap();
    let later = Round { term, round: 1 };
    group.propose(later, vec![put("a", 2)]).await.unwrap();
    let late = group.propose(first, vec![put("a", 3)]).await;
    assert!(matches!(late, Err(ProposeError::Fenced { .. })), "{late:?}");
    assert_eq!(read(&group, "a"), Some(2));
}
