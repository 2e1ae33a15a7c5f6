//! Configuration: every key with its type, default and doc, and where its value came from.
//!
//! The structs below are the only place that names a key. [`keys`] reads names, docs, defaults and expected types out of
//! their schema; loading, `heronry config show` and `docs/configuration.md` are computed from that list.
//!
//! Precedence: flag, then environment, then file, then default. An unknown key is an error in each of them.

mod check;
pub mod keys;
mod limits;
mod load;
mod show;
mod units;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use heronry_xmpp::{
    jid::BareJid,
    sasl::{self, ScramHash, UnknownUsers},
    stream::{ResponderConfig, TlsPolicy},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::telemetry::LogFormat;

pub use self::{
    limits::{
        BeforeAuth, Edge as EdgeLimits, Group as GroupLimits, Limits, Rate, Shard as ShardLimits, Store as StoreLimits,
    },
    load::{ConfigError, Loaded, Source, Sources},
    show::{markdown, toml},
};

/// All of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The domains served: the part of an address after the `@`. The first is the default.
    #[schemars(with = "Vec<units::Domain>")]
    pub domains: Vec<String>,
    /// What this cluster node does: `edge` holds sockets, `core` holds shards.
    pub roles: Vec<Role>,
    /// `[edge]`
    pub edge: Edge,
    /// `[core]`
    pub core: Core,
    /// `[tls]`
    pub tls: Tls,
    /// `[auth]`
    pub auth: Auth,
    /// `[pubsub]`
    pub pubsub: Pubsub,
    /// `[admin]`
    pub admin: Admin,
    /// `[peer]`
    pub peer: Peer,
    /// `[storage]`
    pub storage: Storage,
    /// `[log]`
    pub log: Log,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[limits]`
    pub limits: Limits,
}

/// A role of a cluster node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Role {
    /// Holds sockets: listeners, TLS, framing, authentication.
    Edge,
    /// Holds shards: accounts, storage, Raft.
    Core,
}

/// `[edge]`: the sockets of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    /// Where clients connect, starting in the clear and upgrading with STARTTLS (RFC 6120 §5). An address or a list; an
    /// empty list opens none.
    #[schemars(with = "Vec<units::Address>")]
    pub c2s: Vec<SocketAddr>,
    /// Where clients connect with TLS from the first byte (XEP-0368). An address or a list; an empty list opens none.
    #[schemars(with = "Vec<units::Address>")]
    pub c2s_tls: Vec<SocketAddr>,
    /// The address at which devices reach this edge's `c2s`: a name or an IP address, with a port. When another edge is drained its devices are
    /// sent there (`see-other-host`, RFC 6120 §4.9.3.19); without it they find their own way.
    pub advertise: Option<String>,
    /// As `advertise`, of `c2s_tls`.
    pub advertise_tls: Option<String>,
    /// Whether devices are asked to resume their sessions at this very edge when a connection breaks (`location`, XEP-0198 §5): it
    /// still has what they have not acknowledged. They can resume at every edge; a device that finds this one dead loses the time of an attempt.
    pub location: bool,
    /// Threads that serve sockets, and links to other nodes where there are no shards. When not set: as many as the process may use processors.
    pub threads: Option<u16>,
}

/// `[core]`: accounts and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Core {
    /// Threads that evaluate stanzas. When not set: as many as the process may use processors.
    pub threads: Option<u16>,
}

/// `[tls]`: encryption of client connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether clients must use TLS before they authenticate.
    pub required: bool,
    /// File with the certificate chain (PEM), the server's own certificate first. Without it the broker signs one itself
    /// and keeps it in the data directory, which is good for trying out and nothing else.
    #[schemars(with = "Option<units::Path>")]
    pub certificate: Option<PathBuf>,
    /// File with the private key (PEM) of `certificate`.
    #[schemars(with = "Option<units::Path>")]
    pub key: Option<PathBuf>,
    /// The oldest version of TLS that is spoken: `1.2` or `1.3`. Of 1.2 only what RFC 9325 recommends: forward secrecy,
    /// authenticated encryption, extended master secret.
    pub min_version: TlsVersion,
    /// How often `certificate` and `key` are looked at. When they have changed, new connections see the new certificate and
    /// nobody is disconnected; what cannot be used is logged, and the former certificate stays. SIGHUP has them looked at at
    /// once.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub check_interval: Duration,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// `[auth]`: who may log in, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// SASL mechanisms offered. `PLAIN` is offered inside TLS only; SCRAM is also offered without TLS when `tls.required` is
    /// `false`. New accounts get keys for every SCRAM mechanism listed here. `ANONYMOUS` is not offered unless it
    /// is listed: it gives anybody a temporary account, which talks to others, stores nothing and is gone with its
    /// connection (XEP-0175).
    pub mechanisms: Vec<Mechanism>,
    /// The only domain whose clients are offered `ANONYMOUS`; one of `domains`. When not set: all of them.
    #[schemars(with = "Option<units::Domain>")]
    pub anonymous_domain: Option<String>,
    /// Whether anybody may make an account, change its password and remove it (XEP-0077). Offered without TLS only when
    /// `tls.required` is `false`; `limits.rate` says how often.
    pub registration: bool,
    /// Accounts that may administer the broker over XMPP.
    #[schemars(with = "Vec<units::BareJid>")]
    pub admins: Vec<String>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mechanism {
    /// RFC 7677's pattern with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 5802.
    #[serde(rename = "SCRAM-SHA-1")]
    ScramSha1,
    /// RFC 4616.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 4505.
    #[serde(rename = "ANONYMOUS")]
    Anonymous,
}

/// `[pubsub]`: publish-subscribe (XEP-0060).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pubsub {
    /// The label that makes a domain's pubsub service of the domain: `pubsub.example.org` is that of `example.org`. When empty there
    /// are none. Nodes of a service belong to its address, so another label finds none of them.
    pub service: String,
}

/// `[admin]`: the port for operators: health, metrics, and the Admin service that the command line uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where `/healthz`, `/readyz`, `/metrics` and the Admin service are. The first two and `/metrics` need no token.
    #[schemars(with = "units::Address")]
    pub listen: SocketAddr,
    /// DNS names by which this port may be addressed, besides `localhost` and every IP address. A request whose `Host` is
    /// another name is refused, so that a web page cannot reach the port through a name of its own.
    pub hosts: Vec<String>,
}

/// `[peer]`: the connections between cluster nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// What the cluster is called. Nodes of a cluster with another name are refused, and certificates must be for this name.
    pub cluster: String,
    /// Where this node stands, for example a rack or an availability zone: replicas of a shard are put into different zones, when there are enough.
    pub zone: String,
    /// Where other cluster nodes connect.
    #[schemars(with = "Option<units::Address>")]
    pub listen: Option<SocketAddr>,
    /// The address that other cluster nodes are told: a name or an IP address, with a port.
    pub advertise: Option<String>,
    /// Members to ask for admission. A node without seeds founds a cluster alone; a node with seeds never does.
    pub seeds: Vec<String>,
    /// Found a cluster together once this many nodes with empty disks have met.
    pub bootstrap: Option<u16>,
    /// File with the certificate chain (PEM) shown to other cluster nodes.
    #[schemars(with = "Option<units::Path>")]
    pub certificate: Option<PathBuf>,
    /// File with the private key (PEM) of `certificate`.
    #[schemars(with = "Option<units::Path>")]
    pub key: Option<PathBuf>,
    /// File with the authorities (PEM) that sign certificates of cluster nodes.
    #[schemars(with = "Option<units::Path>")]
    pub ca: Option<PathBuf>,
    /// Allows links between nodes without certificates also where other machines can reach `listen`.
    pub insecure: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            cluster: "heronry".to_owned(),
            zone: String::new(),
            listen: None,
            advertise: None,
            seeds: Vec::new(),
            bootstrap: None,
            certificate: None,
            key: None,
            ca: None,
            insecure: false,
        }
    }
}

/// `[storage]`: what survives a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The data directory. One process at a time uses it.
    #[schemars(with = "units::Path")]
    pub data: PathBuf,
}

/// `[log]`: lines on standard error. They carry no stanza bodies and no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines are written: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module such as
    /// `warn,heronry_node=debug`. `--log` of `heronry run` goes before it.
    pub filter: String,
    /// How they are written: `text` for people, `json` for machines, one object a line. `--log-format` goes before it.
    pub format: LogFormat,
}

/// `[telemetry]`: traces of stanzas, for OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where spans are sent, with OTLP over gRPC: `http://127.0.0.1:4317`, for example. When not set, nothing is traced, and that
    /// costs nothing.
    pub otlp_endpoint: Option<String>,
    /// Which part of stanzas is traced, from 0 to 1. A stanza is traced on its whole way or not at all.
    pub sampling_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domains: vec!["localhost".to_owned()],
            roles: vec![Role::Edge, Role::Core],
            edge: Edge::default(),
            core: Core::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            pubsub: Pubsub::default(),
            admin: Admin::default(),
            peer: Peer::default(),
            storage: Storage::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Pubsub {
    fn default() -> Self {
        Self {
            service: "pubsub".to_owned(),
        }
    }
}

impl Config {
    /// The domains of pubsub services.
    pub(crate) fn pubsub_services(&self) -> Vec<Box<str>> {
        let label = &self.pubsub.service;
        let domains = self.domains.iter().filter(|_| !label.is_empty());
        domains.map(|domain| format!("{label}.{domain}").into()).collect()
    }
}

impl Default for Edge {
    fn default() -> Self {
        let any = std::net::Ipv4Addr::UNSPECIFIED;
        Self {
            c2s: vec![(any, 5222).into()],
            c2s_tls: vec![(any, 5223).into()],
            advertise: None,
            advertise_tls: None,
            location: false,
            threads: None,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            required: true,
            certificate: None,
            key: None,
            min_version: TlsVersion::Tls12,
            check_interval: Duration::from_secs(60),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        use Mechanism::{Plain, ScramSha1, ScramSha256, ScramSha512};
        Self {
            mechanisms: vec![ScramSha512, ScramSha256, ScramSha1, Plain],
            anonymous_domain: None,
            registration: false,
            admins: Vec::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: (std::net::Ipv4Addr::LOCALHOST, 5280).into(),
            hosts: Vec::new(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./heronry-data"),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info,openraft=warn".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sampling_ratio: 0.01,
        }
    }
}

impl Role {
    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Core => "core",
        }
    }
}

impl Mechanism {
    /// The hash whose keys the mechanism needs; `None` for PLAIN, which is checked against any of them, and for ANONYMOUS.
    pub const fn scram_hash(self) -> Option<ScramHash> {
        match self {
            Self::ScramSha512 => Some(ScramHash::Sha512),
            Self::ScramSha256 => Some(ScramHash::Sha256),
            Self::ScramSha1 => Some(ScramHash::Sha1),
            Self::Plain | Self::Anonymous => None,
        }
    }
}

impl Auth {
    /// The hashes that new accounts get keys for.
    pub fn scram_hashes(&self) -> Vec<ScramHash> {
        let hashes: Vec<_> = self
            .mechanisms
            .iter()
            .filter_map(|mechanism| mechanism.scram_hash())
            .collect();
        // PLAIN alone is checked against keys, too.
        if hashes.is_empty() {
            vec![ScramHash::Sha512]
        } else {
            hashes
        }
    }
}

impl Config {
    /// The address a client on this machine uses for the admin port: an unspecified address means loopback.
    pub fn admin_address(&self) -> SocketAddr {
        let mut address = self.admin.listen;
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    /// How streams are negotiated; `unknown_users` answers for accounts that do not exist.
    pub fn responder(&self, unknown_users: UnknownUsers) -> ResponderConfig {
        // They have been prepared when the configuration was read.
        let domains = self
            .domains
            .iter()
            .filter_map(|domain| BareJid::new(None, domain).ok())
            .collect();
        let mechanisms = self
            .auth
            .mechanisms
            .iter()
            .flat_map(|mechanism| match (mechanism, mechanism.scram_hash()) {
                (_, Some(hash)) => vec![sasl::Mechanism::scram_plus(hash), sasl::Mechanism::scram(hash)],
                (Mechanism::Anonymous, None) => vec![sasl::Mechanism::Anonymous],
                (_, None) => vec![sasl::Mechanism::Plain],
            });
        let before_auth = &self.limits.before_auth;
        ResponderConfig {
            tls: if self.tls.required {
                TlsPolicy::Required
            } else {
                TlsPolicy::Optional
            },
            mechanisms: mechanisms.collect(),
            anonymous_domain: domain_of(self.auth.anonymous_domain.as_deref()),
            registration: self.auth.registration.then(|| self.auth.scram_hashes().into()),
            limits_before_auth: before_auth.xml(),
            limits_after_auth: self.limits.xml(),
            sasl_retries_max: before_auth.sasl_retries_max,
            bind_retries_max: before_auth.bind_retries_max,
            elements_max: before_auth.elements_max,
            ..ResponderConfig::new(domains, unknown_users)
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.storage.data
    }
}

/// A domain that was prepared when the configuration was read.
fn domain_of(name: Option<&str>) -> Option<BareJid> {
    name.and_then(|name| BareJid::new(None, name).ok())
}
