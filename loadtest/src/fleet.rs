//! Accounts, and how they log in.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    rc::Rc,
};

use anyhow::{Context, bail};
use heronry_client::{
    ClientKeys, Mechanism, Options, Password, Secret, Server, Tls, Trust,
    connection::{OpenSession, Transport},
    jid::BareJid,
    xml::{Framer, Limits},
};
use tokio::task::JoinSet;

use crate::{
    measure::machine,
    options::{ServerOptions, TlsMode},
    traffic::End,
};

/// Files a process has open beside its sockets, generously.
const OTHER_FILES: u64 = 64;

/// The accounts of a run. Clones are the same fleet.
#[derive(Clone, Debug)]
pub struct Fleet(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    server: ServerOptions,
    tls: Tls,
    mechanism: Option<Mechanism>,
    /// Keys of accounts that have logged in before, when they are kept.
    keys: Option<RefCell<HashMap<usize, ClientKeys>>>,
}

impl Fleet {
    /// The accounts of `server`. With `keep_keys` a second login of the same account needs no key derivation, which would
    /// otherwise be the generator's largest cost.
    ///
    /// # Errors
    /// When certificates cannot be read or the mechanism is unknown.
    pub fn new(server: &ServerOptions, keep_keys: bool) -> anyhow::Result<Self> {
        let trust = || -> anyhow::Result<Trust> {
            let trust = match &server.ca {
                None => Trust::dangerous_accept_any(),
                Some(path) => {
                    let pem = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                    Trust::certificates(&pem).with_context(|| path.display().to_string())?
                }
            };
            Ok(trust.without_resumption())
        };
        let tls = match server.tls {
            TlsMode::None => Tls::None,
            TlsMode::Starttls => Tls::StartTls(trust()?),
            TlsMode::Direct => Tls::Direct(trust()?),
        };
        let mechanism = |name: &String| Mechanism::from_name(name).with_context(|| format!("unknown mechanism {name}"));
        Ok(Self(Rc::new(Inner {
            server: server.clone(),
            tls,
            mechanism: server.mechanism.as_ref().map(mechanism).transpose()?,
            keys: keep_keys.then(RefCell::default),
        })))
    }

    /// Whether this process may open that many sockets.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_room(&self, sockets: usize) -> anyhow::Result<()> {
        check_room(sockets as u64, machine::open_files_max())
    }

    /// Logs an account in, by its number.
    ///
    /// # Errors
    /// When that fails; the message names the account.
    pub async fn open(&self, number: usize) -> anyhow::Result<OpenSession> {
        let session = OpenSession::open(&self.options(number)?).await;
        let session = session.with_context(|| format!("{} cannot log in", self.0.server.user(number)))?;
        if let (Some(keys), Some(new)) = (&self.0.keys, &session.keys) {
            keys.borrow_mut().entry(number).or_insert_with(|| new.clone());
        }
        Ok(session)
    }

    /// Logs accounts in, `concurrency` at a time, and gives their sessions in order. Calls `done` after each.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn log_in(
        &self,
        numbers: Range<usize>,
        concurrency: usize,
        mut done: impl FnMut(&OpenSession),
    ) -> anyhow::Result<Vec<OpenSession>> {
        let mut opened: Vec<Option<OpenSession>> = numbers.clone().map(|_| None).collect();
        let (mut waiting, mut opening) = (numbers.clone(), JoinSet::new());
        loop {
            while opening.len() < concurrency.max(1)
                && let Some(number) = waiting.next()
            {
                let fleet = self.clone();
                opening.spawn_local(async move { (number, fleet.open(number).await) });
            }
            let Some(result) = opening.join_next().await else { break };
            let (number, session) = result.context("a login panicked")?;
            let session = session?;
            done(&session);
            opened[number - numbers.start] = Some(session);
        }
        Ok(opened.into_iter().flatten().collect())
    }

    /// The server and the accounts on it.
    pub fn server(&self) -> &ServerOptions {
        &self.0.server
    }

    /// How an account logs in, by its number.
    ///
    /// # Errors
    /// When prefix, domain or password template make no account.
    pub fn options(&self, number: usize) -> anyhow::Result<Options> {
        let server = &self.0.server;
        let account = BareJid::new(Some(&server.user(number)), &server.domain)?;
        let mut secret = Secret::new(Password::new(&server.password(number))?);
        if let Some(keys) = self
            .0
            .keys
            .as_ref()
            .and_then(|keys| keys.borrow().get(&number).cloned())
        {
            secret = secret.with_keys(keys);
        }
        let mut options = Options::with_secret(account, secret)
            .server(Server::Address(server.server))
            .tls(self.0.tls.clone())
            .channel_binding(server.channel_binding);
        if let Some(mechanism) = self.0.mechanism {
            options = options.mechanism(mechanism);
        }
        if let Some(address) = source_address(number, server.source_addresses) {
            options = options.source(address);
        }
        Ok(options)
    }
}

impl From<OpenSession> for End<Transport> {
    /// What the server said before anybody listened is dropped.
    fn from(session: OpenSession) -> Self {
        let OpenSession {
            transport,
            mut framer,
            unread,
            ..
        } = session;
        drain(&mut framer, &unread);
        Self::new(transport, framer)
    }
}

fn drain(framer: &mut Framer, mut unread: &[u8]) {
    // An error comes again with the next bytes.
    while let Ok(Some(_)) = framer.next(&mut unread, &Limits::after_auth()) {}
}

fn check_room(sockets: u64, open_files_max: Option<u64>) -> anyhow::Result<()> {
    match open_files_max {
        Some(max) if sockets + OTHER_FILES > max => {
            bail!("{sockets} sessions at once, but this process may open only {max} files: start more generators")
        }
        _ => Ok(()),
    }
}

fn source_address(number: usize, addresses: u8) -> Option<IpAddr> {
    let index = number.checked_rem(addresses.into())?;
    Some(Ipv4Addr::new(127, 0, 0, 1 + index as u8).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sockets_than_files_are_refused_before_anything_is_opened() {
        assert!(check_room(19_000, Some(20_000)).is_ok());
        assert!(check_room(19_990, Some(20_000)).is_err());
        assert!(check_room(u64::from(u32::MAX), None).is_ok());
    }

    #[test]
    fn accounts_take_turns_on_the_source_addresses() {
        assert_eq!(source_address(5, 0), None);
        assert_eq!(source_address(5, 2), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
        assert_eq!(source_address(249, 250), Some(Ipv4Addr::new(127, 0, 0, 250).into()));
    }
}
