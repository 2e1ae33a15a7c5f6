//! `[limits]`: every bound in the program, composed from the bounds of its parts, whose defaults are theirs.

use std::time::Duration;

use heronry_xmpp::xml;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `[limits]`: every bound in the program. What happens at a bound is said with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest stanza or other top-level element of a stream, after authentication. More ends the stream with
    /// `policy-violation` (RFC 6120 §4.9.3.14), as do the other bounds on XML.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Largest message between edge and core. More than `stanza_bytes_max`, less than `entry_bytes_max`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub frame_bytes_max: usize,
    /// Largest entry of a shard's log. What one stanza writes must fit.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub entry_bytes_max: usize,
    /// Deepest nesting of elements in a stanza.
    pub depth_max: u16,
    /// Most attributes of one element, namespace declarations included.
    pub attributes_max: u16,
    /// Longest name of an element or attribute, prefix included, in bytes.
    pub name_bytes_max: u16,
    /// Longest name of a namespace, in bytes.
    pub namespace_bytes_max: u16,
    /// Most namespace declarations in one stanza, repetitions included.
    pub namespaces_max: u16,
    /// Most child elements of one element.
    pub children_max: u32,
    /// Most connections of the admin port at a time; further ones wait.
    pub admin_connections_max: u16,
    /// How long ending may take after SIGTERM or SIGINT, at most `10s`. What has been acknowledged is committed already.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
    /// `[limits.before_auth]`
    pub before_auth: BeforeAuth,
    /// `[limits.group]`
    pub group: Group,
    /// `[limits.storage]`
    pub storage: Store,
    /// `[limits.rate]`
    pub rate: Rate,
}

/// `[limits.before_auth]`: what a stranger may send before it has authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BeforeAuth {
    /// Largest top-level element of a stream before authentication (RFC 6120 §13.12 asks for at least 10 000 bytes).
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub stanza_bytes_max: usize,
    /// Deepest nesting of elements before authentication.
    pub depth_max: u16,
    /// Most attributes of one element before authentication, namespace declarations included.
    pub attributes_max: u16,
    /// Longest name of an element or attribute before authentication, in bytes.
    pub name_bytes_max: u16,
    /// Longest name of a namespace before authentication, in bytes.
    pub namespace_bytes_max: u16,
    /// Most namespace declarations in one element before authentication.
    pub namespaces_max: u16,
    /// Most child elements of one element before authentication.
    pub children_max: u32,
}

/// `[limits.group]`: the Raft group of each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// What one shard may have proposed and not yet applied; beyond it stanzas that write get an error of type `wait`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub in_flight_bytes_max: usize,
    /// A shard's log that is larger loses its older half, as far as that is applied.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub log_bytes_max: usize,
    /// Applied entries that a shard keeps in memory for replicas that are a little behind.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub tail_bytes_max: usize,
    /// A write to the disk that takes longer is a stall: stanzas that write get an error of type `wait` until it ends.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub stall_after: Duration,
    /// How long a shutdown waits for proposals that are under way.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::Time")]
    pub shutdown_timeout: Duration,
}

/// `[limits.storage]`: memory, files and queues of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Memory for blocks read from disk.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub block_cache_bytes_max: usize,
    /// Memory for what is not in sorted files yet.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub write_buffer_bytes_max: usize,
    /// Larger write-ahead logs are written to sorted files; this bounds the time a start after a crash takes.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub wal_bytes_max: usize,
    /// Files the store keeps open; sockets need the rest of what the process may open.
    pub open_files_max: u32,
    /// What may wait for the log writer; beyond it stanzas that write get an error of type `wait`.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub queue_bytes_max: usize,
    /// The most that one write to the write-ahead log carries; more pending work is a further write.
    #[serde(with = "units::bytes")]
    #[schemars(with = "units::Bytes")]
    pub commit_bytes_max: usize,
}

/// `[limits.rate]`: how often something may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Switches all rate limits.
    pub enabled: bool,
}

impl Limits {
    /// The bounds on XML of authenticated peers.
    pub const fn xml(&self) -> xml::Limits {
        xml::Limits {
            stanza_bytes_max: self.stanza_bytes_max,
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            name_bytes_max: self.name_bytes_max,
            namespace_bytes_max: self.namespace_bytes_max,
            namespaces_max: self.namespaces_max,
            children_max: self.children_max,
        }
    }

    /// How shards' groups behave.
    pub fn group_options(&self) -> heronry_cluster::Options {
        heronry_cluster::Options {
            entry_bytes_max: self.entry_bytes_max,
            in_flight_bytes_max: self.group.in_flight_bytes_max,
            log_bytes_max: self.group.log_bytes_max,
            tail_bytes_max: self.group.tail_bytes_max,
            stall_after: self.group.stall_after,
            shutdown_timeout: self.group.shutdown_timeout,
            ..heronry_cluster::Options::default()
        }
    }

    /// How the store behaves.
    pub fn store_options(&self) -> heronry_storage::Options {
        heronry_storage::Options {
            block_cache_bytes: self.storage.block_cache_bytes_max,
            write_buffer_bytes: self.storage.write_buffer_bytes_max,
            wal_bytes_max: self.storage.wal_bytes_max as u64,
            open_files_max: self.storage.open_files_max,
            queue_bytes_max: self.storage.queue_bytes_max,
            commit_bytes_max: self.storage.commit_bytes_max,
            ..heronry_storage::Options::default()
        }
    }
}

impl BeforeAuth {
    /// The bounds on XML of strangers.
    pub const fn xml(&self) -> xml::Limits {
        xml::Limits {
            stanza_bytes_max: self.stanza_bytes_max,
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            name_bytes_max: self.name_bytes_max,
            namespace_bytes_max: self.namespace_bytes_max,
            namespaces_max: self.namespaces_max,
            children_max: self.children_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let xml = xml::Limits::after_auth();
        Self {
            stanza_bytes_max: xml.stanza_bytes_max,
            frame_bytes_max: 512 << 10,
            entry_bytes_max: heronry_cluster::Options::default().entry_bytes_max,
            depth_max: xml.depth_max,
            attributes_max: xml.attributes_max,
            name_bytes_max: xml.name_bytes_max,
            namespace_bytes_max: xml.namespace_bytes_max,
            namespaces_max: xml.namespaces_max,
            children_max: xml.children_max,
            admin_connections_max: 64,
            shutdown_timeout: Duration::from_secs(8),
            before_auth: BeforeAuth::default(),
            group: Group::default(),
            storage: Store::default(),
            rate: Rate::default(),
        }
    }
}

impl Default for BeforeAuth {
    fn default() -> Self {
        let xml = xml::Limits::before_auth();
        Self {
            stanza_bytes_max: xml.stanza_bytes_max,
            depth_max: xml.depth_max,
            attributes_max: xml.attributes_max,
            name_bytes_max: xml.name_bytes_max,
            namespace_bytes_max: xml.namespace_bytes_max,
            namespaces_max: xml.namespaces_max,
            children_max: xml.children_max,
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        let options = heronry_cluster::Options::default();
        Self {
            in_flight_bytes_max: options.in_flight_bytes_max,
            log_bytes_max: options.log_bytes_max,
            tail_bytes_max: options.tail_bytes_max,
            stall_after: options.stall_after,
            shutdown_timeout: options.shutdown_timeout,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        let options = heronry_storage::Options::default();
        Self {
            block_cache_bytes_max: options.block_cache_bytes,
            write_buffer_bytes_max: options.write_buffer_bytes,
            wal_bytes_max: usize::try_from(options.wal_bytes_max).unwrap_or(usize::MAX),
            open_files_max: options.open_files_max,
            queue_bytes_max: options.queue_bytes_max,
            commit_bytes_max: options.commit_bytes_max,
        }
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_parts() {
        let limits = Limits::default();
        assert_eq!(limits.xml(), xml::Limits::after_auth());
        assert_eq!(limits.before_auth.xml(), xml::Limits::before_auth());
        assert_eq!(limits.group_options(), heronry_cluster::Options::default());
        assert_eq!(limits.store_options(), heronry_storage::Options::default());
    }
}
