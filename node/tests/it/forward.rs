//! Three nodes that are a cluster: what an operator does at any of them reaches the shard, wherever that is led.

use std::time::{Duration, Instant};

use crate::process::{Broker, PATIENCE, Place};

/// Accounts: enough that every shard has some.
const ACCOUNTS: usize = 60;

/// Three places whose brokers find each other.
fn places() -> [Place; 3] {
    let places = [Place::new(), Place::new(), Place::new()];
    let seeds = places.each_ref().map(|place| format!("{}:5269", place.ip)).join(",");
    places.map(|place| {
        let listen = format!("--set=peer.listen={}:5269", place.ip);
        let seeds = format!("--set=peer.seeds={seeds}");
        place.with(&[&listen, &seeds, "--set=peer.bootstrap=3"])
    })
}

/// Starts all of them, and waits until every node leads some of the shards.
fn start(places: &[Place; 3]) -> Vec<Broker> {
    let mut commands = places.each_ref().map(|place| place.command(&["run"]));
    let brokers = std::thread::scope(|scope| {
        let starting = commands
            .each_mut()
            .map(|command| scope.spawn(|| Broker::start(command)));
        starting.map(|started| started.join().unwrap()).into_iter().collect()
    });
    let begun = Instant::now();
    loop {
        let led = places.each_ref().map(led);
        if led.iter().all(|led| *led >= 4) && led.iter().sum::<usize>() == 16 {
            return brokers;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "the nodes lead {led:?} shards");
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// How many shards a node leads.
fn led(place: &Place) -> usize {
    let status = place.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let shards = status["shards"].as_array().unwrap();
    shards.iter().filter(|shard| shard["role"] == "leader").count()
}

/// Runs a command; again, while the broker says that it is unavailable, for a leadership may move at any time.
fn run(place: &Place, arguments: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        let ended = place.run(arguments);
        if ended.code == Some(0) {
            return ended.stdout;
        }
        assert!(
            ended.stderr.contains("try again") && begun.elapsed() < PATIENCE,
            "{arguments:?}: {ended:?}"
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn jid(number: usize) -> String {
    format!("user{number}@localhost")
}

/// The accounts that a node lists.
fn listed(place: &Place) -> Vec<String> {
    let mut lines: Vec<_> = run(place, &["user", "list"]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_operator_reaches_every_account_at_every_node() {
    let places = places();
    let _brokers = start(&places);
    for number in 0..ACCOUNTS {
        let jid = jid(number);
        run(&places[number % 3], &["user", "add", &jid, "--password", "p"]);
    }
    // Who was told that an account is there finds it everywhere, at once.
    let all = listed(&places[0]);
    assert_eq!(all.len(), ACCOUNTS, "{all:?}");
    for place in &places[1..] {
        assert_eq!(listed(place), all);
    }
    // What is refused is refused for the same reason everywhere.
    for place in &places {
        for number in 0..6 {
            let refused = place.run(&["user", "add", &jid(number), "--password", "p"]);
            assert!(refused.stderr.contains("already"), "{refused:?}");
        }
        let refused = place.run(&["user", "delete", "nobody@localhost"]);
        assert!(refused.stderr.contains("there is no account"), "{refused:?}");
    }
    // Every other node than the one that made it.
    for number in 0..ACCOUNTS / 2 {
        let jid = jid(number);
        run(&places[(number + 1) % 3], &["user", "passwd", &jid, "--password", "q"]);
        run(&places[(number + 2) % 3], &["user", "delete", &jid]);
    }
    let left = listed(&places[0]);
    assert_eq!(left.len(), ACCOUNTS / 2, "{left:?}");
    for place in &places[1..] {
        assert_eq!(listed(place), left);
    }
    // What one node exports, another imports; and both export the same afterwards.
    let file = |name: &str| places[0].directory.path().join(name).to_str().unwrap().to_owned();
    let sorted = |name: &str| {
        let text = std::fs::read_to_string(file(name)).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    run(&places[0], &["user", "export", &file("first.csv")]);
    for number in ACCOUNTS / 2..ACCOUNTS {
        run(&places[1], &["user", "delete", &jid(number)]);
    }
    assert_eq!(listed(&places[2]), Vec::<String>::new());
    run(&places[2], &["user", "import", &file("first.csv")]);
    assert_eq!(listed(&places[0]), left);
    run(&places[1], &["user", "export", &file("second.csv")]);
    assert_eq!(sorted("second.csv"), sorted("first.csv"));
}
