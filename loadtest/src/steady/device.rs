//! One device: what it says, and what it hears.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use heronry_client::{
    Client, Event, Events, Request, Resumption,
    jid::BareJid,
    message,
    stanza::{Kind, MessageType, Stanza},
    xml::{CLIENT, Element},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Plan, Tally};
use crate::history::{Returned, What};

const PRIVATE: &str = "jabber:iq:private";
const ROW: &str = "urn:heronry:loadtest:row";

/// A device that is logged in.
pub(super) struct Device {
    client: Client,
    tally: Arc<Tally>,
    /// Its address, and its name in the history.
    name: String,
    /// The name of its account's row.
    row: String,
    /// Sessions that it has begun.
    sessions: AtomicU32,
}

impl Device {
    pub(super) fn new(client: Client, tally: Arc<Tally>) -> Self {
        let jid = client.jid();
        tally.connected();
        Self {
            name: jid.as_str().to_owned(),
            row: format!("{}:private", jid.bare_str()),
            client,
            tally,
            sessions: AtomicU32::new(1),
        }
    }

    fn session(&self) -> String {
        format!("{}#{}", self.name, self.sessions.load(Ordering::Relaxed))
    }

    /// Takes what comes, to the end.
    pub(super) async fn listen(self: Arc<Self>, mut events: Events) {
        while let Some(event) = events.next().await {
            match event {
                Event::Message(message) => self.received(&message),
                Event::Disconnected(_) => self.tally.disconnected(),
                Event::Reconnected(Resumption::NewSession { .. }) => {
                    self.sessions.fetch_add(1, Ordering::Relaxed);
                    self.tally.reconnected(false);
                }
                Event::Reconnected(_) => self.tally.reconnected(true),
                Event::ReconnectFailed(_) => self.tally.gone(),
                _ => {}
            }
        }
    }

    fn received(&self, message: &Stanza) {
        let id = message.id.as_deref().unwrap_or_default().to_owned();
        if message.kind == Kind::Message(MessageType::Error) {
            let condition = message.stanza_error().map(|error| error.condition.name().to_owned());
            let condition = condition.unwrap_or_default();
            return self.tally.saw(&self.name, What::Refused { id, condition });
        }
        let body = message.root_element().ok().and_then(|content| {
            let body = content.child("body", CLIENT)?;
            Some(body.text())
        });
        let from = message.from.as_ref().map(|from| from.as_str().to_owned());
        let delivered = What::Delivered {
            session: self.session(),
            from: from.unwrap_or_default(),
            id,
            body: body.unwrap_or_default(),
        };
        self.tally.saw(&self.name, delivered);
    }

    /// Sends messages to an account, from when this time has passed until told not to.
    pub(super) async fn talk(self: Arc<Self>, to: BareJid, plan: Plan, begins: Duration, sends: watch::Receiver<bool>) {
        sleep(begins).await;
        let mut number = 0;
        for round in 0_u32.. {
            if !*sends.borrow() {
                return;
            }
            let next = Instant::now() + plan.interval;
            if !self.send(&to, plan, &mut number).await {
                return;
            }
            if plan.rows_every > 0 && round % plan.rows_every == plan.rows_every - 1 {
                let writes = (round / plan.rows_every).is_multiple_of(2);
                self.use_row(round, writes).await;
            }
            sleep_until(next).await;
        }
    }

    /// Sends some messages and waits until they are acknowledged. `false`: there will never be a connection again.
    async fn send(&self, to: &BareJid, plan: Plan, number: &mut u64) -> bool {
        let mut ids = Vec::with_capacity(plan.burst as usize);
        for _ in 0..plan.burst {
            *number += 1;
            let id = format!("{}-{number}", self.name);
            let body = format!("{id:x<width$}", width = plan.body_bytes);
            let message = message(to.clone(), &body).with_id(id.as_str());
            let sent = What::Sent {
                session: self.session(),
                to: to.as_str().to_owned(),
                id: id.clone(),
                body,
            };
            self.tally.saw(&self.name, sent);
            if self.client.send(message).await.is_err() {
                return false;
            }
            ids.push(id);
        }
        if self.client.flush().await.is_err() {
            self.tally.forget(&ids);
            return true;
        }
        for id in ids {
            self.tally.saw(&self.name, What::Acknowledged { id });
        }
        true
    }

    /// Writes or reads the row of the account.
    async fn use_row(&self, round: u32, is_write: bool) {
        let call = format!("{}-row-{round}", self.name);
        let row = Element::new("row", ROW);
        let query = |row| Element::new("query", PRIVATE).with_child(row);
        let (request, writes) = match is_write {
            true => (Request::set(query(row.with_text(call.as_str()))), Some(call.clone())),
            false => (Request::get(query(row)), None),
        };
        let called = What::Called {
            call: call.clone(),
            row: self.row.clone(),
            writes,
        };
        self.tally.saw(&self.name, called);
        let returned = match self.client.request(request).await {
            Err(_) => Returned::Failed,
            Ok(_) if is_write => Returned::Wrote,
            Ok(answer) => Returned::Read(answer.and_then(|query| {
                let text = query.child("row", ROW)?.text();
                (!text.is_empty()).then_some(text)
            })),
        };
        self.tally.saw(&self.name, What::Returned { call, returned });
    }
}
