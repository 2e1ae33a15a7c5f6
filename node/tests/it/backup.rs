//! `heronry backup` and `heronry restore`, with real processes: what was acknowledged before a backup is there after its restore.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use heronry_client::{
    Client, Event, Events, Options, Presence, Server, Subscription, Tls, Trust, jid::BareJid, message, xml::CLIENT,
};
use heronry_xmpp::sasl::Password;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    accounts::Accounts,
    full_disk::SmallDisk,
    process::{Broker, Ended, PATIENCE, Place, ended},
};

const PASSWORD: &str = "wherefore";

/// Messages that wait for somebody.
const STORED: usize = 20;

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).unwrap()
}

async fn connect(place: &Place, name: &str) -> (Client, Events) {
    let options = Options::new(jid(name), Password::new(PASSWORD).unwrap())
        .servers([Server::Address((place.ip, 5222).into())])
        .tls(Tls::Any(Trust::dangerous_accept_any()));
    let (client, events) = timeout(PATIENCE, Client::connect(options)).await.unwrap().unwrap();
    client.set_presence(&Presence::available()).await.unwrap();
    client.flush().await.unwrap();
    (client, events)
}

/// The next messages.
async fn bodies(events: &mut Events, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let event = timeout(PATIENCE, events.next()).await;
        if let Event::Message(message) = event.unwrap_or_else(|_| panic!("only {bodies:?}")).unwrap() {
            let content = message.root_element().unwrap();
            bodies.extend(content.child("body", CLIENT).map(|body| body.text()));
        }
    }
    bodies
}

/// Whether an account is in a roster, and how.
async fn contact(client: &Client, name: &str) -> Option<Subscription> {
    let roster = client.roster().await.unwrap();
    roster.contact(&jid(name)).map(|contact| contact.subscription)
}

/// Two accounts that see each other and one that has messages waiting.
async fn populate(place: &Place) {
    for name in ["romeo", "juliet", "nurse"] {
        let jid = format!("{name}@localhost");
        place.run(&["user", "add", &jid, "--password", PASSWORD]).ok();
    }
    let (romeo, _romeos) = connect(place, "romeo").await;
    let (juliet, _juliets) = connect(place, "juliet").await;
    for (asker, asked) in [(&romeo, &juliet), (&juliet, &romeo)] {
        asked.approve(&asker.jid().bare()).await.unwrap();
        asker.subscribe(&asked.jid().bare()).await.unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while contact(&romeo, "juliet").await != Some(Subscription::Both) {
        assert!(Instant::now() < until, "they do not see each other");
        juliet.approve(&jid("romeo")).await.unwrap();
        romeo.approve(&jid("juliet")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 0..STORED {
        romeo.send(message(jid("nurse"), &number.to_string())).await.unwrap();
    }
    romeo.flush().await.unwrap();
    juliet.close().await;
    romeo.close().await;
}

/// What [`populate`] has made is there, and works.
async fn check(place: &Place) {
    let (_nurse, mut events) = connect(place, "nurse").await;
    let expected: Vec<_> = (0..STORED).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&mut events, STORED).await, expected);
    let (romeo, mut events) = connect(place, "romeo").await;
    assert_eq!(contact(&romeo, "juliet").await, Some(Subscription::Both));
    let (juliet, _events) = connect(place, "juliet").await;
    assert_eq!(contact(&juliet, "romeo").await, Some(Subscription::Both));
    juliet.send(message(jid("romeo"), "still here")).await.unwrap();
    assert_eq!(bodies(&mut events, 1).await, ["still here"]);
}

fn path(place: &Place, name: &str) -> PathBuf {
    place.directory.path().join(name)
}

fn command(place: &Place, command: &str, directory: &Path) -> Ended {
    place.run(&[command, &directory.display().to_string(), "--json"])
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok().stdout).unwrap()
}

/// `nodes` nodes that found a cluster together.
pub(crate) fn cluster(nodes: usize, flags: &[&str]) -> (Vec<Place>, Vec<Broker>) {
    let places: Vec<_> = (0..nodes).map(|_| Place::new()).collect();
    let seeds: Vec<_> = places.iter().map(|place| format!("{}:5269", place.ip)).collect();
    let seeds = seeds.join(",");
    let member = |place: Place| {
        let ip = place.ip;
        place
            .with(&[
                &format!("--set=peer.listen={ip}:5269"),
                &format!("--set=peer.seeds={seeds}"),
                &format!("--set=peer.bootstrap={nodes}"),
            ])
            .with(flags)
    };
    let places: Vec<_> = places.into_iter().map(member).collect();
    let brokers = std::thread::scope(|scope| {
        let starting: Vec<_> = places.iter().map(|place| scope.spawn(|| place.start())).collect();
        starting.into_iter().map(|broker| broker.join().unwrap()).collect()
    });
    (places, brokers)
}

/// Waits until every node leads shards.
fn spread(places: &[Place]) {
    let until = Instant::now() + 2 * PATIENCE;
    loop {
        let status: Value = serde_json::from_str(&places[0].run(&["cluster", "status", "--json"]).ok().stdout).unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        let leads = |node: &Value| node["leaderships"].as_u64().unwrap() > 1 && node["replicas"] == 17;
        if nodes.len() == places.len() && nodes.iter().all(leads) {
            return;
        }
        assert!(Instant::now() < until, "not spread: {status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_one_node_is_restored_into_another_and_only_once() {
    let (old, new) = (Place::new(), Place::new());
    let _broker = old.start();
    populate(&old).await;
    let backup = path(&old, "backup");
    let made = json(command(&old, "backup", &backup));
    assert_eq!((&made["accounts"], &made["shards"]), (&3.into(), &16.into()));
    // Keys are in it.
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(&backup).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let checked = new.run(&["restore", &backup.display().to_string(), "--check"]).ok();
    assert!(
        checked.stdout.starts_with("3 accounts of cluster heronry ("),
        "{checked:?}"
    );
    let _broker = new.start();
    let restored = json(command(&new, "restore", &backup));
    assert_eq!(
        (&restored["accounts"], &restored["what"]),
        (&3.into(), &"restored".into())
    );
    check(&new).await;
    let again = json(command(&new, "restore", &backup));
    assert_eq!(again["what"], "restored already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_three_nodes_under_load_is_restored_into_one_of_five_shards_and_into_three() {
    let (olds, brokers) = cluster(3, &[]);
    spread(&olds);
    populate(&olds[0]).await;
    let (added, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let backup = path(&olds[1], "backup");
    let mut accounts = Accounts::connect(olds[2].ip, &olds[2].token()).await;
    let (before, made) = tokio::join!(
        async {
            while added.load(Ordering::Relaxed) < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let before = added.load(Ordering::Relaxed);
            // At a node that leads some of the shards only.
            let made = tokio::task::block_in_place(|| command(&olds[1], "backup", &backup));
            is_over.store(true, Ordering::Relaxed);
            (before, json(made))
        },
        async {
            while !is_over.load(Ordering::Relaxed) {
                let number = added.load(Ordering::Relaxed);
                accounts.add(&format!("u{number}@localhost")).await.unwrap();
                added.fetch_add(1, Ordering::Relaxed);
            }
        }
    )
    .0;
    let after = added.load(Ordering::Relaxed);
    let backed_up = usize::try_from(made["accounts"].as_u64().unwrap()).unwrap();
    assert!(
        (before + 3..=after + 3).contains(&backed_up),
        "{before} {backed_up} {after}"
    );
    drop(brokers);

    for nodes in [1, 3] {
        let (news, _brokers) = if nodes == 1 {
            let place = Place::new().with(&["--set=limits.group.shards=5"]);
            let broker = place.start();
            (vec![place], vec![broker])
        } else {
            let (places, brokers) = cluster(nodes, &[]);
            spread(&places);
            (places, brokers)
        };
        let last = news.last().unwrap();
        json(command(last, "restore", &backup));
        let mut accounts = Accounts::connect(last.ip, &last.token()).await;
        let listed: BTreeSet<_> = accounts.list().await.into_iter().collect();
        assert_eq!(listed.len(), backed_up);
        for number in 0..before {
            assert!(listed.contains(&format!("u{number}@localhost")), "u{number}");
        }
        check(&news[0]).await;
    }
}

/// A directory with the files of another.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Changes a text in the manifest, and its checksum with it when `sealed`.
fn change_manifest(directory: &Path, from: &str, to: &str, sealed: bool) {
    use sha2::{Digest as _, Sha256};
    let path = directory.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    let text = text.replacen(from, to, 1);
    if !sealed {
        return fs::write(&path, text).unwrap();
    }
    // The sum is of the compact form, with an empty sum; it is the last field.
    let compact: String = text.lines().map(str::trim_start).collect();
    let compact = compact.replace("\": ", "\":");
    let open = compact.rfind(",\"sha256\":\"").unwrap();
    let sum = Sha256::digest(format!("{},\"sha256\":\"\"}}", &compact[..open]));
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&path, format!("{},\"sha256\":\"{sum}\"}}", &compact[..open])).unwrap();
}

#[test]
fn what_is_no_whole_backup_is_refused_before_anything_is_written() {
    let (old, new) = (Place::new(), Place::new());
    let broker = old.start();
    old.run(&["user", "add", "juliet@localhost", "--password", PASSWORD])
        .ok();
    let whole = path(&old, "backup");
    command(&old, "backup", &whole).ok();
    let again = command(&old, "backup", &whole);
    assert_eq!(
        (again.code, again.sentence(&whole)),
        (Some(2), "DIR has a backup already: name another directory".to_owned())
    );
    let full = path(&old, "full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letters"), "").unwrap();
    let refused = command(&old, "backup", &full);
    assert_eq!(
        (refused.code, refused.sentence(&full)),
        (Some(2), "DIR is not empty: name another directory".to_owned())
    );
    // Of a backup that was not finished, its files are no reason.
    let begun = path(&old, "begun");
    fs::create_dir(&begun).unwrap();
    fs::write(begun.join("shard-00003.rows"), "half").unwrap();
    fs::write(begun.join("manifest.json.unfinished"), "half").unwrap();
    let unfinished = command(&new, "restore", &begun);
    assert_eq!(
        (unfinished.code, unfinished.sentence(&begun)),
        (
            Some(2),
            "there is no DIR/manifest.json: that is no backup, or one that was not finished".to_owned()
        )
    );
    command(&old, "backup", &begun).ok();
    assert_eq!(fs::read_dir(&begun).unwrap().count(), 17);
    drop(broker);
    let gone = path(&old, "gone");
    assert_eq!(command(&old, "backup", &gone).code, Some(10));
    assert!(!gone.exists(), "without a broker nothing is made");

    let damaged = path(&old, "damaged");
    let file = damaged.join("shard-00005.rows");
    let refuse = |code: i32, sentence: &str| {
        for arguments in [&["restore", "--check"][..], &["restore"]] {
            let ended = new.run(&[arguments, &[&damaged.display().to_string()]].concat());
            assert_eq!(
                (ended.code, ended.sentence(&damaged)),
                (Some(code), sentence.to_owned())
            );
        }
    };
    copy(&whole, &damaged);
    fs::remove_file(&file).unwrap();
    refuse(
        4,
        "DIR/shard-00005.rows cannot be read: No such file or directory (os error 2)",
    );
    copy(&whole, &damaged);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let (is, was) = (bytes.len() - 1, bytes.len());
    refuse(
        4,
        &format!("DIR/shard-00005.rows is damaged: it has {is} bytes and had {was}"),
    );
    let mut flipped = bytes.clone();
    flipped[was / 2] ^= 1;
    fs::write(&file, &flipped).unwrap();
    refuse(4, "DIR/shard-00005.rows is damaged: its checksum is wrong");
    copy(&whole, &damaged);
    change_manifest(&damaged, "\"localhost\"", "\"localhose\"", false);
    refuse(
        4,
        "DIR/manifest.json is damaged or cannot be read: its checksum is wrong",
    );
    copy(&whole, &damaged);
    change_manifest(&damaged, "\"form\": 1", "\"form\": 2", true);
    refuse(
        5,
        "DIR/manifest.json was written by a newer version (its form is 2): upgrade this program",
    );
}

#[test]
fn a_cluster_that_cannot_take_a_backup_is_left_as_it_is() {
    let (old, new) = (Place::new(), Place::new());
    let broker = old.start();
    old.run(&["user", "add", "juliet@localhost", "--password", PASSWORD])
        .ok();
    let whole = path(&old, "backup");
    command(&old, "backup", &whole).ok();
    drop(broker);
    let broker = new.start();
    let changed = path(&old, "changed");
    for (from, to, sentence) in [
        (
            "\"localhost\"",
            "\"capulet.example\"",
            "the backup is of a broker that serves capulet.example, and this one does not: add it to `domains` at every node, or nobody there could log in",
        ),
        (
            "\"feature_level\": 2",
            "\"feature_level\": 77",
            "the backup needs feature level 77, but this cluster is at 2, and this program knows 2: upgrade it first",
        ),
    ] {
        copy(&whole, &changed);
        change_manifest(&changed, from, to, true);
        let refused = command(&new, "restore", &changed);
        assert_eq!(
            (refused.code, refused.sentence(&changed)),
            (Some(12), sentence.to_owned())
        );
    }
    new.run(&["user", "add", "tybalt@localhost", "--password", PASSWORD])
        .ok();
    let refused = command(&new, "restore", &whole);
    assert_eq!(
        (refused.code, refused.sentence(&whole)),
        (
            Some(12),
            "this cluster has accounts already: a backup is restored into a new one".to_owned()
        )
    );
    // It still serves.
    new.run(&["user", "add", "mercutio@localhost", "--password", PASSWORD])
        .ok();
    assert_eq!(new.run(&["user", "list", "--count"]).ok().stdout.trim(), "2");
    drop(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_broke_off_goes_on_and_nobody_is_let_in_before() {
    use heronry_proto::admin::{RestoreBeginRequest, admin_client::AdminClient};
    let (old, new) = (Place::new(), Place::new());
    let broker = old.start();
    populate(&old).await;
    let (backup, other) = (path(&old, "backup"), path(&old, "other"));
    let name = json(command(&old, "backup", &backup));
    command(&old, "backup", &other).ok();
    drop(broker);
    let broker = new.start();
    // It begins, and is not heard of again.
    let mut admin = AdminClient::connect(format!("http://{}:5280", new.ip)).await.unwrap();
    let name = u128::from_str_radix(name["backup"].as_str().unwrap(), 16).unwrap();
    let mut request = tonic::Request::new(RestoreBeginRequest {
        backup: name.to_be_bytes().to_vec().into(),
        feature_level: 1,
        domains: vec!["localhost".to_owned()],
        at: 0,
    });
    let token = format!("Bearer {}", new.token()).parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    admin.restore_begin(request).await.unwrap();
    broker.end_with("KILL", PATIENCE);
    let _broker = new.start();
    let refused = new.run(&["user", "add", "tybalt@localhost", "--password", PASSWORD]);
    assert_eq!(refused.code, Some(10), "{refused:?}");
    let until = Instant::now() + PATIENCE;
    while !new
        .run(&["status"])
        .stdout
        .contains("a backup is being restored: nobody can log in")
    {
        assert!(Instant::now() < until, "{:?}", new.run(&["status"]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = command(&new, "backup", &path(&new, "half"));
    assert_eq!(
        (refused.code, refused.sentence(&other)),
        (
            Some(12),
            "a backup is being restored here, and half of it is no backup: finish that first".to_owned()
        )
    );
    assert!(!path(&new, "half").exists());
    let refused = command(&new, "restore", &other);
    assert_eq!(
        (refused.code, refused.sentence(&other)),
        (
            Some(12),
            "another backup is being restored here: finish that, or begin with a new cluster".to_owned()
        )
    );
    assert_eq!(json(command(&new, "restore", &backup))["what"], "restored");
    check(&new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_for_a_backup_is_6_and_leaves_none() {
    let disk = SmallDisk::of("64k");
    let old = Place::new();
    let _broker = old.start();
    let mut accounts = Accounts::connect(old.ip, &old.token()).await;
    for number in 0..1000 {
        accounts
            .add(&format!("somebody-with-a-long-name-{number}@localhost"))
            .await
            .unwrap();
    }
    let backup = disk.place.data().join("backup");
    let ours = old.command(&["backup"]);
    let mut command = disk.inside(ours.get_program());
    command.args(ours.get_args()).arg(&backup);
    let refused = ended(command.output().unwrap());
    assert_eq!(refused.code, Some(6), "{refused:?}");
    let sentence = refused.sentence(&backup);
    assert!(
        sentence.starts_with("DIR/shard-")
            && sentence.ends_with(" cannot be written: No space left on device (os error 28)"),
        "{sentence}"
    );
    let manifest = disk
        .inside("test")
        .arg("-e")
        .arg(backup.join("manifest.json"))
        .status()
        .unwrap();
    assert_eq!(manifest.code(), Some(1));
}
