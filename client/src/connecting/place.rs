//! Places where a server may be, as applications and servers name them.

use std::{net::IpAddr, net::SocketAddr, str::FromStr};

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Where the service records of our address's domain say (RFC 6120 §3.2.1, XEP-0368), by priority and weight. Without
    /// such records at port 5222 of the domain, or 5223 when [`Tls::Direct`](crate::Tls::Direct) is demanded.
    Service,
    /// At an address.
    Address(SocketAddr),
    /// At a port of a host by name, whatever the domain of our address.
    HostPort(String, u16),
    /// At the domain of our address, without asking for service records.
    Domain {
        /// The port: usually 5222, or 5223 for direct TLS.
        port: u16,
    },
}

/// A text that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a server: HOST:PORT is expected, with IPv6 addresses in brackets")]
pub struct ServerError;

/// Reads `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let HostPort { host, port } = HostPort::parse(text).ok_or(ServerError)?;
        let port = port.ok_or(ServerError)?;
        Ok(match host.parse::<IpAddr>() {
            Ok(ip) => Self::Address((ip, port).into()),
            Err(_) => Self::HostPort(host, port),
        })
    }
}

/// How the connection to a place is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    None,
    StartTls,
    Direct,
}

/// A host with or without a port, as `see-other-host` (RFC 6120 §4.9.3.19) and `location` (XEP-0198 §5) give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl HostPort {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // IPv6 without brackets has more than one colon and no port.
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self {
                host: ip.to_string(),
                port: None,
            });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']')?;
                let _ = ip.parse::<std::net::Ipv6Addr>().ok()?;
                (
                    ip,
                    if port.is_empty() {
                        None
                    } else {
                        Some(port.strip_prefix(':')?)
                    },
                )
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map(str::parse::<u16>).transpose().ok()?;
        let is_name = !host.is_empty()
            && host.len() <= 253
            && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
        (is_name && port != Some(0)).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_rfc_6120_writes_them() {
        for (text, expected) in [
            ("im.example.com", Some(("im.example.com", None))),
            ("im.example.com:9222", Some(("im.example.com", Some(9222)))),
            (" 192.0.2.1:5222 ", Some(("192.0.2.1", Some(5222)))),
            ("[2001:41D0:1:A49b::1]:9222", Some(("2001:41D0:1:A49b::1", Some(9222)))),
            ("[::1]", Some(("::1", None))),
            ("::1", Some(("::1", None))),
            ("", None),
            (":5222", None),
            ("host:", None),
            ("host:0", None),
            ("host:65536", None),
            ("[host]:5222", None),
            ("[::1]5222", None),
            ("http://host", None),
            ("two words", None),
        ] {
            let read = HostPort::parse(text);
            let read = read.as_ref().map(|place| (&*place.host, place.port));
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn a_server_needs_a_port() {
        assert_eq!(
            "[::1]:5222".parse(),
            Ok(Server::Address("[::1]:5222".parse().expect("address")))
        );
        assert_eq!(
            "a.example:5222".parse(),
            Ok(Server::HostPort("a.example".to_owned(), 5222))
        );
        assert_eq!("a.example".parse::<Server>(), Err(ServerError));
    }
}
