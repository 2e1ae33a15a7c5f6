//! Idle sessions: bytes of server memory for each.

use std::future::poll_fn;

use anyhow::{Context, bail};
use heronry_client::connection::OpenSession;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fleet::Fleet,
    measure::{
        generator::Watch,
        process::{Process, Sample},
    },
    options::IdleOptions,
    progress,
    report::{Report, Rows, Tabular, bytes, row},
    traffic::{End, Stopped},
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// The server's process before the first session; `None` when its id was not given.
    pub before: Option<Sample>,
    /// One entry for each number of sessions.
    pub steps: Vec<Step>,
}

/// Memory at one number of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Sessions open.
    pub sessions: usize,
    /// Sessions that the server had closed by then.
    pub lost: usize,
    /// The server's process.
    pub server: Option<Sample>,
    /// Resident memory per session beyond what was there before the first.
    pub rss_bytes_per_session: Option<f64>,
    /// The same with shared pages divided by their users.
    pub pss_bytes_per_session: Option<f64>,
}

/// Opens sessions step by step and reads the server's memory at each.
///
/// # Errors
/// When an account cannot log in, steps are not ascending, or sockets do not suffice.
pub async fn run(options: &IdleOptions) -> anyhow::Result<Report<Idle>> {
    let Some(most) = options.steps.last().copied() else {
        bail!("no steps")
    };
    if options.steps.first() == Some(&0) || !options.steps.is_sorted_by(|a, b| a < b) {
        bail!("steps are ascending numbers of sessions");
    }
    let fleet = Fleet::new(&options.server, false)?;
    fleet.check_room(most)?;
    let process = options.server.process();
    let sample = |process: &Option<Process>| process.map(|process| process.sample()).transpose();
    let before = sample(&process).context("reading the server's process")?;
    let watch = Watch::start()?;

    let mut idle = JoinSet::new();
    let (mut steps, mut opened, mut lost) = (Vec::new(), 0, 0);
    let bar = progress::count("sessions", most as u64);
    for &sessions in &options.steps {
        let count = |_: &OpenSession| bar.inc(1);
        for session in fleet.log_in(opened..sessions, options.concurrency, count).await? {
            idle.spawn_local(stay(session, options.presence));
        }
        opened = sessions;
        sleep(options.settle).await;
        while idle.try_join_next().is_some() {
            lost += 1;
        }
        let server = sample(&process).context("reading the server's process")?;
        steps.push(Step::new(sessions, lost, before.as_ref(), server));
    }
    bar.finish_and_clear();
    let verdict = watch.end()?;
    Ok(Report::new("idle", Idle { before, steps }, verdict))
}

/// Keeps a session open until the server ends it. Its socket is read, its stanzas are dropped.
async fn stay(session: OpenSession, presence: bool) -> Stopped {
    let mut end = End::from(session);
    if presence && let Err(error) = end.write(b"<presence/>").await {
        return Stopped::Io(error);
    }
    loop {
        if let Err(stopped) = poll_fn(|cx| end.poll_elements(cx, |_| Ok(()))).await {
            return stopped;
        }
    }
}

impl Step {
    fn new(sessions: usize, lost: usize, before: Option<&Sample>, server: Option<Sample>) -> Self {
        let per_session = |after: u64, before: u64| (after as f64 - before as f64) / sessions as f64;
        let both = before.zip(server.as_ref());
        Self {
            sessions,
            lost,
            rss_bytes_per_session: both.map(|(before, after)| per_session(after.rss_bytes, before.rss_bytes)),
            pss_bytes_per_session: both
                .and_then(|(before, after)| after.pss_bytes.zip(before.pss_bytes))
                .map(|(after, before)| per_session(after, before)),
            server,
        }
    }
}

impl Tabular for Idle {
    fn rows(&self) -> Rows {
        let mut rows: Rows = self
            .before
            .iter()
            .map(|before| row("server before", bytes(before.rss_bytes as f64)))
            .collect();
        for step in &self.steps {
            let size = step
                .rss_bytes_per_session
                .map_or_else(|| "open".to_owned(), |size| format!("{} each", bytes(size)));
            let lost = if step.lost == 0 {
                String::new()
            } else {
                format!(", {} lost", step.lost)
            };
            rows.push(row(format!("{} sessions", step.sessions), size + &lost));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_divided_by_sessions() {
        let before = Sample {
            rss_bytes: 10_000,
            pss_bytes: Some(9_000),
            ..Sample::default()
        };
        let after = Sample {
            rss_bytes: 30_000,
            pss_bytes: None,
            ..Sample::default()
        };
        let step = Step::new(10, 1, Some(&before), Some(after));
        assert_eq!(
            (step.rss_bytes_per_session, step.pss_bytes_per_session),
            (Some(2_000.0), None)
        );
        let idle = Idle {
            before: Some(before),
            steps: vec![step, Step::new(20, 0, None, None)],
        };
        assert_eq!(idle.rows()[1], row("10 sessions", "1.95 KiB each, 1 lost"));
        assert_eq!(idle.rows()[2], row("20 sessions", "open"));
    }
}
