//! While there is no connection: who makes the next one, when, and what becomes of the session.

use std::{sync::PoisonError, time::Duration};

use heronry_xmpp::{
    stream::{StreamCondition, StreamError},
    xep::sm::{Counter, Resume},
};
use tokio::time::sleep;
use tracing::debug;

use super::{Command, Driver};
use crate::{
    connecting::{Encryption, HostPort},
    connection::{self, Begun, Connection, Management, Session},
    error::{ConnectError, Disconnect},
    event::{Event, Resumption},
    options::Reconnect,
};

impl Driver {
    /// The connection, encrypted in this way, was lost: makes another one as the options say. `None` when the client was closed meanwhile.
    pub(super) async fn reconnected(&mut self, reason: Disconnect, encryption: Encryption) -> Option<Connection> {
        debug!(%reason, "disconnected");
        // A conflict means that another connection is in our place (RFC 6120 §4.9.3.3): taking it back would go on for ever.
        let conflict = matches!(&reason, Disconnect::Refused(error) if error.condition == StreamCondition::Conflict);
        if let Disconnect::Refused(StreamError {
            condition: StreamCondition::SeeOtherHost(place),
            ..
        }) = &reason
        {
            self.redirected = HostPort::parse(place).map(|place| (place, encryption));
        }
        if !self.is_resumable() {
            self.requests.fail_all();
            self.contacts.fail();
            self.flushes.clear();
        }
        self.tell(Event::Disconnected(reason)).await?;
        if let Reconnect::Automatic { first, max } = self.shared.options.reconnect
            && !conflict
        {
            match self.reconnect_with_patience(first, max).await? {
                Ok((connection, resumption)) => {
                    self.tell(Event::Reconnected(resumption)).await?;
                    return Some(connection);
                }
                Err(error) => self.tell(Event::ReconnectFailed(error)).await?,
            }
        }
        // Who relies on coming back automatically does not come back by itself any more.
        if matches!(self.shared.options.reconnect, Reconnect::Automatic { .. })
            && let Some(courier) = self.shared.courier.get()
        {
            courier.give_up();
        }
        self.reconnect_on_demand().await
    }

    async fn reconnect_with_patience(
        &mut self,
        first: Duration,
        max: Duration,
    ) -> Option<Result<(Connection, Resumption), ConnectError>> {
        let closing = self.shared.closing.clone();
        let mut wait = first.min(max);
        loop {
            closing.run_until_cancelled(sleep(shortened(wait))).await?;
            match closing.run_until_cancelled(self.reconnect()).await? {
                Err(error) if error.is_transient() => debug!(%error, "reconnecting failed"),
                done => return Some(done),
            }
            wait = (wait * 2).min(max);
        }
    }

    /// Waits for [`Command::Resume`]; other commands are refused by being dropped.
    async fn reconnect_on_demand(&mut self) -> Option<Connection> {
        let closing = self.shared.closing.clone();
        loop {
            let Command::Resume { outcome } = closing.run_until_cancelled(self.commands.recv()).await?? else {
                continue;
            };
            match closing.run_until_cancelled(self.reconnect()).await? {
                Ok((connection, resumption)) => {
                    let _ = outcome.send(Ok(resumption));
                    return Some(connection);
                }
                Err(error) => {
                    let _ = outcome.send(Err(error));
                }
            }
        }
    }

    /// One attempt.
    async fn reconnect(&mut self) -> Result<(Connection, Resumption), ConnectError> {
        let id = self
            .session
            .management
            .as_ref()
            .and_then(|management| management.id.clone());
        let earlier = id.map(|previd| Resume {
            previd,
            h: self.acknowledgements.received(),
        });
        // Where the server has sent us, else where it wants the session resumed (XEP-0198 §5), comes first.
        let location = self.session.management.as_ref().filter(|_| earlier.is_some());
        let location = location.and_then(|management| management.location.as_deref());
        let preferred = self.redirected.as_ref().or(location);
        let (connection, begun) = connection::begin(&self.shared.options, &mut self.secret, earlier, preferred).await?;
        self.redirected = None;
        let resumption = match begun {
            Begun::Resumed { h } => self.resumed(h)?,
            Begun::Bound { session, h_of_old } => self.begin_anew(session, h_of_old),
        };
        Ok((connection, resumption))
    }

    fn resumed(&mut self, h: Counter) -> Result<Resumption, ConnectError> {
        if self.acknowledged(h).is_err() {
            // Server and we do not mean the same session: the next attempt begins a new one.
            self.session.management = Some(Management::default());
            return Err(ConnectError::Protocol("the server acknowledges more than it was sent"));
        }
        Ok(Resumption::Resumed {
            resent: self.acknowledgements.waiting(),
        })
    }

    fn begin_anew(&mut self, session: Session, h_of_old: Option<Counter>) -> Resumption {
        let mut old = std::mem::take(&mut self.acknowledgements);
        // XEP-0198 §5: a server may know how far a session came that it no longer has.
        if let Some(Err(error)) = h_of_old.map(|h| old.acknowledge(h, drop)) {
            debug!(?error, "the server's number for the old session makes no sense");
        }
        self.requests.fail_all();
        self.contacts.fail();
        self.flushes.clear();
        self.session = session;
        self.begins = true;
        if let Some(presence) = self.shared.presence.get() {
            presence.reset();
        }
        let jid = self.session.jid.clone();
        *self.shared.jid.lock().unwrap_or_else(PoisonError::into_inner) = jid.clone();
        Resumption::NewSession {
            jid,
            unacknowledged: old.give_back(),
        }
    }

    fn is_resumable(&self) -> bool {
        self.session
            .management
            .as_ref()
            .is_some_and(|management| management.id.is_some())
    }

    /// Waits until the application takes the event, or does not listen; `None` when the client was closed meanwhile.
    pub(super) async fn tell(&self, event: Event) -> Option<()> {
        // An error means that nobody listens.
        let _ = self.shared.closing.run_until_cancelled(self.events.send(event)).await?;
        Some(())
    }
}

/// A random time from half of `wait` to all of it.
fn shortened(wait: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness a fleet returns as one, which is still better than not at all.
    let _ = getrandom::fill(&mut random);
    wait.mul_f64(1.0 - 0.5 * f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_shortened_by_at_most_half() {
        for _ in 0..1000 {
            let wait = shortened(Duration::from_secs(8));
            assert!(
                (Duration::from_secs(4)..=Duration::from_secs(8)).contains(&wait),
                "{wait:?}"
            );
        }
    }
}
