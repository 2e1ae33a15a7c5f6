//! What the machine does beside us: limits, pinning, and how busy the processors are.

use std::{fs, io, time::Duration};

use rustix::{
    process::{Resource, getrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::Serializer;

/// Durations are written as seconds in every report.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Binds this thread, and the threads it starts from now on, to one processor.
///
/// # Errors
/// When there is no such processor, or the system does not allow it.
pub fn pin(processor: usize) -> io::Result<()> {
    if processor >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no such processor",
        ));
    }
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// How many processors this thread may run on.
///
/// # Errors
/// When the system refuses to tell.
pub fn processors_allowed() -> io::Result<u32> {
    Ok(sched_getaffinity(None)?.count())
}

/// How many files (sockets) this process may have open; `None` when there is no limit.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// CPU time that all processes together have used on all processors since the machine started, from `/proc/stat`.
///
/// # Errors
/// When `/proc/stat` cannot be read or has an unknown form.
pub fn busy() -> io::Result<Duration> {
    busy_in(
        &fs::read_to_string("/proc/stat")?,
        rustix::param::clock_ticks_per_second(),
    )
    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat has an unknown form"))
}

fn busy_in(text: &str, ticks_per_second: u64) -> Option<Duration> {
    // cpu  user nice system idle iowait irq softirq steal guest guest_nice; guest time is part of user already.
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .take(7)
        .collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq] = ticks.as_slice() else {
        return None;
    };
    Some(Duration::from_micros(
        (user + nice + system + irq + softirq) * 1_000_000 / ticks_per_second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_everything_but_waiting() {
        let text = "cpu  100 10 50 99999 777 3 37 12 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_in(text, 100), Some(Duration::from_secs(2)));
        assert_eq!(busy_in("intr 5\n", 100), None);
        assert_eq!(busy_in("cpu  1 2\n", 100), None);
    }

    #[test]
    fn a_pinned_thread_has_one_processor() {
        let count = std::thread::spawn(|| pin(0).and_then(|()| processors_allowed()))
            .join()
            .expect("thread");
        assert_eq!(count.expect("processor 0"), 1);
    }

    #[test]
    fn a_processor_that_does_not_exist_is_refused() {
        assert!(std::thread::spawn(|| pin(1023)).join().expect("thread").is_err());
        assert!(pin(usize::MAX).is_err());
    }
}
