//! The domain name system; the only file that knows the resolver.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use tokio::net::lookup_host;

use super::{place::Encryption, service::Record};

/// Records taken from one answer. An answer has no bound of its own but the 64 KiB of a DNS message.
const RECORDS_MAX: usize = 32;

/// What the domain name system says about a service.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is there.
    Records(Vec<Record>),
    /// The service is decidedly not available at the domain: the target is the root (RFC 2782).
    Refused,
    /// Nothing is said, or nobody says anything.
    Nothing,
}

/// Who is asked.
pub(super) enum Names {
    /// The name servers of the operating system, and its own ways of finding addresses.
    System,
    /// These name servers, for everything.
    Servers(Vec<SocketAddr>),
}

impl Names {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        match servers {
            [] => Self::System,
            servers => Self::Servers(servers.to_vec()),
        }
    }

    /// The records of a service, `xmpp-client` or `xmpps-client`, of a domain.
    pub(super) async fn service(&self, service: &str, domain: &str, encryption: Encryption) -> Answer {
        let Ok(resolver) = self.resolver() else {
            return Answer::Nothing;
        };
        // Fully qualified, so that no search domain is tried.
        let name = format!("_{service}._tcp.{}.", domain.trim_end_matches('.'));
        let lookup = match resolver.srv_lookup(name).await {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::debug!(%error, service, domain, "no service records");
                return Answer::Nothing;
            }
        };
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        let records: Vec<_> = records
            .take(RECORDS_MAX)
            .map(|srv| Record {
                priority: srv.priority,
                weight: srv.weight,
                target: srv.target.to_ascii(),
                port: srv.port,
                encryption,
            })
            .collect();
        match &records[..] {
            [] => Answer::Nothing,
            [only] if only.target == "." => Answer::Refused,
            _ => Answer::Records(records.into_iter().filter(|record| record.target != ".").collect()),
        }
    }

    /// The addresses of a host.
    pub(super) async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        match self {
            Self::System => Ok(lookup_host((host, 0)).await?.map(|address| address.ip()).collect()),
            Self::Servers(_) => {
                let resolver = self.resolver().map_err(io::Error::other)?;
                let name = format!("{}.", host.trim_end_matches('.'));
                let found = resolver.lookup_ip(name).await.map_err(io::Error::other)?;
                Ok(found.iter().collect())
            }
        }
    }

    /// Made anew for every search: connections are rare, and a device between them should not hold a cache.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        match self {
            Self::System => TokioResolver::builder_tokio()?.build(),
            Self::Servers(servers) => {
                let servers = servers.iter().map(name_server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
            }
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    server.connections = server.connections.into_iter().map(at_port).collect();
    server
}
