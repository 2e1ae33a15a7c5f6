//! What operators see of a run: metrics that pass promtool's lint, log lines without secrets, traces.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use heronry_node::telemetry::metrics;

use crate::{
    load::{self, BODY, Load, PASSWORD},
    process::{Place, ended},
};

/// The metrics of a page: name to type, from its `# TYPE` lines.
fn types(page: &str) -> BTreeMap<&str, &str> {
    let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    declared.map(|line| line.split_once(' ').unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_pass_promtools_lint_and_each_is_described_and_documented() {
    let place = Place::new();
    let _broker = place.start();
    load::accounts(&place);
    let mut load = Load::begin(&place).await;
    load.some().await;
    // A device that leaves is gone a moment later.
    let page = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let page = load::page(&place, "/metrics").await;
            if page.contains("edge_connections{phase=\"bound\"} 2\n") {
                break page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let page = page.await.expect("two devices are connected");
    let documented: BTreeMap<_, _> = metrics::all().map(|metric| (metric.name, metric)).collect();
    let types = types(&page);
    assert!(types.len() > 50, "{types:?}");
    for (name, kind) in &types {
        let metric = documented
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(metric.kind.name(), *kind, "{name}");
        let help = format!("# HELP {name} {}", metric.help);
        assert!(page.lines().any(|line| line == help), "{name} is not described");
    }
    for name in [
        "edge_connections",
        "edge_tls_handshake_seconds",
        "shard_stanzas_total",
        "shard_sessions",
        "shard_replicas",
        "raft_entries_committed_total",
        "shard_commit_seconds",
        "storage_fsync_seconds",
        "storage_rocksdb_table_bytes",
        "disk_free_bytes",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "edge_authentications_total",
    ] {
        assert!(types.contains_key(name), "{name} is not there");
    }
    assert!(page.contains("shard_replicas{role=\"leader\"} 16\n"), "{page}");
    for secret in ["juliet", "localhost", BODY, PASSWORD] {
        assert!(!page.contains(secret), "metrics name {secret}");
    }

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not installed: tools/prometheus.sh installs it");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = ended(promtool.wait_with_output().unwrap());
    assert_eq!(
        (checked.code, checked.stdout.as_str(), checked.stderr.as_str()),
        (Some(0), "", "")
    );
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_say_much_and_no_secrets_whatever_the_filter() {
    for format in ["text", "json"] {
        let place = Place::new().with(&["--set=log.filter=trace", &format!("--set=log.format={format}")]);
        let broker = place.start();
        load::accounts(&place);
        let file = place.directory.path().join("accounts.csv");
        std::fs::write(&file, format!("jid,password\nfriar@localhost,{PASSWORD}\n")).unwrap();
        place.run(&["user", "import", file.to_str().unwrap()]).ok();
        let mut load = Load::begin(&place).await;
        load.some().await;
        load.end().await;
        let token = place.token();
        let exported = place.run(&["user", "export", "-", "--prefix", "juliet"]).ok().stdout;
        let keys = exported.lines().skip(1).flat_map(|line| line.split(',').skip(3));
        let keys: Vec<_> = keys.map(str::to_owned).collect();
        assert!(keys.len() >= 3, "{exported}");
        let ended = broker.end_with("TERM", Duration::from_secs(10)).ok();
        let lines = ended.stderr.lines().count();
        assert!(lines > 100, "the filter lets nothing pass: {lines} lines");
        if format == "json" {
            for line in ended.stderr.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
            }
        }
        let bare = PASSWORD.as_bytes();
        let base64 = crate::commands::base64(&[b"\0juliet\0", bare].concat());
        let secrets = [PASSWORD.to_owned(), BODY.to_owned(), token, base64];
        for secret in secrets.iter().chain(&keys) {
            let line = ended.stderr.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_serve_logins_says_why() {
    let place = Place::new();
    let broker = place.start();
    assert_eq!(load::page(&place, "/healthz").await, "ok\n");
    assert_eq!(load::page(&place, "/readyz").await, "ready\n");
    let status = place.run(&["status"]).ok().stdout;
    for row in [
        "healthy\n",
        "\nstreams   0 of at most ",
        "\nmemory    ",
        "\nfiles     ",
        "\ndisk      ",
    ] {
        assert!(status.contains(row), "{row:?} is not in {status}");
    }
    drop(broker);
    let unreachable = place.run(&["status", "--json"]);
    assert_eq!(unreachable.code, Some(2), "{unreachable:?}");
    let json: serde_json::Value = serde_json::from_str(&unreachable.stdout).unwrap();
    assert_eq!(json["health"], "unreachable");
    let deaf = Place::new().with(&["--set=edge.c2s=", "--set=edge.c2s_tls="]);
    let _broker = deaf.start();
    let degraded = deaf.run(&["status"]);
    assert_eq!(degraded.code, Some(1), "{degraded:?}");
    assert!(
        degraded
            .stdout
            .starts_with("degraded\n  - there is no listener for clients"),
        "{degraded:?}"
    );
}
