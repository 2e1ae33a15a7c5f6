//! Messages between pairs of sessions: server CPU time per message, latencies, messages per second.
//!
//! The second half of the accounts receives what the first half sends, to full JIDs, without presence and without stream management.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    fleet::Fleet,
    measure::{
        generator::{Verdict, Watch},
        latency::Summary,
        process::Process,
    },
    options::{MessagesOptions, TrafficOptions},
    progress,
    report::{Report, Rows, ServerUse, Tabular, microseconds, row},
    traffic::{Pair, Stopped, Tally},
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Messages {
    /// Pairs of sessions.
    pub pairs: usize,
    /// Messages on the way in each pair.
    pub window: u32,
    /// Bytes of text in each message.
    pub body_bytes: usize,
    /// Messages received in the measured time.
    pub messages: u64,
    #[allow(missing_docs, reason = "said by its name")]
    pub messages_per_second: f64,
    /// Messages that were repeated or overtaken, since the first one. A server that keeps order has none.
    pub misplaced: u64,
    /// From the write of the sender to the read of the receiver.
    pub latency: Summary,
    /// CPU time of the server's process for each message; `None` when its id was not given.
    pub server_cpu_us_per_message: Option<f64>,
    /// The server's process.
    pub server: Option<ServerUse>,
}

/// Logs in and measures.
///
/// # Errors
/// When an account cannot log in, a session is lost, or a message is refused.
pub async fn run(options: &MessagesOptions) -> anyhow::Result<Report<Messages>> {
    let pairs = options.traffic.pairs;
    let senders = Fleet::new(&options.server, false)?;
    let mut elsewhere = options.server.clone();
    elsewhere.server = options.receivers.unwrap_or(elsewhere.server);
    let receivers = Fleet::new(&elsewhere, false)?;
    senders.check_room(pairs * 2)?;
    let bar = progress::count("sessions", pairs as u64 * 2);
    let senders = senders.log_in(0..pairs, 16, |_| bar.inc(1)).await?;
    let receivers = receivers.log_in(pairs..pairs * 2, 16, |_| bar.inc(1)).await?;
    bar.finish_and_clear();

    let tally = Rc::new(Tally::default());
    let mut ready = Vec::with_capacity(pairs);
    for (sender, receiver) in senders.into_iter().zip(receivers) {
        let to = receiver.jid.as_str().to_owned();
        let traffic = &options.traffic;
        let (sender, receiver) = (sender.into(), receiver.into());
        ready.push(Pair::new(
            sender,
            receiver,
            &to,
            traffic.window,
            traffic.body_bytes,
            tally.clone(),
        ));
    }
    let (result, verdict) = measure(ready, &options.traffic, &tally, options.server.process()).await?;
    Ok(Report::new("messages", result, verdict))
}

/// Lets pairs exchange messages, and measures after the warm-up.
///
/// # Errors
/// When a pair stops, or the process cannot be read.
pub async fn measure<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    pairs: Vec<Pair<S>>,
    traffic: &TrafficOptions,
    tally: &Rc<Tally>,
    process: Option<Process>,
) -> anyhow::Result<(Messages, Verdict)> {
    let count = pairs.len();
    let (stopped, mut first_stopped) = mpsc::channel::<Stopped>(1);
    let mut running = JoinSet::new();
    for pair in pairs {
        let stopped = stopped.clone();
        running.spawn_local(async move {
            // Full: another one was the first to stop, and the run ends anyway.
            let _ = stopped.try_send(pair.run().await);
        });
    }
    let found = tokio::select! {
        found = watch(traffic, tally, process) => found,
        Some(stopped) = first_stopped.recv() => match stopped {
            Stopped::Io(error) => Err(anyhow!(error).context("a session was lost")),
            Stopped::Refused(text) => Err(anyhow!("the server refused: {text}")),
        },
    };
    running.shutdown().await;
    let (mut result, verdict) = found?;
    result.pairs = count;
    Ok((result, verdict))
}

async fn watch(
    traffic: &TrafficOptions,
    tally: &Tally,
    process: Option<Process>,
) -> anyhow::Result<(Messages, Verdict)> {
    show("warm-up", traffic.warm_up, tally).await;
    let sample = || {
        process
            .map(|process| process.sample())
            .transpose()
            .context("reading the server's process")
    };
    tally.latencies.borrow_mut().clear();
    let received_before = tally.received.get();
    let before = sample()?;
    let watch = Watch::start()?;
    show("messages", traffic.duration, tally).await;
    // The server first: looking at ourselves costs it nothing.
    let after = sample()?;
    let verdict = watch.end()?;
    let messages = tally.received.get() - received_before;
    if messages == 0 {
        bail!("not one message arrived in {:?}", traffic.duration);
    }
    let server = before
        .zip(after)
        .map(|(before, after)| ServerUse::between(before, after, verdict.wall_seconds));
    let latency = tally.latencies.borrow().summary();
    let found = Messages {
        pairs: 0,
        window: traffic.window,
        body_bytes: traffic.body_bytes,
        messages,
        messages_per_second: messages as f64 / verdict.wall_seconds,
        misplaced: tally.misplaced.get(),
        latency,
        server_cpu_us_per_message: server.as_ref().map(|server| server.cpu_seconds * 1e6 / messages as f64),
        server,
    };
    Ok((found, verdict))
}

/// Lets `duration` pass, with a bar that shows the rate.
async fn show(what: &str, duration: Duration, tally: &Tally) {
    let bar = progress::clock(what, duration);
    let (start, before) = (Instant::now(), tally.received.get());
    while start.elapsed() < duration {
        sleep(Duration::from_millis(200).min(duration - start.elapsed().min(duration))).await;
        let seconds = start.elapsed().as_secs_f64();
        bar.set_prefix(format!(
            "{:.0} messages/s",
            (tally.received.get() - before) as f64 / seconds.max(1e-3)
        ));
        bar.set_position(start.elapsed().as_millis() as u64);
    }
    bar.finish_and_clear();
}

impl Tabular for Messages {
    fn rows(&self) -> Rows {
        let mut rows = Vec::new();
        if let Some(cost) = self.server_cpu_us_per_message {
            rows.push(row("server CPU per message", microseconds(cost)));
        }
        rows.push(row("messages per second", format!("{:.0}", self.messages_per_second)));
        rows.push(row("pairs, window", format!("{}, {}", self.pairs, self.window)));
        rows.push(row("latency p50", microseconds(self.latency.p50_us as f64)));
        rows.push(row("latency p99", microseconds(self.latency.p99_us as f64)));
        rows.push(row("latency p99.9", microseconds(self.latency.p999_us as f64)));
        rows.push(row("latency max", microseconds(self.latency.max_us as f64)));
        rows.push(row("misplaced messages", self.misplaced.to_string()));
        rows.extend(self.server.iter().flat_map(ServerUse::rows));
        rows
    }
}
