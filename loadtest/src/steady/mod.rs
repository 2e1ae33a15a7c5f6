//! Devices that talk all the time, and come back when their connection is lost: for seeing what a server does for them while something
//! happens to it.
//!
//! The devices stand in a ring. Each sends messages to the account of the next one and waits until the server has acknowledged them
//! (XEP-0198), and every few rounds it writes or reads a row of its account (XEP-0049). What they do and see goes to a [`Recorder`],
//! for [`history::check`](crate::history::check).

mod device;
mod recorder;
mod tally;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use heronry_client::{Client, Options, Presence, Receipts, Reconnect};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::device::Device;
pub use self::{
    recorder::Recorder,
    tally::{Seen, Tally},
};

/// The resource of every device.
const RESOURCE: &str = "steady";

/// How much the devices say.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// From one round of a device to the next, if everything of the round has been acknowledged by then.
    pub interval: Duration,
    /// Messages in each round.
    pub burst: u32,
    /// Bytes of text in each message, at least those of its name.
    pub body_bytes: usize,
    /// A device writes or reads its row in every so many rounds; never if 0.
    pub rows_every: u32,
    /// Devices that log in at the same time.
    pub concurrency: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            burst: 2,
            body_bytes: 100,
            rows_every: 5,
            concurrency: 16,
        }
    }
}

/// Devices that talk. Dropped, they fall silent at once.
#[derive(Debug)]
pub struct Steady {
    clients: Vec<Client>,
    tally: Arc<Tally>,
    /// Whether the devices still send.
    sends: watch::Sender<bool>,
    sending: JoinSet<()>,
    listening: JoinSet<()>,
}

impl Steady {
    /// Logs the devices in and lets them talk. Of their options, those that this is about are set here: resource, stream management,
    /// reconnecting, and no receipts.
    ///
    /// # Errors
    /// When one cannot log in; it is named.
    pub async fn start(devices: Vec<Options>, plan: Plan, recorder: Recorder) -> anyhow::Result<Self> {
        let tally = Arc::new(Tally::new(recorder));
        let (mut clients, mut listening) = (Vec::with_capacity(devices.len()), JoinSet::new());
        let mut parts = Vec::with_capacity(devices.len());
        for some in devices.chunks(plan.concurrency.max(1)) {
            let mut connecting: JoinSet<_> = some.iter().cloned().map(connect).collect();
            while let Some(connected) = connecting.join_next().await {
                let (client, events) = connected.context("a login panicked")??;
                clients.push(client.clone());
                parts.push((client, events));
            }
        }
        let (sends, _) = watch::channel(true);
        let mut sending = JoinSet::new();
        for (index, (client, events)) in parts.into_iter().enumerate() {
            let to = clients[(index + 1) % clients.len()].jid().bare();
            let device = Arc::new(Device::new(client, Arc::clone(&tally)));
            listening.spawn(Arc::clone(&device).listen(events));
            // Otherwise all would send at the same moment, each time.
            let begins = plan.interval.mul_f64(index as f64 / clients.len() as f64);
            sending.spawn(device.talk(to, plan, begins, sends.subscribe()));
        }
        Ok(Self {
            clients,
            tally,
            sends,
            sending,
            listening,
        })
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.tally.seen()
    }

    /// What is counted, for those who watch.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Lets the devices come to rest: they send nothing more, and everything that was acknowledged arrives or comes back. Gives the
    /// messages of which that has not become true within `patience`.
    pub async fn rest(&mut self, patience: Duration) -> Vec<String> {
        self.sends.send_replace(false);
        let until = Instant::now() + patience;
        let sent = async { while self.sending.join_next().await.is_some() {} };
        // Who has not come to an end by now waits for an acknowledgement.
        let _ = timeout(patience, sent).await;
        loop {
            let owed = self.tally.owed();
            if owed.is_empty() || Instant::now() >= until {
                return owed;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends all sessions in order, and gives what was recorded in memory.
    pub async fn end(mut self) -> crate::history::History {
        self.tally.end();
        self.sending.shutdown().await;
        let mut closing: JoinSet<_> = (self.clients.drain(..))
            .map(|client| async move { client.close().await })
            .collect();
        while closing.join_next().await.is_some() {}
        self.listening.shutdown().await;
        self.tally.take_history()
    }
}

async fn connect(options: Options) -> anyhow::Result<(Client, heronry_client::Events)> {
    let name = format!("{options:?}");
    let options = options
        .resource(RESOURCE)
        .stream_management(true)
        // What is told of messages is what the server does, without the help of the SDK.
        .receipts(Receipts::Never)
        .reconnect(Reconnect::Automatic {
            first: Duration::from_millis(20),
            max: Duration::from_secs(1),
        });
    let (client, events) = Client::connect(options)
        .await
        .with_context(|| format!("{name} cannot log in"))?;
    client.set_presence(&Presence::available()).await?;
    client.flush().await?;
    Ok((client, events))
}
