//! Devices that talk at a steady rate, while something happens to the server: sockets lost, sessions resumed, messages lost, the longest
//! wait.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context;
use heronry_client::Server;
use serde::Serialize;
use tokio::time::{interval, sleep};

use crate::{
    fleet::Fleet,
    measure::{generator::Watch, latency::Summary},
    options::SteadyOptions,
    progress,
    report::{Report, Rows, Tabular, microseconds, row},
    steady::{Plan, Recorder, Seen, Steady as Devices, Tally},
};

/// How long what is under way in the end may take.
const REST: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    #[allow(missing_docs, reason = "said by its name")]
    pub devices: u32,
    /// Connections that were lost.
    pub sockets_lost: usize,
    /// Sessions that went on after that (XEP-0198 §5).
    pub sessions_resumed: usize,
    /// Sessions that were over, so that the device began a new one.
    pub sessions_over: usize,
    /// Devices that could not come back.
    pub devices_gone: usize,
    /// Messages sent.
    pub sent: u64,
    /// Of those: acknowledged by the server.
    pub acknowledged: u64,
    /// Messages that arrived, repeats included.
    pub delivered: u64,
    /// Messages that came back as errors.
    pub refused: u64,
    /// Messages that were acknowledged, and neither arrived nor came back.
    pub lost: usize,
    /// Rows read and written.
    pub rows: u64,
    /// Reads and writes of rows that failed.
    pub rows_failed: u64,
    /// From sending to arrival.
    pub latency: Summary,
}

/// Logs in, lets the devices talk, and counts.
///
/// # Errors
/// When an account cannot log in, or the history cannot be written.
pub async fn run(options: &SteadyOptions) -> anyhow::Result<Report<Steady>> {
    let count = options.devices as usize;
    let fleet = Fleet::new(&options.server, false)?;
    fleet.check_room(count)?;
    let mut servers = vec![options.server.server];
    servers.extend(&options.also);
    let devices: anyhow::Result<Vec<_>> = (0..count)
        .map(|number| {
            let mut servers = servers.clone();
            let own = number % servers.len();
            servers.rotate_left(own);
            Ok(fleet.options(number)?.servers(servers.into_iter().map(Server::Address)))
        })
        .collect();
    let recorder = match &options.history {
        None => Recorder::nowhere(),
        Some(path) => Recorder::file(path).with_context(|| format!("writing {}", path.display()))?,
    };
    let plan = Plan {
        interval: options.interval,
        burst: options.burst,
        body_bytes: options.body_bytes,
        rows_every: options.rows_every,
        concurrency: options.concurrency,
    };
    let mut devices = Devices::start(devices?, plan, recorder).await?;
    let (tally, watch) = (devices.tally(), Watch::start()?);
    match options.watch {
        true => tokio::select! {
            said = say(&tally) => said?,
            () = sleep(options.duration) => {}
        },
        false => show(&tally, options.duration).await,
    }
    let verdict = watch.end()?;
    let lost = devices.rest(REST).await.len();
    let seen = tally.seen();
    drop(devices.end().await);
    tally.flush().context("writing the history")?;
    let found = Steady::new(options.devices, seen, lost, tally.latencies());
    Ok(Report::new("steady", found, verdict))
}

/// Says every second how it goes, in lines.
async fn say(tally: &Tally) -> anyhow::Result<()> {
    let mut seconds = interval(Duration::from_secs(1));
    let (began, mut before) = (Instant::now(), tally.seen().delivered);
    seconds.tick().await;
    loop {
        seconds.tick().await;
        let seen = tally.seen();
        writeln!(
            std::io::stdout(),
            "{:4} s  {:>6} sockets, {} lost   {:>6} messages/s   longest wait {}",
            began.elapsed().as_secs(),
            seen.sockets,
            seen.lost,
            seen.delivered - before,
            microseconds(tally.longest().as_micros() as f64),
        )?;
        before = seen.delivered;
    }
}

/// Lets `duration` pass, with a bar that shows how it goes.
async fn show(tally: &Tally, duration: Duration) {
    let bar = progress::clock("steady", duration);
    let began = Instant::now();
    while began.elapsed() < duration {
        sleep(Duration::from_millis(200).min(duration.saturating_sub(began.elapsed()))).await;
        let seen = tally.seen();
        bar.set_prefix(format!("{} sockets, {} lost", seen.sockets, seen.lost));
        bar.set_position(began.elapsed().as_millis() as u64);
    }
    bar.finish_and_clear();
}

impl Steady {
    fn new(devices: u32, seen: Seen, lost: usize, latency: Summary) -> Self {
        Self {
            devices,
            sockets_lost: seen.lost,
            sessions_resumed: seen.resumed,
            sessions_over: seen.begun_anew,
            devices_gone: seen.gone,
            sent: seen.sent,
            acknowledged: seen.acknowledged,
            delivered: seen.delivered,
            refused: seen.refused,
            lost,
            rows: seen.rows,
            rows_failed: seen.rows_failed,
            latency,
        }
    }
}

impl Tabular for Steady {
    fn rows(&self) -> Rows {
        vec![
            row("devices", self.devices.to_string()),
            row("sockets lost", self.sockets_lost.to_string()),
            row(
                "sessions resumed, over",
                format!("{}, {}", self.sessions_resumed, self.sessions_over),
            ),
            row(
                "messages sent, acknowledged",
                format!("{}, {}", self.sent, self.acknowledged),
            ),
            row(
                "messages delivered, refused",
                format!("{}, {}", self.delivered, self.refused),
            ),
            row("acknowledged messages lost", self.lost.to_string()),
            row("rows used, in vain", format!("{}, {}", self.rows, self.rows_failed)),
            row("wait p50", microseconds(self.latency.p50_us as f64)),
            row("wait p99", microseconds(self.latency.p99_us as f64)),
            row("wait max", microseconds(self.latency.max_us as f64)),
        ]
    }
}
