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

#[test]
fn slixmpp_logs_in_talks_loses_its_connection_and_goes_on() {
    let place = Place::new().with(&["--set=auth.registration=true"]);
    let _broker = place.start();
    for jid in ["juliet@localhost", "romeo@localhost"] {
        place.run(&["user", "add", jid, "--password", "wherefore"]).ok();
    }
    let session = Command::new(python())
        .arg("-B")
        .arg(root().join("node/tests/interop/session.py"))
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
        9,
        "{}",
        session.stdout
    );
}
