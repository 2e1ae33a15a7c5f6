//! Exit codes and sentences that scripts rely on.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use crate::process::{PATIENCE, Place, ended, heronry};

#[test]
fn an_unknown_key_is_2_and_names_the_nearest_wherever_it_is_written() {
    let place = Place::new();
    let dir = place.directory.path();
    let file = dir.join("h.toml");
    fs::write(&file, "[tls]\nrequird = true\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        &["run", "--config", file][..],
        &["config", "check", file],
        &["user", "list", "--config", file],
    ] {
        let ended = place.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert_eq!(
            ended.sentence(dir),
            "unknown key `tls.requird` in DIR/h.toml line 2: did you mean `tls.required`?"
        );
    }
    let ended = ended(
        place
            .command(&["config", "show"])
            .env("HERONRY_EDGE__C2S_LTS", "1")
            .output()
            .unwrap(),
    );
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.sentence(dir),
        "unknown key `edge.c2s_lts` in the environment variable HERONRY_EDGE__C2S_LTS: did you mean `edge.c2s_tls`?"
    );
}

#[test]
fn a_wrong_type_is_2_and_says_what_is_expected() {
    let place = Place::new().with(&["--set=limits.stanza_bytes_max=lots"]);
    let ended = place.run(&["run"]);
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.sentence(place.directory.path()),
        "`limits.stanza_bytes_max` in --set must be a size such as `256 KiB`, not \"lots\""
    );
}

#[test]
fn what_does_not_exist_yet_is_2_and_not_ignored() {
    for assignment in ["peer.seeds=a.example:5269", "roles=edge"] {
        let place = Place::new().with(&["--set", assignment]);
        let ended = place.run(&["run"]);
        assert_eq!(ended.code, Some(2), "{assignment}");
        let key = assignment.split('=').next().unwrap();
        assert!(
            ended
                .sentence(place.directory.path())
                .starts_with(&format!("`{key}` in --set ")),
            "{ended:?}"
        );
        assert!(!place.data().exists(), "{assignment}: something was started");
    }
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [&["rum"][..], &[], &["user", "add"], &["run", "--set"]] {
        assert_eq!(
            ended(heronry(arguments).output().unwrap()).code,
            Some(2),
            "{arguments:?}"
        );
    }
    assert_eq!(ended(heronry(&["--help"]).output().unwrap()).code, Some(0));
    assert_eq!(
        ended(heronry(&["--version"]).output().unwrap())
            .ok()
            .stdout
            .split(' ')
            .next(),
        Some("heronry")
    );
}

#[test]
fn a_second_process_on_the_same_data_is_3_and_names_the_first() {
    let place = Place::new();
    let broker = place.start();
    let second = Place::new().with(&[&format!("--data={}", place.data().display())]);
    let mut command = heronry(&["run"]);
    command.args(
        second
            .flags
            .iter()
            .filter(|flag| !flag.contains("/data") || flag.contains(place.data().to_str().unwrap())),
    );
    let ended = ended(command.output().unwrap());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(
        ended.sentence(place.directory.path()),
        format!(
            "process {} uses the data directory DIR/data: stop it, or name another one with --data DIR",
            broker.pid()
        )
    );
}

#[test]
fn a_damaged_store_is_4() {
    let place = Place::new();
    place.start().end_with("TERM", Duration::from_secs(10)).ok();
    let manifest = fs::read_dir(place.data().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let manifest = manifest
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST"))
        .unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&manifest, bytes).unwrap();
    let ended = place.run(&["run"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let sentence = ended.sentence(place.directory.path());
    assert!(sentence.starts_with("the store in DIR/data is damaged ("), "{sentence}");
    assert!(
        sentence.ends_with("): restore a backup, or start with an empty data directory"),
        "{sentence}"
    );
}

#[test]
fn a_store_of_a_newer_version_is_5() {
    let place = Place::new();
    // Killed, so that what it wrote last is still in the write-ahead log, where it can be changed.
    place.start().end_with("KILL", PATIENCE);
    write_format(&place.data().join("store"), 7);
    let ended = place.run(&["run"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert_eq!(
        ended.sentence(place.directory.path()),
        "the store in DIR/data has format 7, this program reads up to 1: start the newer heronry that wrote it"
    );
}

/// Changes the number of the format in a write-ahead log of RocksDB, as a newer version would have written it.
fn write_format(store: &Path, format: u32) {
    const VALUE: &[u8] = b"\x06format\x04";
    let logs = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    for log in logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let mut bytes = fs::read(&log).unwrap();
        // Records: masked CRC-32C, length, type (5 to 8 have the log's number as well), content.
        let mut start = 0;
        while let Some(header) = bytes.get(start..start + 7) {
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            let (content, end) = (
                start + if kind >= 5 { 11 } else { 7 },
                start + if kind >= 5 { 11 } else { 7 } + length,
            );
            if kind == 0 || end > bytes.len() {
                break;
            }
            let found = bytes[content..end]
                .windows(VALUE.len())
                .position(|window| window == VALUE);
            if let Some(position) = found {
                let value = content + position + VALUE.len();
                bytes[value..value + 4].copy_from_slice(&format.to_be_bytes());
                let masked = crc32c::crc32c(&bytes[start + 6..end])
                    .rotate_right(15)
                    .wrapping_add(0xa282_ead8);
                bytes[start..start + 4].copy_from_slice(&masked.to_le_bytes());
                return fs::write(&log, bytes).unwrap();
            }
            start = end;
        }
    }
    panic!("no log in {} says the format", store.display());
}

#[test]
fn a_taken_address_is_7_and_names_its_key() {
    for (key, port) in [("edge.c2s", 5222), ("edge.c2s_tls", 5223), ("admin.listen", 5280)] {
        let place = Place::new();
        let _taken = TcpListener::bind((place.ip, port)).unwrap();
        let ended = place.run(&["run"]);
        assert_eq!(ended.code, Some(7), "{ended:?}");
        let ip = place.ip;
        assert_eq!(
            ended.sentence(place.directory.path()),
            format!(
                "cannot listen on {ip}:{port} (Address already in use (os error 98)): \
                 set `{key}` to a free address, for example with --set {key}=IP:PORT"
            )
        );
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_8() {
    let place = Place::new().with(&[
        "--set=tls.certificate=/nonexistent/c.pem",
        "--set=tls.key=/nonexistent/k.pem",
    ]);
    let ended = place.run(&["run"]);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    assert_eq!(
        ended.sentence(place.directory.path()),
        "/nonexistent/c.pem has no usable certificate: No such file or directory (os error 2)"
    );
}

#[test]
fn a_data_directory_that_cannot_be_made_is_9() {
    let place = Place::new();
    fs::write(place.data(), "a file").unwrap();
    let ended = place.run(&["run"]);
    assert_eq!(ended.code, Some(9), "{ended:?}");
    assert_eq!(
        ended.sentence(place.directory.path()),
        "the data directory DIR/data cannot be used (File exists (os error 17)): name one that can be written with --data DIR"
    );
}

#[test]
fn without_a_broker_status_is_2_and_other_commands_are_10() {
    let place = Place::new();
    let ip = place.ip;
    let sentence = format!(
        "no broker answers at {ip}:5280: start one with `heronry run`, or name its address with --set admin.listen=IP:PORT"
    );
    let status = place.run(&["status"]);
    assert_eq!(
        (status.code, status.sentence(place.directory.path())),
        (Some(2), sentence.clone())
    );
    let json = place.run(&["status", "--json"]);
    assert_eq!(json.code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["health"], "unreachable");
    for arguments in [
        &["user", "list"][..],
        &["user", "add", "a@localhost", "--password", "p"],
        &["user", "delete", "a@localhost"],
    ] {
        let ended = place.run(arguments);
        assert_eq!(
            (ended.code, ended.sentence(place.directory.path())),
            (Some(10), sentence.clone()),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_wrong_token_is_11_and_a_refused_request_is_12() {
    let place = Place::new();
    let _broker = place.start();
    let dir = place.directory.path();
    let wrong = ended(
        place
            .command(&["user", "list"])
            .env("HERONRY_ADMIN_TOKEN", "wrong")
            .output()
            .unwrap(),
    );
    assert_eq!(wrong.code, Some(11));
    assert_eq!(
        wrong.sentence(dir),
        format!(
            "the broker at {}:5280 does not accept the token: name its data directory with --data DIR, or set HERONRY_ADMIN_TOKEN",
            place.ip
        )
    );
    let cases = [
        (
            &["user", "delete", "a@localhost"][..],
            "there is no account a@localhost",
        ),
        (
            &["user", "passwd", "a@localhost", "--password", "p"],
            "there is no account a@localhost",
        ),
        (
            &["user", "add", "a@elsewhere", "--password", "p"],
            "elsewhere is not served here, only localhost",
        ),
    ];
    for (arguments, sentence) in cases {
        let ended = place.run(arguments);
        assert_eq!(
            (ended.code, ended.sentence(dir)),
            (Some(12), sentence.to_owned()),
            "{arguments:?}"
        );
    }
    place.run(&["user", "add", "a@localhost", "--password", "p"]).ok();
    let again = place.run(&["user", "add", "a@localhost", "--password", "p"]);
    assert_eq!(
        (again.code, again.sentence(dir)),
        (Some(12), "there is an account a@localhost already".to_owned())
    );
}
