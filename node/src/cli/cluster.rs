//! `heronry cluster init|status|shards|drain|evict|rebalance|upgrade`.

use std::{fmt::Write as _, time::Duration};

use clap::{Args, Subcommand};
use heronry_proto::admin::{
    ClusterDrainRequest, ClusterEvictRequest, ClusterInitRequest, ClusterNode, ClusterNodeState, ClusterProgress,
    ClusterRebalanceRequest, ClusterShard, ClusterStatusReply, ClusterStatusRequest, ClusterUpgradeReply,
    ClusterUpgradeRequest,
};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    Failure,
    client::{self, Client},
    failure, progress, say,
};
use crate::config::Config;

/// How often it is looked how far a drain is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Found a cluster at this node, which waits to be let into one
    Init {
        /// Even if there may be another cluster
        #[arg(long)]
        force: bool,
    },
    /// The cluster at a glance, or what this node waits for
    Status(FormArgs),
    /// Where the shards are
    Shards(FormArgs),
    /// Have a node give away its shards, and leave
    Drain {
        #[command(flatten)]
        node: NodeArg,
        /// Wait until it has left
        #[arg(long)]
        wait: bool,
    },
    /// Say that a dead node never comes back: others get its replicas
    Evict {
        #[command(flatten)]
        node: NodeArg,
        /// Even if shards stop for it, or are lost
        #[arg(long)]
        force: bool,
    },
    /// Move replicas until every node has its share
    Rebalance,
    /// Let all members write what their new programs know, when every node has one; there is no way back
    Upgrade,
}

#[derive(Debug, Args)]
pub(super) struct FormArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NodeArg {
    /// The node's id, as much of its beginning as only it has, or its address
    node: String,
}

pub(super) fn run(command: ClusterCommand, config: &Config) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init { force } => init(force, config),
        ClusterCommand::Status(FormArgs { json }) => {
            let status = client::ask(config, ask)?;
            say(match json {
                true => format!("{:#}", as_json(&status)),
                false => as_text(&status),
            });
            Ok(())
        }
        ClusterCommand::Shards(FormArgs { json }) => shards(json, config),
        ClusterCommand::Drain { node, wait } => drain(node.node, wait, config),
        ClusterCommand::Evict { node, force } => {
            let request = ClusterEvictRequest { node: node.node, force };
            let evicted = client::ask(config, async |admin| admin.cluster_evict(request).await)?;
            say(format_args!("node {} is evicted", name(evicted.into_inner().node_id)));
            Ok(())
        }
        ClusterCommand::Upgrade => {
            let reply = client::ask(config, async |admin| {
                admin.cluster_upgrade(ClusterUpgradeRequest {}).await
            })?;
            let ClusterUpgradeReply { before, after } = reply.into_inner();
            say(match before == after {
                true => format!(
                    "the cluster is at feature level {after} already, the highest that this node's program knows"
                ),
                false => format!("the cluster was at feature level {before}, and is at {after} now"),
            });
            Ok(())
        }
        ClusterCommand::Rebalance => {
            client::ask(config, async |admin| {
                admin.cluster_rebalance(ClusterRebalanceRequest {}).await
            })?;
            say("replicas are moved until they are balanced: `heronry cluster status` says what is to do");
            Ok(())
        }
    }
}

async fn ask(admin: &mut Client) -> Result<ClusterStatusReply, Status> {
    Ok(admin.cluster_status(ClusterStatusRequest {}).await?.into_inner())
}

fn init(force: bool, config: &Config) -> Result<(), Failure> {
    let request = ClusterInitRequest { force };
    let reply = client::ask(config, async |admin| admin.cluster_init(request).await)?.into_inner();
    let (name, cluster) = (&reply.name, &reply.cluster);
    say(match reply.founded {
        true => format!("cluster {name} ({cluster}) begins at this node"),
        false => format!("this node is a member of cluster {name} ({cluster}) already"),
    });
    Ok(())
}

fn shards(json: bool, config: &Config) -> Result<(), Failure> {
    let status = client::ask(config, ask)?;
    if !status.waits_for.is_empty() {
        let sentence = format!("this node belongs to no cluster yet: {}", status.waits_for);
        return Err(Failure::new(failure::REFUSED, sentence));
    }
    say(match json {
        true => format!("{:#}", Value::Array(status.shards.iter().map(shard_as_json).collect())),
        false => shards_as_text(&status.shards),
    });
    Ok(())
}

fn drain(node: String, wait: bool, config: &Config) -> Result<(), Failure> {
    let request = ClusterDrainRequest { node };
    let reply = client::ask(config, async |admin| admin.cluster_drain(request).await)?.into_inner();
    let node = reply.node_id;
    if !reply.notice.is_empty() {
        say(&reply.notice);
    }
    if !wait {
        say(format_args!("node {} gives away what it has, and leaves", name(node)));
        return Ok(());
    }
    client::ask_for_long(config, async |admin| until_left(admin, node).await)?;
    say(format_args!("node {} has left", name(node)));
    Ok(())
}

/// Waits until a node that is drained has left the cluster.
async fn until_left(admin: &mut Client, id: u64) -> Result<(), Status> {
    let bar = progress::bar(Some(0));
    loop {
        let status = ask(admin).await?;
        let node = status.nodes.iter().find(|node| node.node_id == id);
        match node.map(ClusterNode::state) {
            Some(ClusterNodeState::ClusterNodeLeft) => {
                bar.finish_and_clear();
                return Ok(());
            }
            Some(ClusterNodeState::ClusterNodeEvicted) => {
                let sentence = format!("node {} was evicted before it had left", name(id));
                return Err(Status::failed_precondition(sentence));
            }
            _ => {}
        }
        let (replicas, streams) = node.map_or((0, 0), |node| (node.replicas, node.streams));
        let left = u64::from(replicas) + streams;
        // A node that has left is told nothing any more: that itself it cannot know, but that it has nothing, and nobody to talk to.
        let alone = !status.nodes.iter().any(|node| node.node_id != id && node.alive);
        if status.node_id == id && left == 0 && alone {
            bar.finish_and_clear();
            return Ok(());
        }
        // More may have come since: the bar does not go back.
        let total = bar.length().unwrap_or_default().max(left);
        bar.set_length(total);
        bar.set_position(total - left);
        bar.set_message(format!("{replicas} replicas, {streams} streams"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn name(id: u64) -> String {
    format!("{id:016x}")
}

fn names(ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| name(*id)).collect()
}

fn state(node: &ClusterNode) -> &'static str {
    match node.state() {
        ClusterNodeState::ClusterNodeActive => "active",
        ClusterNodeState::ClusterNodeDraining => "draining",
        ClusterNodeState::ClusterNodeLeft => "left",
        ClusterNodeState::ClusterNodeEvicted => "evicted",
        ClusterNodeState::Unspecified => "unknown",
    }
}

fn shard_name(shard: &ClusterShard) -> String {
    match shard.metadata {
        true => "metadata".to_owned(),
        false => shard.shard.to_string(),
    }
}

fn without_leader(status: &ClusterStatusReply) -> Vec<String> {
    let stopped = status.shards.iter().filter(|shard| shard.leader.is_none());
    stopped.map(shard_name).collect()
}

fn as_json(status: &ClusterStatusReply) -> Value {
    if !status.waits_for.is_empty() {
        return json!({ "node": name(status.node_id), "member": false, "waits_for": status.waits_for });
    }
    let nodes = status.nodes.iter().map(|node| {
        json!({
            "node": name(node.node_id),
            "roles": node.roles,
            "zone": node.zone,
            "address": node.address,
            "version": node.version,
            "feature_level": node.feature_level,
            "state": state(node),
            "alive": node.alive,
            "replicas": node.replicas,
            "leaderships": node.leaderships,
            "streams": node.streams,
        })
    });
    let progress = status.progress.unwrap_or_default();
    json!({
        "node": name(status.node_id),
        "member": true,
        "cluster": status.cluster,
        "name": status.name,
        "map_version": status.map_version,
        "feature_level": status.feature_level,
        "feature_level_known_to_all": level_known_to_all(status),
        "nodes": nodes.collect::<Vec<_>>(),
        "to_do": {
            "replicas_to_come": progress.replicas_to_come,
            "replicas_to_go": progress.replicas_to_go,
            "leaders_to_change": progress.leaders_to_change,
        },
        "without_leader": without_leader(status),
    })
}

fn shard_as_json(shard: &ClusterShard) -> Value {
    json!({
        "shard": shard_name(shard),
        "leader": shard.leader.map(name),
        "term": shard.term,
        "voters": names(&shard.voters),
        "learners": names(&shard.learners),
        "target": names(&shard.target),
    })
}

fn as_text(status: &ClusterStatusReply) -> String {
    if !status.waits_for.is_empty() {
        return format!("node      {}\n{}", name(status.node_id), status.waits_for);
    }
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10}{value}");
    };
    row("cluster", &format!("{} ({})", status.name, status.cluster));
    row(
        "map",
        &format!("version {}, {}", status.map_version, feature_level(status)),
    );
    row("to do", &to_do(status.progress.unwrap_or_default()));
    let stopped = without_leader(status);
    if !stopped.is_empty() {
        row("stopped", &format!("without a leader: {}", stopped.join(", ")));
    }
    let nodes = status.nodes.iter().map(|node| {
        let member = matches!(
            node.state(),
            ClusterNodeState::ClusterNodeActive | ClusterNodeState::ClusterNodeDraining
        );
        let alive = match (node.alive, member) {
            (true, _) => "yes",
            (false, true) => "NO",
            (false, false) => "-",
        };
        vec![
            name(node.node_id),
            state(node).to_owned(),
            alive.to_owned(),
            node.roles.join("+"),
            or_dash(&node.zone),
            node.address.clone(),
            node.version.clone(),
            node.replicas.to_string(),
            node.leaderships.to_string(),
            node.streams.to_string(),
        ]
    });
    let header = "node state alive roles zone address version replicas leads streams";
    out.push('\n');
    out.push_str(&table(header, nodes));
    out
}

/// The cluster's feature level, and what it can be.
fn feature_level(status: &ClusterStatusReply) -> String {
    let now = status.feature_level;
    match level_known_to_all(status) {
        Some(known) if known > now => {
            format!("feature level {now}: all members know {known}, `heronry cluster upgrade` raises it")
        }
        _ => format!("feature level {now}"),
    }
}

/// The highest feature level that every member's program knows.
fn level_known_to_all(status: &ClusterStatusReply) -> Option<u32> {
    let members = status.nodes.iter().filter(|node| {
        matches!(
            node.state(),
            ClusterNodeState::ClusterNodeActive | ClusterNodeState::ClusterNodeDraining
        )
    });
    members.map(|node| node.feature_level).min()
}

fn shards_as_text(shards: &[ClusterShard]) -> String {
    let rows = shards.iter().map(|shard| {
        vec![
            shard_name(shard),
            shard.leader.map_or_else(|| "NONE".to_owned(), name),
            shard.term.to_string(),
            or_dash(&names(&shard.voters).join(",")),
            or_dash(&names(&shard.learners).join(",")),
            or_dash(&names(&shard.target).join(",")),
        ]
    });
    table("shard leader term voters learners target", rows)
}

fn to_do(progress: ClusterProgress) -> String {
    let ClusterProgress {
        replicas_to_come,
        replicas_to_go,
        leaders_to_change,
    } = progress;
    if progress == ClusterProgress::default() {
        return "nothing".to_owned();
    }
    format!("{replicas_to_come} replicas to come, {replicas_to_go} to go, {leaders_to_change} leaders to change")
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// Columns as wide as they have to be, without a line end after the last row.
fn table(header: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let header = header.split(' ').map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> ClusterStatusReply {
        let node = |node_id, state: ClusterNodeState, alive| ClusterNode {
            node_id,
            roles: vec!["edge".to_owned(), "core".to_owned()],
            zone: if alive { "a".to_owned() } else { String::new() },
            address: format!("10.0.0.{node_id}:5269"),
            version: "1.2.3".to_owned(),
            state: state.into(),
            alive,
            replicas: 2,
            ..ClusterNode::default()
        };
        let shard = |shard, leader| ClusterShard {
            shard,
            leader,
            metadata: shard == 65535,
            term: 4,
            voters: vec![1, 2],
            target: vec![1, 2],
            ..ClusterShard::default()
        };
        ClusterStatusReply {
            node_id: 1,
            cluster: "00ff".to_owned(),
            name: "heronry".to_owned(),
            map_version: 12,
            feature_level: 1,
            nodes: vec![
                node(1, ClusterNodeState::ClusterNodeActive, true),
                node(2, ClusterNodeState::ClusterNodeDraining, false),
                node(3, ClusterNodeState::ClusterNodeEvicted, false),
            ],
            shards: vec![shard(0, Some(1)), shard(65535, None)],
            progress: Some(ClusterProgress {
                replicas_to_come: 1,
                ..ClusterProgress::default()
            }),
            ..ClusterStatusReply::default()
        }
    }

    #[test]
    fn text_is_for_people() {
        expect_test::expect![[r#"
            cluster   heronry (00ff)
            map       version 12, feature level 1
            to do     1 replicas to come, 0 to go, 0 leaders to change
            stopped   without a leader: metadata

            node              state     alive  roles      zone  address        version  replicas  leads  streams
            0000000000000001  active    yes    edge+core  a     10.0.0.1:5269  1.2.3    2         0      0
            0000000000000002  draining  NO     edge+core  -     10.0.0.2:5269  1.2.3    2         0      0
            0000000000000003  evicted   -      edge+core  -     10.0.0.3:5269  1.2.3    2         0      0"#]]
        .assert_eq(&as_text(&reply()));
        expect_test::expect![[r#"
            shard     leader            term  voters                             learners  target
            0         0000000000000001  4     0000000000000001,0000000000000002  -         0000000000000001,0000000000000002
            metadata  NONE              4     0000000000000001,0000000000000002  -         0000000000000001,0000000000000002"#]].assert_eq(&shards_as_text(&reply().shards));
    }

    #[test]
    fn json_names_what_has_no_leader() {
        let json = as_json(&reply());
        assert_eq!(json["without_leader"], json!(["metadata"]));
        assert_eq!(json["nodes"][1]["state"], "draining");
        assert_eq!(json["to_do"]["replicas_to_come"], 1);
        assert_eq!(shard_as_json(&reply().shards[1])["leader"], Value::Null);
    }

    #[test]
    fn a_node_that_waits_says_only_that() {
        let reply = ClusterStatusReply {
            node_id: 7,
            waits_for: "waiting for a friend".to_owned(),
            ..ClusterStatusReply::default()
        };
        assert_eq!(as_text(&reply), "node      0000000000000007\nwaiting for a friend");
        assert_eq!(as_json(&reply)["member"], false);
    }
}
