//! The node as a member of its cluster: what the cluster says reaches edge and shards, what they say reaches other nodes.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use heronry_cluster::{
    PeerId,
    map::{ClusterMap, METADATA, Newcomer, Roles},
    member::{Drawn, Member, MemberError, MemberOptions, Neighbours, WeakMember},
    transport::{Net, Pem, Security, TransportError, TransportLimits},
};
use heronry_xmpp::{
    link::{EdgeId, NodeId, ShardId},
    random::Random as _,
};
use tokio::{runtime::Handle, sync::watch};

use super::{accounts::Accounts, edge_part::EdgePart, leaving, machine::Machine, peering::Peering};
use crate::{
    StartError,
    clock::SystemRandom,
    config::{Config, Role},
    edge::Hub,
    links::Links,
};

/// How often the cluster is told of connections.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The highest feature level this program knows.
pub(super) const FEATURE_LEVEL: u32 = heronry_xmpp::shard::FEATURE_LEVEL;

/// In builds with debug assertions, this variable of the environment names another level: a test can have the program that comes after this one
/// in its cluster.
const NEXT_FEATURE_LEVEL: &str = "NEXT_HERONRY_FEATURE_LEVEL";

/// A process whose link is broken for so long, and which does not answer otherwise, counts as dead: its sockets are gone.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Makes the process a member, or one that waits to become one.
pub(super) async fn start<N: Net>(
    config: &Config,
    machine: Machine<N>,
    own: EdgeId,
    peering: &Peering,
    edge_part: &EdgePart,
    hub: &Arc<Hub>,
    accounts: &Arc<Accounts>,
) -> Result<Member, StartError> {
    let options = options(config, &machine)?;
    let mut cluster = [0; 16];
    SystemRandom.fill(&mut cluster);
    let drawn = Drawn {
        start: own.start,
        cluster: u128::from_be_bytes(cluster),
    };
    let told = Arc::new(Told {
        peering: peering.clone(),
        accounts: Arc::clone(accounts),
        member: OnceLock::new(),
    });
    // What a node without shards does for devices and what it says to other nodes are done by the same threads: it has no Raft to be kept apart.
    let links = match config.roles.contains(&Role::Core) {
        true => Handle::current(),
        false => edge_part.threads.handle()?,
    };
    let started = links.spawn(Member::start(
        machine.net,
        machine.store,
        drawn,
        options,
        Arc::clone(&told) as _,
    ));
    let started = started
        .await
        .map_err(|error| StartError::Failed(format!("the links did not start: {error}")))?;
    let member = started.map_err(|error| match error {
        MemberError::Store(error) | MemberError::Groups(heronry_cluster::StartError::Store(error)) => {
            StartError::store(config.data(), error)
        }
        MemberError::Transport(TransportError::Listen { address, error }) => StartError::Listen {
            key: "peer.listen",
            address,
            error,
        },
        MemberError::Transport(TransportError::Security(sentence)) => StartError::Tls(sentence),
        error => StartError::Failed(format!("the node cannot be a member of a cluster: {error}")),
    })?;
    // Nothing was told before there was a link, and there is none before this node is a member.
    let _ = told.member.set(member.downgrade());
    accounts.belong_to(member.downgrade());
    peering.go_over(Arc::new(MemberLinks(member.downgrade())));
    tokio::spawn(follow(member.downgrade(), peering.clone()));
    tokio::spawn(name_traces(member.map(), Arc::clone(hub)));
    tokio::spawn(count(member.downgrade(), Arc::clone(hub)));
    tokio::spawn(leaving::follow(member.downgrade(), Arc::clone(&edge_part.edge)));
    Ok(member)
}

fn options<N: Net>(config: &Config, machine: &Machine<N>) -> Result<MemberOptions, StartError> {
    let groups = machine.groups(config.limits.group_options());
    let peer = &config.peer;
    if peer.seeds.is_empty() {
        let (found, configured) = (
            machine
                .store
                .shards(groups.shards)
                .map_err(|error| StartError::store(config.data(), error))?,
            groups.shards,
        );
        if found != configured {
            let error = heronry_cluster::StartError::Shards { found, configured };
            return Err(StartError::Failed(format!("the groups cannot be started: {error}")));
        }
    }
    let file = |path: &Option<std::path::PathBuf>| path.clone().map(Pem::File);
    let security = match (file(&peer.certificate), file(&peer.key), file(&peer.ca)) {
        (Some(certificate), Some(key), Some(ca)) => Security::Mtls { certificate, key, ca },
        _ => Security::Plain,
    };
    let address = peer
        .advertise
        .clone()
        .or_else(|| peer.listen.map(|listen| listen.to_string()));
    let reachable = peer.listen.is_some_and(|listen| !is_loopback(listen.ip()));
    if matches!(security, Security::Plain) && reachable {
        tracing::warn!("links between nodes are neither encrypted nor authenticated, as peer.insecure allows");
    }
    Ok(MemberOptions {
        me: Newcomer {
            node: machine.store.node_id(),
            roles: Roles {
                edge: config.roles.contains(&Role::Edge),
                core: config.roles.contains(&Role::Core),
            },
            // A node without a port for others has no others; an address is needed all the same.
            address: address.unwrap_or_else(|| "nowhere".to_owned()),
            zone: peer.zone.clone(),
            feature_level: machine.feature_level,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: leaving::services(&config.edge),
        },
        cluster_name: peer.cluster.clone(),
        seeds: peer.seeds.clone(),
        bootstrap: peer.bootstrap,
        listen: peer.listen,
        security,
        groups,
        transport: TransportLimits {
            certificate_check_interval: config.tls.check_interval,
            ..config.limits.transport_limits()
        },
    })
}

/// The highest feature level that this program knows.
pub(super) fn feature_level() -> u32 {
    let next = cfg!(debug_assertions).then(|| std::env::var(NEXT_FEATURE_LEVEL).ok());
    next.flatten()
        .and_then(|level| level.parse().ok())
        .unwrap_or(FEATURE_LEVEL)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A process as edges and shards name it.
fn edge(peer: PeerId) -> EdgeId {
    EdgeId {
        node: NodeId(peer.node.0),
        start: peer.start,
    }
}

/// What other nodes say.
struct Told {
    peering: Peering,
    accounts: Arc<Accounts>,
    member: OnceLock<WeakMember>,
}

impl Neighbours for Told {
    fn message(&self, from: PeerId, message: Bytes) {
        self.peering.message(edge(from), message);
    }

    fn call(&self, from: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let accounts = Arc::clone(&self.accounts);
        Box::pin(async move { accounts.answer(from, request).await })
    }

    fn transfer(
        &self,
        from: PeerId,
        header: Bytes,
        chunks: BoxStream<'static, Result<Bytes, String>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        self.accounts.exports.take(from, header, chunks)
    }

    fn up(&self, peer: PeerId, again: bool) {
        self.peering.up(edge(peer), again);
    }

    fn down(&self, peer: PeerId) {
        self.peering.down(edge(peer));
        let (peering, member) = (self.peering.clone(), self.member.get().cloned());
        tokio::spawn(async move {
            // Until it is back, or known to be gone: it may answer pings yet and die later.
            loop {
                tokio::time::sleep(LOST_AFTER).await;
                let Some(member) = member.as_ref().and_then(WeakMember::upgrade) else {
                    return;
                };
                if member.is_gone(peer) {
                    return peering.lost(edge(peer));
                }
                if member.connected(peer.node).is_some() {
                    return;
                }
            }
        });
    }
}

/// The links to other nodes.
struct MemberLinks(WeakMember);

impl MemberLinks {
    fn member_is(&self, node: NodeId, holds: impl Fn(&heronry_cluster::map::Member) -> bool) -> bool {
        let Some(member) = self.0.upgrade() else { return false };
        let map = member.map();
        let map = map.borrow();
        let found = map
            .as_ref()
            .and_then(|map| map.nodes.get(&heronry_cluster::NodeId(node.0)));
        found.is_some_and(holds)
    }
}

impl Links for MemberLinks {
    fn send(&self, to: NodeId, frame: Bytes) -> bool {
        let member = self.0.upgrade();
        member.is_some_and(|member| member.send(heronry_cluster::NodeId(to.0), frame))
    }

    fn break_link(&self, to: NodeId) {
        if let Some(member) = self.0.upgrade() {
            member.break_link(heronry_cluster::NodeId(to.0));
        }
    }

    fn has_edge(&self, node: NodeId) -> bool {
        self.member_is(node, |member| member.roles.edge)
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.member_is(node, |member| member.state.is_present())
    }
}

/// Has all nodes of the cluster give a stanza's trace the same name.
async fn name_traces(mut map: watch::Receiver<Option<Arc<ClusterMap>>>, hub: Arc<Hub>) {
    // An error: the node has stopped before it was a member.
    if let Ok(map) = map.wait_for(Option::is_some).await
        && let Some(map) = &*map
    {
        hub.traces().belong_to(map.cluster);
    }
}

/// Says how many devices are connected: a node that is drained leaves when none is. For ever.
async fn count(weak: WeakMember, hub: Arc<Hub>) {
    while let Some(member) = weak.upgrade() {
        member.set_streams(hub.connections() as u64);
        drop(member);
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Gives replicas that come to this node their shards, and takes those away that go; for ever.
async fn follow(weak: WeakMember, peering: Peering) {
    let Some((mut groups, mut map)) = weak.upgrade().map(|member| (member.groups_changed(), member.map())) else {
        return;
    };
    let mut present = BTreeSet::<heronry_cluster::ShardId>::new();
    loop {
        let Some(member) = weak.upgrade() else { return };
        groups.borrow_and_update();
        let (others, level) = match &*map.borrow_and_update() {
            Some(map) => (Some(map.members().count()), map.feature_level),
            None => (None, 0),
        };
        peering.set_alone(others.is_none_or(|members| members <= 1));
        peering.set_feature_level(level);
        let mut here = member.groups().list();
        here.retain(|group| group.shard() != METADATA);
        let now: BTreeSet<_> = here.iter().map(|group| group.shard()).collect();
        for gone in present.difference(&now) {
            peering.remove_shard(ShardId(gone.0)).await;
        }
        for group in here.into_iter().filter(|group| !present.contains(&group.shard())) {
            if let Err(error) = peering.add_shard(group).await {
                tracing::error!(%error, "a replica has no actor");
            }
        }
        present = now;
        drop(member);
        tokio::select! {
            changed = groups.changed() => if changed.is_err() { return },
            changed = map.changed() => if changed.is_err() { return },
        }
    }
}
