//! `heronry cluster …`: a cluster of one, and a node that waits for one.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::process::{Ended, PATIENCE, Place};

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok().stdout).unwrap()
}

/// Runs a command again until what it prints is as it should be.
#[track_caller]
fn until(place: &Place, arguments: &[&str], holds: impl Fn(&Ended) -> bool) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = place.run(arguments);
        if holds(&ended) {
            return ended;
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {ended:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_node_alone_is_a_cluster_whose_status_is_told() {
    let place = Place::new();
    let _broker = place.start();
    let status = json(place.run(&["cluster", "status", "--json"]));
    assert_eq!(status["member"], true);
    assert_eq!(status["without_leader"], serde_json::json!([]));
    let nodes = status["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (&nodes[0]["state"], &nodes[0]["alive"]),
        (&"active".into(), &true.into())
    );
    assert_eq!(nodes[0]["node"], status["node"]);
    let node = status["node"].as_str().unwrap();

    let shards = json(place.run(&["cluster", "shards", "--json"]));
    let shards = shards.as_array().unwrap();
    assert_eq!(nodes[0]["replicas"], shards.len());
    assert_eq!(nodes[0]["leaderships"], shards.len());
    assert!(shards.iter().all(|shard| shard["leader"] == node), "{shards:?}");
    assert_eq!(shards.last().unwrap()["shard"], "metadata");

    let text = place.run(&["cluster", "status"]).ok().stdout;
    assert!(text.contains(node) && text.contains("to do     nothing\n"), "{text}");
    let text = place.run(&["cluster", "shards"]).ok().stdout;
    assert_eq!(text.lines().count(), shards.len() + 1, "{text}");

    let again = place.run(&["cluster", "init"]).ok().stdout;
    assert!(
        again.starts_with("this node is a member of cluster heronry ("),
        "{again}"
    );
    place.run(&["cluster", "rebalance"]).ok();
}

#[test]
fn what_would_stop_the_cluster_is_12_with_what_would_come_of_it() {
    let place = Place::new();
    let _broker = place.start();
    let dir = place.directory.path();
    let status = json(place.run(&["cluster", "status", "--json"]));
    let node = status["node"].as_str().unwrap();
    let drained = place.run(&["cluster", "drain", node]);
    assert_eq!(drained.code, Some(12), "{drained:?}");
    let sentence = drained.sentence(dir);
    assert!(
        sentence.starts_with(&format!("node {node} cannot be drained at present: ")),
        "{sentence}"
    );
    // As much of the id as is needed is enough, and the sentence has all of it.
    let evicted = place.run(&["cluster", "evict", &node[..4]]);
    assert_eq!(evicted.code, Some(12), "{evicted:?}");
    let sentence = evicted.sentence(dir);
    assert!(
        sentence.starts_with(&format!("node {node} was not evicted: ")) && sentence.contains("no live voter at all"),
        "{sentence}"
    );
    for command in ["drain", "evict"] {
        let unknown = place.run(&["cluster", command, "nobody:1"]);
        assert_eq!(
            (unknown.code, unknown.sentence(dir)),
            (
                Some(12),
                format!("no node of the cluster has the id or the address \"nobody:1\"; members are {node}")
            )
        );
    }
    let status = json(place.run(&["cluster", "status", "--json"]));
    assert_eq!(status["nodes"][0]["state"], "active");
}

#[test]
fn without_a_broker_it_is_10_and_without_a_node_2() {
    let place = Place::new();
    for arguments in [
        &["cluster", "status"][..],
        &["cluster", "shards", "--json"],
        &["cluster", "init"],
        &["cluster", "drain", "a"],
        &["cluster", "evict", "a", "--force"],
        &["cluster", "rebalance"],
    ] {
        assert_eq!(place.run(arguments).code, Some(10), "{arguments:?}");
    }
    for arguments in [&["cluster", "drain"][..], &["cluster", "evict"], &["cluster"]] {
        assert_eq!(place.run(arguments).code, Some(2), "{arguments:?}");
    }
}

/// A broker that may never serve; killed when dropped.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_whose_seeds_do_not_answer_waits_until_a_cluster_is_founded() {
    let place = Place::new();
    let ip = place.ip;
    let place = place.with(&[
        &format!("--set=peer.listen={ip}:5269"),
        &format!("--set=peer.seeds={ip}:1"),
    ]);
    let dir = place.directory.path();
    let out = dir.join("out");
    let mut command = place.command(&["run"]);
    command.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null());
    let _broker = Waiting(command.spawn().unwrap());
    let ready = || fs::read_to_string(&out).unwrap().starts_with("heronry: ready");

    let waits = format!("waiting to be let into cluster \"heronry\": {ip}:1 ");
    let status = until(&place, &["cluster", "status", "--json"], |ended| {
        ended.code == Some(0) && ended.stdout.contains("run `heronry cluster init` at one node")
    });
    let status = json(status);
    assert_eq!(status["member"], false);
    let sentence = status["waits_for"].as_str().unwrap();
    assert!(sentence.starts_with(&waits), "{sentence}");
    let degraded = place.run(&["status"]);
    assert_eq!(degraded.code, Some(1), "{degraded:?}");
    assert!(degraded.stdout.contains(&waits), "{degraded:?}");
    for arguments in [
        &["cluster", "shards"][..],
        &["cluster", "drain", "0"],
        &["cluster", "evict", "0"],
        &["cluster", "rebalance"],
    ] {
        let refused = place.run(arguments);
        assert_eq!(refused.code, Some(12), "{refused:?}");
        let sentence = refused.sentence(dir);
        assert!(
            sentence.starts_with(&format!("this node belongs to no cluster yet: {waits}")),
            "{sentence}"
        );
    }
    assert!(!ready());

    let founded = place.run(&["cluster", "init"]).ok().stdout;
    assert!(founded.starts_with("cluster heronry ("), "{founded}");
    assert!(founded.ends_with(") begins at this node\n"), "{founded}");
    until(&place, &["status"], |ended| ended.code == Some(0));
    until(&place, &["cluster", "status"], |_| ready());
    let status = json(place.run(&["cluster", "status", "--json"]));
    assert_eq!(status["nodes"][0]["address"], format!("{ip}:5269"));
}
