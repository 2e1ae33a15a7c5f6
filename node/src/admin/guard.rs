//! Who may speak to the admin port at all.
//!
//! A web page that an operator visits can make its browser send requests to this machine. It cannot choose the `Host` header
//! freely: it has to be a name that the page's owner controls (DNS rebinding), so names other than ours are refused. And its
//! requests carry an `Origin`, which has to be this port.

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Why a request is refused before anything looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no usable `Host`.
    NoHost,
    /// The `Host` is a name that is not ours.
    ForeignHost,
    /// A page from elsewhere made the request.
    ForeignOrigin,
}

impl Refusal {
    /// A name for metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
        }
    }
}

/// Checks `Host` (or HTTP/2's `:authority`) and `Origin`. `hosts` are names allowed besides `localhost` and IP addresses.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => single(headers, header::HOST)
            .and_then(|host| host.parse().ok())
            .ok_or(Refusal::NoHost)?,
    };
    if !is_ours(&authority, hosts) {
        return Err(Refusal::ForeignHost);
    }
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    // `Origin: null` and lists have no authority and are refused with the rest.
    let origin = single(headers, header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
    match origin.as_ref().and_then(Uri::authority) {
        Some(from) if from.as_str().eq_ignore_ascii_case(authority.as_str()) => Ok(()),
        _ => Err(Refusal::ForeignOrigin),
    }
}

fn is_ours(authority: &Authority, hosts: &[String]) -> bool {
    let host = authority.host();
    let ip = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    ip.parse::<std::net::IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))
}

fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(uri: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check(&uri.parse().unwrap(), &map, &["ops.example".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        for host in [
            "127.0.0.1:5280",
            "10.1.2.3",
            "[::1]:5280",
            "localhost:5280",
            "LOCALHOST",
            "ops.example:80",
        ] {
            assert_eq!(checked("/metrics", &[("host", host)]), Ok(()), "{host}");
            assert_eq!(checked(&format!("http://{host}/metrics"), &[]), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:5280"] {
            assert_eq!(checked("/", &[("host", host)]), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(
            checked("http://evil.example/", &[("host", "localhost")]),
            Err(Refusal::ForeignHost)
        );
        assert_eq!(checked("/", &[]), Err(Refusal::NoHost));
        assert_eq!(
            checked("/", &[("host", "localhost"), ("host", "evil.example")]),
            Err(Refusal::NoHost)
        );
        assert_eq!(checked("/", &[("host", "not a host")]), Err(Refusal::NoHost));
    }

    #[test]
    fn a_page_must_come_from_this_port() {
        let with_origin = |origin| checked("/", &[("host", "localhost:5280"), ("origin", origin)]);
        assert_eq!(with_origin("http://localhost:5280"), Ok(()));
        for origin in [
            "http://localhost",
            "http://localhost:8000",
            "https://evil.example",
            "null",
            "",
        ] {
            assert_eq!(with_origin(origin), Err(Refusal::ForeignOrigin), "{origin}");
        }
    }
}
