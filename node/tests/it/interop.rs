//! A stranger's client against a real broker.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{Place, ended};

#[test]
fn slixmpp_logs_in_talks_loses_its_connection_and_goes_on() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Makes the environment when it is absent, which wants the network once.
    let venv = ended(Command::new(root.join("tools/venv.sh")).output().unwrap()).ok();
    let place = Place::new();
    let _broker = place.start();
    for jid in ["juliet@localhost", "romeo@localhost"] {
        place.run(&["user", "add", jid, "--password", "wherefore"]).ok();
    }
    let session = Command::new(venv.stdout.trim())
        .arg("-B")
        .arg(root.join("node/tests/interop/session.py"))
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
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let session = ended(session).ok();
    assert_eq!(
        session.stdout.lines().filter(|line| line.starts_with("ok ")).count(),
        8,
        "{}",
        session.stdout
    );
}
