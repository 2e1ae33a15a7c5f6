//! One search for a server: the places in their order, each looked up when its turn comes.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
};

use super::{
    names::{Answer, Names},
    place::{Encryption, HostPort, Server},
    service,
};
use crate::{
    error::ConnectError,
    options::{Options, Tls},
};

/// Addresses tried in one search, whatever the records say.
const CANDIDATES_MAX: usize = 32;
/// Redirections followed in one search (RFC 6120 §4.9.3.19: at least 2, no more than 5).
const REDIRECTIONS_MAX: usize = 5;
/// RFC 6120 §14.7
const PORT: u16 = 5222;
/// Registered for direct TLS by nobody, and used for it by everybody.
const DIRECT_PORT: u16 = 5223;

/// An address where a server may be, and how it is spoken to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) encryption: Encryption,
}

/// What is left of a search.
pub(crate) struct Plan<'a> {
    options: &'a Options,
    names: Names,
    steps: VecDeque<Step>,
    found: VecDeque<Candidate>,
    tried: usize,
    redirections: usize,
}

/// A place that is yet to be looked up.
#[derive(Debug)]
enum Step {
    Server(Server),
    /// By its addresses.
    Host(String, u16, Encryption),
    /// By its service records, else by its addresses.
    Service(String),
}

impl<'a> Plan<'a> {
    /// Begins at `preferred`, which a server has named and where it is spoken to as it was there, and goes on with the
    /// servers of the options.
    pub(crate) fn new(options: &'a Options, preferred: Option<&(HostPort, Encryption)>) -> Self {
        let mut plan = Self {
            options,
            names: Names::new(&options.name_servers),
            steps: options.servers.iter().cloned().map(Step::Server).collect(),
            found: VecDeque::new(),
            tried: 0,
            redirections: 0,
        };
        if let Some((place, encryption)) = preferred {
            plan.steps.push_front(named(place.clone(), *encryption));
        }
        plan
    }

    /// The next address to try; an error for a place that has none. `None` at the end of the search. Not cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Candidate, ConnectError>> {
        loop {
            if self.tried == CANDIDATES_MAX {
                return None;
            }
            if let Some(candidate) = self.found.pop_front() {
                self.tried += 1;
                return Some(Ok(candidate));
            }
            let step = self.steps.pop_front()?;
            if let Err(error) = self.look_up(step).await {
                return Some(Err(error));
            }
        }
    }

    /// A server spoken to in this way has named another one, which is the next to be tried. False when that happened too
    /// often, or what it named is no place.
    pub(crate) fn redirect(&mut self, place: &str, encryption: Encryption) -> bool {
        let Some(place) = HostPort::parse(place) else {
            return false;
        };
        if self.redirections == REDIRECTIONS_MAX {
            return false;
        }
        self.redirections += 1;
        // What was found of the server that redirects is not lost, but comes later.
        let found = self.found.drain(..).rev();
        let later = found.map(|candidate| {
            Step::Host(
                candidate.address.ip().to_string(),
                candidate.address.port(),
                candidate.encryption,
            )
        });
        later.for_each(|step| self.steps.push_front(step));
        self.steps.push_front(named(place, encryption));
        true
    }

    async fn look_up(&mut self, step: Step) -> Result<(), ConnectError> {
        let by_default = self.options.tls.by_default();
        match step {
            Step::Server(Server::Address(address)) => self.found.push_back(Candidate {
                address,
                encryption: by_default,
            }),
            Step::Server(Server::HostPort(host, port)) => return self.look_up_host(&host, port, by_default).await,
            Step::Server(Server::Domain { port }) => {
                let domain = self.options.account.domain().to_owned();
                return self.look_up_host(&domain, port, by_default).await;
            }
            Step::Host(host, port, encryption) => return self.look_up_host(&host, port, encryption).await,
            Step::Server(Server::Service) => {
                let domain = self.options.account.domain().to_owned();
                return self.look_up_service(&domain).await;
            }
            Step::Service(domain) => return self.look_up_service(&domain).await,
        }
        Ok(())
    }

    async fn look_up_host(&mut self, host: &str, port: u16, encryption: Encryption) -> Result<(), ConnectError> {
        let host = ascii(host);
        let addresses = self.names.addresses(&host).await.map_err(ConnectError::Unreachable)?;
        if addresses.is_empty() {
            let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(ConnectError::Unreachable(error));
        }
        self.found.extend(addresses.into_iter().map(|ip| Candidate {
            address: (ip, port).into(),
            encryption,
        }));
        Ok(())
    }

    /// RFC 6120 §3.2.1 and §3.2.2, with XEP-0368's records among the others.
    async fn look_up_service(&mut self, domain: &str) -> Result<(), ConnectError> {
        let domain = ascii(domain);
        let fallback = match self.options.tls {
            Tls::Direct(_) => DIRECT_PORT,
            _ => PORT,
        };
        let by_default = self.options.tls.by_default();
        // RFC 6761 §6.3: localhost is nobody's domain.
        if domain == "localhost" || domain.parse::<IpAddr>().is_ok() {
            return self.look_up_host(&domain, fallback, by_default).await;
        }
        let (starttls, direct) = match self.options.tls {
            Tls::Any(_) => (Some(Encryption::StartTls), Some(Encryption::Direct)),
            Tls::StartTls(_) => (Some(Encryption::StartTls), None),
            Tls::Direct(_) => (None, Some(Encryption::Direct)),
            Tls::None => (Some(Encryption::None), None),
        };
        let ask = async |service, encryption: Option<Encryption>| match encryption {
            Some(encryption) => self.names.service(service, &domain, encryption).await,
            None => Answer::Nothing,
        };
        let answers = tokio::join!(ask("xmpp-client", starttls), ask("xmpps-client", direct));
        let (mut records, mut refused) = (Vec::new(), false);
        for answer in [answers.0, answers.1] {
            match answer {
                Answer::Records(more) => records.extend(more),
                Answer::Refused => refused = true,
                Answer::Nothing => {}
            }
        }
        if records.is_empty() {
            // XEP-0368 §5: after a refusal there is no falling back.
            return match refused {
                true => Err(ConnectError::NoService),
                false => self.look_up_host(&domain, fallback, by_default).await,
            };
        }
        let records = service::in_order(records, random_up_to);
        let steps = records.into_iter().rev();
        let steps = steps.map(|record| Step::Host(record.target, record.port, record.encryption));
        steps.for_each(|step| self.steps.push_front(step));
        Ok(())
    }
}

fn named(place: HostPort, encryption: Encryption) -> Step {
    match (place.port, place.host.parse::<IpAddr>()) {
        (Some(port), _) => Step::Host(place.host, port, encryption),
        (None, Ok(_)) if encryption == Encryption::Direct => Step::Host(place.host, DIRECT_PORT, encryption),
        (None, Ok(_)) => Step::Host(place.host, PORT, encryption),
        (None, Err(_)) => Step::Service(place.host),
    }
}

/// The name as the domain name system knows it: internationalised labels encoded, an IPv6 address without brackets.
fn ascii(domain: &str) -> String {
    let domain = domain.trim_matches(['[', ']']);
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned())
}

/// From 0 to `max`, both included. Without randomness records are tried in one order, which is still an order.
fn random_up_to(max: u32) -> u32 {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    (u64::from_le_bytes(random) % (u64::from(max) + 1)) as u32
}
