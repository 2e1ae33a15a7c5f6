//! What commands do when all is well.

use std::{fs, io::Write as _, process::Stdio, time::Duration};

use crate::process::{Ended, Place, ended, heronry};

#[test]
fn accounts_are_added_listed_changed_and_deleted() {
    let place = Place::new();
    let _broker = place.start();
    let listed = || place.run(&["user", "list"]).ok().stdout;
    assert_eq!(listed(), "");
    assert_eq!(
        place
            .run(&["user", "add", "Juliet@localhost", "--password", "p"])
            .ok()
            .stdout,
        "Juliet@localhost added\n"
    );
    let file = place.directory.path().join("password");
    fs::write(&file, "from a file\nsecond line\n").unwrap();
    place
        .run(&[
            "user",
            "add",
            "romeo@localhost",
            "--password-file",
            file.to_str().unwrap(),
        ])
        .ok();
    let mut names: Vec<_> = listed().lines().map(str::to_owned).collect();
    names.sort_unstable();
    assert_eq!(names, ["juliet@localhost", "romeo@localhost"]);

    let mut command = place.command(&["user", "passwd", "romeo@localhost"]);
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(b"from standard input\n")
        .unwrap();
    assert_eq!(
        ended(process.wait_with_output().unwrap()).ok().stdout,
        "romeo@localhost has a new password\n"
    );

    place.run(&["user", "delete", "juliet@localhost"]).ok();
    assert_eq!(listed(), "romeo@localhost\n");
}

/// The summary of an import, without what it took.
fn summary(ended: &Ended) -> &str {
    let line = ended.stdout.lines().last().unwrap_or_default();
    line.split_once(" in ").map_or(line, |(counts, _)| counts)
}

#[test]
fn accounts_are_imported_and_those_that_cannot_be_are_named() {
    let place = Place::new();
    let _broker = place.start();
    let file = place.directory.path().join("accounts.csv");
    let import = |text: &str, flags: &[&str]| {
        fs::write(&file, text).unwrap();
        place.run(&[&["user", "import", file.to_str().unwrap()], flags].concat())
    };
    let first = import("jid,password\na@localhost,p\nb@localhost,q\n", &[]).ok();
    assert_eq!(summary(&first), "2 created, 0 replaced, 0 kept, 0 refused");
    let zero = |bytes: usize| format!("{}=", "A".repeat(bytes.div_ceil(3) * 4 - 1));
    let keys = format!("SCRAM-SHA-256,4096,{},{},{}", "c2FsdHNhbHQ=", zero(32), zero(32));
    let header = "jid,mechanism,iterations,salt,stored_key,server_key";
    let text = format!("{header}\nb@localhost,{keys}\nc@localhost,{keys}\nnonsense\nd@elsewhere.example,{keys}\n");
    let checked = import(&text, &["--check"]);
    assert_eq!(checked.code, Some(12), "{checked:?}");
    assert!(
        checked.stdout.contains("line 4: it has 1 fields, the header has 6\n"),
        "{checked:?}"
    );
    let partly = import(&text, &[]);
    assert_eq!(partly.code, Some(12), "{partly:?}");
    assert_eq!(summary(&partly), "1 created, 1 replaced, 0 kept, 2 refused");
    for line in [
        "line 4: it has 1 fields, the header has 6\n",
        "line 5: d@elsewhere.example: elsewhere.example is not served here, only localhost\n",
    ] {
        assert!(partly.stdout.contains(line), "{partly:?}");
    }
    // The same again changes nothing, whatever is to happen with accounts that exist.
    let text = format!("{header}\nb@localhost,{keys}\n");
    for existing in ["replace", "keep", "refuse"] {
        let again = import(&text, &["--existing", existing]).ok();
        assert_eq!(
            summary(&again),
            "0 created, 0 replaced, 1 kept, 0 refused",
            "{existing}"
        );
    }
    let refused = import("jid,password\na@localhost,other\n", &["--existing", "refuse"]);
    assert_eq!(refused.code, Some(12), "{refused:?}");
    assert!(
        refused
            .stdout
            .starts_with("line 2: a@localhost: there is an account a@localhost already\n"),
        "{refused:?}"
    );
    let wrong = import("jid\ne@localhost\n", &[]);
    assert_eq!(wrong.code, Some(2));
    let sentence = wrong.sentence(place.directory.path());
    assert!(
        sentence.starts_with("DIR/accounts.csv cannot be imported: the header must be "),
        "{wrong:?}"
    );
    let listed = place.run(&["user", "list"]).ok().stdout;
    let mut names: Vec<_> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["a@localhost", "b@localhost", "c@localhost"]);
}

#[test]
fn what_is_exported_is_what_was_imported() {
    use std::os::unix::fs::PermissionsExt as _;
    const ACCOUNTS: usize = 5000;
    let place = Place::new();
    let (given, taken) = (
        place.directory.path().join("given.csv"),
        place.directory.path().join("taken.csv"),
    );
    let mut lines = vec!["jid,mechanism,iterations,salt,stored_key,server_key".to_owned()];
    let keys = |mechanism: &str, bytes: usize, n: usize| {
        let of = |salt: usize| base64(&[&n.to_be_bytes()[..], &vec![salt as u8; bytes - 8]].concat());
        format!(
            "{mechanism},{},{},{},{}",
            4096 + n,
            base64(&n.to_be_bytes()),
            of(1),
            of(2)
        )
    };
    for n in 0..ACCOUNTS {
        lines.push(format!("user{n}@localhost,{}", keys("SCRAM-SHA-256", 32, n)));
        if n % 3 == 0 {
            lines.push(format!("user{n}@localhost,{}", keys("SCRAM-SHA-1", 20, n)));
        }
    }
    fs::write(&given, format!("{}\n", lines.join("\n"))).unwrap();
    let broker = place.start();
    let imported = place.run(&["user", "import", given.to_str().unwrap()]).ok();
    assert_eq!(
        summary(&imported),
        format!("{ACCOUNTS} created, 0 replaced, 0 kept, 0 refused")
    );
    assert_eq!(imported.stderr, "", "a progress bar where there is no terminal");
    // They are durable.
    broker.end_with("KILL", Duration::from_secs(10));
    let _broker = place.start();

    let export = |flags: &[&str]| place.run(&[&["user", "export", taken.to_str().unwrap()], flags].concat());
    let exported = export(&[]).ok();
    assert!(
        exported.stdout.starts_with(&format!("{ACCOUNTS} accounts in ")),
        "{exported:?}"
    );
    assert_eq!(fs::metadata(&taken).unwrap().permissions().mode() & 0o777, 0o600);
    let read = |file: &std::path::Path| {
        let text = fs::read_to_string(file).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[1..].sort_unstable();
        lines
    };
    lines[1..].sort_unstable();
    assert!(read(&taken) == lines, "what was exported is not what was imported");
    let again = export(&[]);
    assert_eq!(again.code, Some(2), "a file was replaced without --force: {again:?}");
    export(&["--force", "--prefix", "user12"]).ok();
    let wanted = lines
        .iter()
        .filter(|line| line.starts_with("jid,") || line.starts_with("user12"));
    assert!(read(&taken) == wanted.cloned().collect::<Vec<_>>());
    let back = place.run(&["user", "import", given.to_str().unwrap()]).ok();
    assert_eq!(
        summary(&back),
        format!("0 created, 0 replaced, {ACCOUNTS} kept, 0 refused")
    );
    let to_stdout = place.run(&["user", "export", "-", "--prefix", "user7@"]).ok().stdout;
    assert_eq!(to_stdout.lines().count(), 2, "{to_stdout}");

    let count = |flags: &[&str]| place.run(&[&["user", "list", "--count"], flags].concat()).ok().stdout;
    assert_eq!(count(&[]), format!("{ACCOUNTS}\n"));
    assert_eq!(count(&["--prefix", "user12"]), "111\n");
    assert_eq!(count(&["--domain", "elsewhere.example"]), "0\n");
    let json = place
        .run(&["user", "list", "--json", "--prefix", "user12@"])
        .ok()
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["jid"], "user12@localhost");
    assert_eq!(
        json[0]["mechanisms"],
        serde_json::json!(["SCRAM-SHA-256", "SCRAM-SHA-1"])
    );
    let none = place.run(&["user", "list", "--json", "--prefix", "nobody"]).ok().stdout;
    assert_eq!(none, "[]\n");
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[test]
fn accounts_survive_an_orderly_end_within_ten_seconds() {
    let place = Place::new();
    for signal in ["TERM", "INT"] {
        let broker = place.start();
        place
            .run(&[
                "user",
                "add",
                &format!("{}@localhost", signal.to_lowercase()),
                "--password",
                "p",
            ])
            .ok();
        broker.end_with(signal, Duration::from_secs(10)).ok();
    }
    let _broker = place.start();
    let listed = place.run(&["user", "list"]).ok().stdout;
    let mut names: Vec<_> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["int@localhost", "term@localhost"]);
}

#[test]
fn the_first_line_says_where_clients_connect_and_the_rest_what_to_do_next() {
    let place = Place::new();
    let broker = place.start();
    let ip = place.ip;
    assert_eq!(
        broker.ready,
        format!("heronry: ready, c2s {ip}:5222, c2s_tls {ip}:5223, admin {ip}:5280\n")
    );
    for port in [5222, 5223, 5280] {
        std::net::TcpStream::connect((ip, port)).unwrap();
    }
    let ended = broker.end_with("TERM", Duration::from_secs(10)).ok();
    for hint in [
        "user add juliet@localhost --data ",
        " status --data ",
        "/metrics",
        "Ctrl-C",
    ] {
        assert!(ended.stdout.contains(hint), "{hint} is not in {}", ended.stdout);
    }
    assert!(
        ended.stderr.contains("nobody vouches for"),
        "a self-signed certificate is not mentioned: {}",
        ended.stderr
    );
}

#[test]
fn status_of_a_healthy_broker_is_0_in_words_and_in_json() {
    let place = Place::new();
    let _broker = place.start();
    let text = place.run(&["status"]).ok().stdout;
    assert!(text.starts_with("healthy\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&place.run(&["status", "--json"]).ok().stdout).unwrap();
    assert_eq!(json["health"], "healthy");
    assert_eq!(json["domains"][0], "localhost");
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file() {
    let place = Place::new();
    let file = place.directory.path().join("h.toml");
    fs::write(
        &file,
        "domains = ['file.example']\n[tls]\nrequired = false\n[auth]\nmechanisms = 'SCRAM-SHA-1'\n",
    )
    .unwrap();
    let show = |flags: &[&str]| {
        let mut command = heronry(&["config", "show", "--config", file.to_str().unwrap()]);
        command
            .args(flags)
            .env("HERONRY_DOMAINS", "env.example,two.example")
            .env("HERONRY_TLS__REQUIRED", "true");
        toml::from_str::<toml::Table>(&ended(command.output().unwrap()).ok().stdout).unwrap()
    };
    let shown = show(&[]);
    assert_eq!(shown["domains"], toml::Value::from(vec!["env.example", "two.example"]));
    assert_eq!(shown["tls"]["required"], toml::Value::from(true));
    assert_eq!(shown["auth"]["mechanisms"], toml::Value::from(vec!["SCRAM-SHA-1"]));
    assert_eq!(shown["admin"]["listen"], toml::Value::from("127.0.0.1:5280"));
    let shown = show(&["--set", "domains=flag.example", "--data", "/flag"]);
    assert_eq!(shown["domains"], toml::Value::from(vec!["flag.example"]));
    assert_eq!(shown["storage"]["data"], toml::Value::from("/flag"));
}

#[test]
fn what_config_show_prints_passes_config_check() {
    let place = Place::new();
    let shown = ended(heronry(&["config", "show"]).output().unwrap()).ok().stdout;
    let file = place.directory.path().join("shown.toml");
    fs::write(&file, shown).unwrap();
    let checked = ended(heronry(&["config", "check", file.to_str().unwrap()]).output().unwrap()).ok();
    assert_eq!(checked.stdout, format!("{}: ok\n", file.display()));
}

#[test]
fn the_token_and_the_data_directory_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let _broker = place.start();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.data()), 0o700);
    assert_eq!(mode(place.data().join("admin.token")), 0o600);
    assert_eq!(mode(place.data().join("tls/self-signed.key")), 0o600);
}

#[test]
fn log_lines_are_json_when_asked_for() {
    let place = Place::new();
    let broker = place.start_with(&["--log-format", "json"]);
    let ended = broker.end_with("TERM", Duration::from_secs(10)).ok();
    let lines: Vec<serde_json::Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "stopping" && line["signal"] == "SIGTERM"),
        "{lines:?}"
    );
}
