//! Was the generator itself the limit?
//!
//! A closed-loop generator that has no processor time left measures itself and not the server. Two signs are taken over
//! the measured time: its own CPU time against what its processors had to give, and how late a timer of its event loop
//! fires.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::AbortHandle;

use super::{latency::Latencies, machine, process::Process};

/// Above this share of its processors the generator is called the limit.
pub const CPU_SHARE_MAX: f64 = 0.90;
/// Above this lag (90th percentile) of its event loop the generator is called the limit.
pub const LAG_MAX: Duration = Duration::from_millis(20);

const LAG_PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Watches this process while something is measured. Made and ended on the thread whose event loop does the work, inside
/// a [`tokio::task::LocalSet`].
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    cpu_before: Duration,
    busy_before: Duration,
    lags: Rc<RefCell<Latencies>>,
    probe: AbortHandle,
}

/// How the generator fared.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Wall-clock time that was watched.
    pub wall_seconds: f64,
    /// CPU time this process used in it.
    pub cpu_seconds: f64,
    /// CPU time as a share of what one event loop can use: one processor.
    pub cpu_share: f64,
    /// How late the event loop's timers fired: 90th percentile, and the worst.
    pub lag_p90_us: u64,
    #[allow(missing_docs, reason = "said with lag_p90_us")]
    pub lag_max_us: u64,
    /// Processors' worth of CPU time that everybody on this machine used, generator and server included.
    pub machine_busy_processors: f64,
    /// The generator was the limit: rates and latencies of this run say little about the server.
    pub limited: bool,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn start() -> io::Result<Self> {
        let lags = Rc::new(RefCell::new(Latencies::default()));
        let probe = tokio::task::spawn_local(probe(lags.clone())).abort_handle();
        Ok(Self {
            started: Instant::now(),
            cpu_before: Process::own().cpu()?,
            busy_before: machine::busy()?,
            lags,
            probe,
        })
    }

    /// Ends watching and judges.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn end(self) -> io::Result<Verdict> {
        let wall = self.started.elapsed();
        let cpu = Process::own().cpu()?.saturating_sub(self.cpu_before);
        let busy = machine::busy()?.saturating_sub(self.busy_before);
        let lags = self.lags.borrow().summary();
        Ok(Verdict::judge(
            wall,
            cpu,
            busy,
            Duration::from_micros(lags.p90_us),
            Duration::from_micros(lags.max_us),
        ))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

impl Verdict {
    fn judge(wall: Duration, cpu: Duration, busy: Duration, lag_p90: Duration, lag_max: Duration) -> Self {
        let wall_seconds = wall.as_secs_f64().max(f64::MIN_POSITIVE);
        let cpu_share = cpu.as_secs_f64() / wall_seconds;
        Self {
            wall_seconds,
            cpu_seconds: cpu.as_secs_f64(),
            cpu_share,
            lag_p90_us: lag_p90.as_micros() as u64,
            lag_max_us: lag_max.as_micros() as u64,
            machine_busy_processors: busy.as_secs_f64() / wall_seconds,
            limited: cpu_share > CPU_SHARE_MAX || lag_p90 > LAG_MAX,
        }
    }

    /// One sentence for a person.
    pub fn sentence(&self) -> String {
        let used = format!(
            "it used {:.0} % of its processor, its event loop was {:.1} ms late (p90)",
            self.cpu_share * 100.0,
            self.lag_p90_us as f64 / 1000.0
        );
        match self.limited {
            false => format!("the generator was not the limit: {used}"),
            true if self.cpu_share > CPU_SHARE_MAX => format!("the generator itself was the limit: {used}"),
            true => format!(
                "the generator itself was the limit, kept waiting by others: {used}, {:.1} processors of the machine were busy",
                self.machine_busy_processors
            ),
        }
    }
}

async fn probe(lags: Rc<RefCell<Latencies>>) {
    loop {
        let due = Instant::now() + LAG_PROBE_INTERVAL;
        tokio::time::sleep_until(due.into()).await;
        // The timer wheel ticks in milliseconds; up to one is not lag.
        let lag = due.elapsed().saturating_sub(Duration::from_millis(1));
        lags.borrow_mut().record_periodic(lag, LAG_PROBE_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn judge(cpu_ms: u64, lag_ms: u64) -> Verdict {
        let lag = Duration::from_millis(lag_ms);
        Verdict::judge(SECOND, Duration::from_millis(cpu_ms), SECOND, lag, lag)
    }

    #[test]
    fn a_busy_processor_or_a_late_event_loop_is_the_limit() {
        assert!(!judge(850, 1).limited);
        assert!(judge(950, 1).limited);
        assert!(judge(300, 25).limited);
        assert!(
            judge(950, 1)
                .sentence()
                .starts_with("the generator itself was the limit: it used 95 %")
        );
    }

    #[test]
    fn a_blocked_event_loop_is_noticed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let local = tokio::task::LocalSet::new();
        let verdict = local.block_on(&runtime, async {
            let watch = Watch::start().expect("/proc");
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::thread::sleep(Duration::from_millis(60));
            }
            watch.end().expect("/proc")
        });
        assert!(verdict.limited && verdict.lag_max_us > 20_000, "{verdict:?}");
    }
}
