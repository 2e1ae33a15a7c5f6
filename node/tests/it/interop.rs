//! A stranger's client against a real broker.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::process::{Place, ended};

/// The interpreter that has slixmpp; installed when it is absent, which wants the network once.
pub(crate) fn python() -> String {
    let venv = Command::new(root().join("tools/venv.sh")).output().unwrap();
    ended(venv).ok().stdout.trim().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory that has xmpp.js; installed when it is absent.
pub(crate) fn modules() -> String {
    let modules = Command::new(root().join("tools/npm.sh")).output().unwrap();
    ended(modules).ok().stdout.trim().to_owned()
}

/// Runs a script of checks against a broker with juliet and romeo, and counts those that hold.
fn checks(interpreter: &str, script: &str, arguments: &[&str], expected: usize) {
    let place = Place::new().with(&["--set=auth.registration=true"]);
    let _broker = place.start();
    for jid in ["juliet@localhost", "romeo@localhost"] {
        place.run(&["user", "add", jid, "--password", "wherefore"]).ok();
    }
    let outcome = Command::new(interpreter)
        .arg(root().join("node/tests/interop").join(script))
        .args([
            "--host",
            &place.ip.to_string(),
            "--c2s",
            "5222",
            "--c2s-tls",
            "5223",
            "--ca",
        ])
        .arg(place.data().join("tls/self-signed.pem"))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NODE_EXTRA_CA_CERTS", place.data().join("tls/self-signed.pem"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let outcome = ended(outcome).ok();
    let held = outcome.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(held, expected, "{}", outcome.stdout);
}

#[test]
fn slixmpp_logs_in_talks_loses_its_connection_and_goes_on() {
    checks(&python(), "session.py", &[], 9);
}

#[test]
fn slixmpp_devices_make_friends_talk_block_and_part() {
    checks(&python(), "friends.py", &[], 9);
}

#[test]
fn slixmpp_devices_publish_and_subscribe() {
    checks(&python(), "pubsub.py", &[], 7);
}

#[test]
fn xmpp_js_devices_make_friends_talk_block_and_part() {
    checks("node", "friends.mjs", &["--modules", &modules()], 9);
}
