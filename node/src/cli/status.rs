//! `heronry status [--json]`.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use bytesize::ByteSize;
use clap::Args;
use heronry_proto::admin::{Health, Resources, ShardRole, ShardStatus, StatusReply, StatusRequest, Totals};
use serde_json::{Value, json};

use super::{Failure, client, say};
use crate::config::Loaded;

const DEGRADED: u8 = 1;
const UNREACHABLE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// 0 healthy, 1 degraded, 2 when nobody could be asked, for whatever reason.
pub(super) fn run(args: &StatusArgs, loaded: Result<Loaded, Failure>) -> ExitCode {
    let asked = loaded.and_then(|loaded| {
        client::ask(&loaded.config, async |admin| {
            Ok(admin.status(StatusRequest {}).await?.into_inner())
        })
    });
    let status = match asked {
        Ok(status) => status,
        Err(failure) => {
            if args.json {
                say(json!({ "health": "unreachable", "problems": [failure.sentence] }));
            }
            return Failure {
                code: UNREACHABLE,
                ..failure
            }
            .report();
        }
    };
    say(if args.json {
        format!("{:#}", as_json(&status))
    } else {
        as_text(&status)
    });
    ExitCode::from(if status.health() == Health::Healthy {
        0
    } else {
        DEGRADED
    })
}

fn health(status: &StatusReply) -> &'static str {
    match status.health() {
        Health::Healthy => "healthy",
        Health::Degraded | Health::Unspecified => "degraded",
    }
}

fn role(shard: &ShardStatus) -> &'static str {
    match shard.role() {
        ShardRole::Leader => "leader",
        ShardRole::CatchingUp => "catching-up",
        ShardRole::Follower => "follower",
        ShardRole::Failed => "failed",
        ShardRole::Unspecified => "unknown",
    }
}

fn as_json(status: &StatusReply) -> Value {
    let totals = status.totals.unwrap_or_default();
    let resources = status.resources.unwrap_or_default();
    let shards = status.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard,
            "role": role(shard),
            "term": shard.term,
            "leader": shard.leader.map(node_name),
            "sessions": shard.sessions,
            "sessions_detached": shard.sessions_detached,
            "queued": shard.queued,
            "applied": shard.applied,
        })
    });
    json!({
        "health": health(status),
        "problems": status.problems,
        "node": node_name(status.node_id),
        "version": status.version,
        "roles": status.roles,
        "domains": status.domains,
        "uptime_seconds": status.uptime_seconds,
        "streams": totals.streams,
        "sessions": totals.sessions,
        "sessions_detached": totals.sessions_detached,
        "stanzas_accepted": totals.stanzas_accepted,
        "entries_committed": totals.entries_committed,
        "batches_committed": totals.batches_committed,
        "streams_max": resources.streams_max,
        "cpu_seconds": resources.cpu_seconds,
        "memory_bytes": resources.memory_bytes,
        "files_open": resources.files_open,
        "files_max": resources.files_max,
        "disk_free_bytes": resources.disk_free_bytes,
        "disk_size_bytes": resources.disk_size_bytes,
        "shards": shards.collect::<Vec<_>>(),
    })
}

fn as_text(status: &StatusReply) -> String {
    let totals: Totals = status.totals.unwrap_or_default();
    let resources: Resources = status.resources.unwrap_or_default();
    let mut out = String::new();
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let _ = writeln!(out, "{}", health(status));
    for problem in &status.problems {
        let _ = writeln!(out, "  - {problem}");
    }
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name:<10}{value}");
    };
    row(
        "node",
        &format_args!(
            "{} ({}), heronry {}, up {uptime}",
            node_name(status.node_id),
            status.roles.join(" + "),
            status.version
        ),
    );
    row("domains", &status.domains.join(", "));
    row("streams", &of_which(totals.streams, resources.streams_max));
    row(
        "sessions",
        &format_args!("{}, {} of them detached", totals.sessions, totals.sessions_detached),
    );
    row("accepted", &format_args!("{} stanzas", totals.stanzas_accepted));
    row(
        "committed",
        &format_args!(
            "{} batches in {} entries",
            totals.batches_committed, totals.entries_committed
        ),
    );
    let cpu = humantime::format_duration(Duration::from_secs(resources.cpu_seconds as u64));
    row(
        "memory",
        &format_args!("{}, {cpu} of processor time", bytes(resources.memory_bytes)),
    );
    row("files", &of_which(resources.files_open, resources.files_max));
    row(
        "disk",
        &format_args!(
            "{} of {} are free",
            bytes(resources.disk_free_bytes),
            bytes(resources.disk_size_bytes)
        ),
    );
    let led = status
        .shards
        .iter()
        .filter(|shard| shard.role() == ShardRole::Leader)
        .count();
    row("shards", &format_args!("{} here, {led} led", status.shards.len()));
    // Only shards worth a look: the JSON form has all.
    for shard in status
        .shards
        .iter()
        .filter(|shard| !matches!(shard.role(), ShardRole::Leader | ShardRole::Follower))
    {
        let _ = writeln!(
            out,
            "  shard {:<4}{} in term {}, {} stanzas wait",
            shard.shard,
            role(shard),
            shard.term,
            shard.queued
        );
    }
    out.truncate(out.trim_end().len());
    out
}

/// So many of as many as there may be.
fn of_which(count: u64, max: u64) -> String {
    format!("{count} of at most {max}")
}

fn bytes(bytes: u64) -> impl std::fmt::Display {
    ByteSize(bytes).display().iec()
}

fn node_name(id: u64) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> StatusReply {
        let shard = |shard, role: ShardRole| ShardStatus {
            shard,
            role: role.into(),
            term: 3,
            queued: 2,
            ..ShardStatus::default()
        };
        StatusReply {
            node_id: 0xabc,
            version: "1.2.3".to_owned(),
            roles: vec!["edge".to_owned(), "core".to_owned()],
            domains: vec!["localhost".to_owned()],
            uptime_seconds: 61,
            health: Health::Degraded.into(),
            problems: vec!["shard 1 is catching up".to_owned()],
            shards: vec![shard(0, ShardRole::Leader), shard(1, ShardRole::CatchingUp)],
            totals: Some(Totals {
                streams: 5,
                sessions: 4,
                sessions_detached: 1,
                ..Totals::default()
            }),
            resources: Some(Resources {
                cpu_seconds: 7.25,
                memory_bytes: 50 << 20,
                files_open: 40,
                files_max: 20_000,
                streams_max: 19_000,
                disk_free_bytes: 80 << 30,
                disk_size_bytes: 250 << 30,
            }),
        }
    }

    #[test]
    fn text_is_for_people() {
        expect_test::expect![[r#"
            degraded
              - shard 1 is catching up
            node      0000000000000abc (edge + core), heronry 1.2.3, up 1m 1s
            domains   localhost
            streams   5 of at most 19000
            sessions  4, 1 of them detached
            accepted  0 stanzas
            committed 0 batches in 0 entries
            memory    50.0 MiB, 7s of processor time
            files     40 of at most 20000
            disk      80.0 GiB of 250.0 GiB are free
            shards    2 here, 1 led
              shard 1   catching-up in term 3, 2 stanzas wait"#]]
        .assert_eq(&as_text(&reply()));
    }

    #[test]
    fn json_has_every_shard() {
        let json = as_json(&reply());
        assert_eq!(json["health"], "degraded");
        assert_eq!(json["shards"][1]["role"], "catching-up");
        assert_eq!(json["shards"][1]["leader"], Value::Null);
        assert_eq!(json["node"], "0000000000000abc");
    }
}
