//! Logins: connect, TLS if asked for, SCRAM, bind, close, again. Logins per second of server CPU time. With contacts, a login
//! goes on until the presence of every contact has come.
//!
//! Keys derived from passwords are kept from the first round, and TLS sessions are not: the server does all of its work, the
//! generator as little as possible.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    contacts::{Circle, arrival::arrive, setup, standing::Standing},
    fleet::Fleet,
    measure::{
        generator::Watch,
        latency::{Latencies, Summary},
    },
    options::LoginOptions,
    progress,
    report::{Report, Rows, ServerUse, Tabular, microseconds, row},
};

/// How long a server may take to close a stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Logins {
    /// Logins going on at the same time.
    pub concurrency: usize,
    /// Contacts of each account.
    pub contacts: usize,
    /// Logins in the measured time.
    pub logins: u64,
    #[allow(missing_docs, reason = "said by its name")]
    pub logins_per_second: f64,
    /// From connecting to the bound resource, or to the presence of the last contact.
    pub latency: Summary,
    /// Logins for each second of the server's CPU time; `None` when its process id was not given.
    pub logins_per_server_cpu_second: Option<f64>,
    /// The server's process.
    pub server: Option<ServerUse>,
}

/// Logs in and out for the measured time, after every account has done so once.
///
/// # Errors
/// When any login fails.
pub async fn run(options: &LoginOptions) -> anyhow::Result<Report<Logins>> {
    let circle = Circle {
        users: options.users,
        contacts: options.contacts,
    };
    if circle.contacts > circle.users {
        bail!("{} contacts need as many users", circle.contacts);
    }
    let fleet = Fleet::new(&options.server, true)?;
    let mut standing = match circle.contacts {
        0 => None,
        _ => {
            fleet.check_room(circle.users + options.concurrency)?;
            setup::subscribe(&fleet, circle, options.concurrency).await?;
            Some(Standing::begin(&fleet, circle, options.concurrency).await?)
        }
    };
    fleet.check_room(options.concurrency)?;
    let bar = progress::count("first logins", options.users as u64);
    // In slices, so that users need not fit into the open files.
    for first in (0..options.users).step_by(options.concurrency) {
        let slice = first..(first + options.concurrency).min(options.users);
        fleet.log_in(slice, options.concurrency, |_| bar.inc(1)).await?;
    }
    bar.finish_and_clear();

    let tally = std::rc::Rc::new(Tally::default());
    let mut running = JoinSet::new();
    for _ in 0..options.concurrency {
        let (fleet, tally) = (fleet.clone(), tally.clone());
        running.spawn_local(async move { log_in_again_and_again(&fleet, &tally, circle).await });
    }
    let lost = async {
        match &mut standing {
            Some(standing) => standing.lost().await,
            None => std::future::pending().await,
        }
    };
    let found = tokio::select! {
        found = watch(options, &tally) => found,
        Some(ended) = running.join_next() => match ended.context("a login panicked")? {
            Err(error) => Err(error),
        },
        Err(error) = lost => Err(error),
    };
    running.shutdown().await;
    found
}

#[derive(Debug, Default)]
struct Tally {
    next_user: Cell<usize>,
    logins: Cell<u64>,
    latencies: RefCell<Latencies>,
}

async fn log_in_again_and_again(
    fleet: &Fleet,
    tally: &Tally,
    circle: Circle,
) -> anyhow::Result<std::convert::Infallible> {
    let mut rest = vec![0; 4096];
    loop {
        let user = tally.next_user.get();
        tally.next_user.set((user + 1) % circle.users);
        let contacts = circle.addresses(user, fleet.server())?;
        let start = Instant::now();
        let mut session = fleet.open(user).await?;
        if !contacts.is_empty() {
            let arrived = arrive(&mut session, &contacts).await;
            arrived.with_context(|| format!("{} among its contacts", fleet.server().user(user)))?;
        }
        tally.latencies.borrow_mut().record(start.elapsed());
        tally.logins.set(tally.logins.get() + 1);
        // The server closes first, so that waiting for stray packets (TIME_WAIT) is on its side.
        let farewell = async {
            session.transport.write_all(b"</stream:stream>").await?;
            session.transport.flush().await?;
            while session.transport.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // A server that resets a connection it has said farewell on has closed it too.
        let _ = timeout(CLOSE_TIMEOUT, farewell)
            .await
            .context("the server does not close streams")?;
    }
}

async fn watch(options: &LoginOptions, tally: &Tally) -> anyhow::Result<Report<Logins>> {
    sleep(Duration::from_secs(1)).await;
    let process = options.server.process();
    let sample = || {
        process
            .map(|process| process.sample())
            .transpose()
            .context("reading the server's process")
    };
    tally.latencies.borrow_mut().clear();
    let logins_before = tally.logins.get();
    let before = sample()?;
    let watch = Watch::start()?;
    let bar = progress::clock("logins", options.duration);
    let start = Instant::now();
    while start.elapsed() < options.duration {
        sleep(Duration::from_millis(200).min(options.duration - start.elapsed().min(options.duration))).await;
        let rate = (tally.logins.get() - logins_before) as f64 / start.elapsed().as_secs_f64().max(1e-3);
        bar.set_prefix(format!("{rate:.0} logins/s"));
        bar.set_position(start.elapsed().as_millis() as u64);
    }
    bar.finish_and_clear();
    let after = sample()?;
    let verdict = watch.end()?;
    let logins = tally.logins.get() - logins_before;
    if logins == 0 {
        bail!("not one login in {:?}", options.duration);
    }
    let server = before
        .zip(after)
        .map(|(before, after)| ServerUse::between(before, after, verdict.wall_seconds));
    let latency = tally.latencies.borrow().summary();
    let found = Logins {
        concurrency: options.concurrency,
        contacts: options.contacts,
        logins,
        logins_per_second: logins as f64 / verdict.wall_seconds,
        latency,
        logins_per_server_cpu_second: server
            .as_ref()
            .filter(|server| server.cpu_seconds > 0.0)
            .map(|server| logins as f64 / server.cpu_seconds),
        server,
    };
    Ok(Report::new("login", found, verdict))
}

impl Tabular for Logins {
    fn rows(&self) -> Rows {
        let mut rows = Vec::new();
        if let Some(rate) = self.logins_per_server_cpu_second {
            rows.push(row("logins per server CPU second", format!("{rate:.0}")));
        }
        rows.push(row("logins per second", format!("{:.0}", self.logins_per_second)));
        rows.push(row("at the same time", self.concurrency.to_string()));
        if self.contacts > 0 {
            rows.push(row("contacts", self.contacts.to_string()));
        }
        rows.push(row("latency p50", microseconds(self.latency.p50_us as f64)));
        rows.push(row("latency p99", microseconds(self.latency.p99_us as f64)));
        rows.extend(self.server.iter().flat_map(ServerUse::rows));
        rows
    }
}
