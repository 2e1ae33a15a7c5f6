//! Memory and CPU time of a process, or of a process and all its descendants, read from `/proc`.

use std::{collections::HashMap, fs, io, time::Duration};

use serde::Serialize;

/// A process to be watched, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
    with_descendants: bool,
}

/// What a process used at one moment. For a process tree, the sums over all of its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Resident memory in bytes. In a tree, pages shared between its processes are counted in each.
    pub rss_bytes: u64,
    /// Resident memory in bytes with shared pages divided by their users; `None` when the kernel does not let us read it.
    pub pss_bytes: Option<u64>,
    /// User and system time since the process started, without that of children that have ended. The kernel reports it in
    /// ticks, usually of 10 ms.
    #[serde(rename = "cpu_seconds", serialize_with = "super::machine::seconds")]
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// Processes summed up here; 1 unless descendants were asked for.
    pub processes: u64,
}

impl Process {
    /// The process `pid` alone.
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            with_descendants: false,
        }
    }

    /// The process `pid`, its children, their children and so on, as they are at the time of each sample.
    pub fn tree(pid: u32) -> Self {
        Self {
            pid,
            with_descendants: true,
        }
    }

    /// This process.
    pub fn own() -> Self {
        Self::new(std::process::id())
    }

    /// Reads `/proc` now.
    ///
    /// # Errors
    /// When the process does not exist (any more) or `/proc` cannot be read. A descendant that ends meanwhile is left out.
    pub fn sample(&self) -> io::Result<Sample> {
        let mut sum = sample_one(self.pid)?;
        if self.with_descendants {
            for pid in descendants(self.pid)? {
                if let Ok(sample) = sample_one(pid) {
                    sum = sum.plus(sample);
                }
            }
        }
        Ok(sum)
    }

    /// CPU time alone: cheaper than [`Process::sample`], which walks the page tables for the proportional share.
    ///
    /// # Errors
    /// As for [`Process::sample`].
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut sum = Stat::read(self.pid)?.cpu;
        if self.with_descendants {
            sum += descendants(self.pid)?
                .into_iter()
                .filter_map(|pid| Stat::read(pid).ok())
                .map(|stat| stat.cpu)
                .sum::<Duration>();
        }
        Ok(sum)
    }
}

impl Sample {
    fn plus(self, other: Self) -> Self {
        Self {
            rss_bytes: self.rss_bytes + other.rss_bytes,
            pss_bytes: self.pss_bytes.zip(other.pss_bytes).map(|(a, b)| a + b),
            cpu: self.cpu + other.cpu,
            threads: self.threads + other.threads,
            processes: self.processes + other.processes,
        }
    }
}

fn sample_one(pid: u32) -> io::Result<Sample> {
    let stat = Stat::read(pid)?;
    Ok(Sample {
        rss_bytes: stat.rss_pages * rustix::param::page_size() as u64,
        pss_bytes: fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .ok()
            .and_then(|text| pss_bytes(&text)),
        cpu: stat.cpu,
        threads: stat.threads,
        processes: 1,
    })
}

/// All descendants of `root`, by the parent ids of every process there is.
fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

fn pss_bytes(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// The fields of `/proc/PID/stat` (proc(5)) that we use.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu: Duration,
    threads: u64,
    rss_pages: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text, rustix::param::clock_ticks_per_second()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has an unknown form"),
            )
        })
    }

    fn parse(text: &str, ticks_per_second: u64) -> Option<Self> {
        // The second field is the command in parentheses and may itself contain both blanks and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1 and `rest` begins with field 3.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let ticks = field(14)? + field(15)?;
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
            cpu: Duration::from_micros(ticks * 1_000_000 / ticks_per_second),
            threads: field(20)?,
            rss_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_parentheses_is_stepped_over() {
        let text = "77 (beam) smp (x) S 5 77 77 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 11 0 99 1000000 1234 18446744073709551615";
        let stat = Stat {
            parent: 5,
            cpu: Duration::from_secs(3),
            threads: 11,
            rss_pages: 1234,
        };
        assert_eq!(Stat::parse(text, 100), Some(stat));
    }

    #[test]
    fn a_cut_off_line_is_refused() {
        assert_eq!(Stat::parse("77 (beam.smp) S 5 77", 100), None);
        assert_eq!(Stat::parse("77", 100), None);
    }

    #[test]
    fn the_proportional_share_is_found_among_its_neighbours() {
        assert_eq!(
            pss_bytes("Rss: 10 kB\nPss:                 301 kB\nPss_Dirty: 5 kB\n"),
            Some(301 * 1024)
        );
        assert_eq!(pss_bytes("Rss: 10 kB\nPss_Dirty: 5 kB\n"), None);
    }

    #[test]
    fn own_memory_and_cpu_time_grow_with_use() {
        let before = Process::own().sample().expect("own process");
        let mut block = vec![1u8; 32 << 20];
        while Process::own().cpu().expect("own process") < before.cpu + Duration::from_millis(30) {
            block.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        let after = Process::own().sample().expect("own process");
        assert!(after.rss_bytes > before.rss_bytes + (30 << 20), "{before:?} {after:?}");
        assert!(after.pss_bytes.is_none_or(|pss| pss <= after.rss_bytes), "{after:?}");
        assert!(block.iter().all(|byte| *byte == block[0]));
    }

    #[test]
    fn a_tree_has_its_child_and_a_lone_process_has_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let tree = Process::tree(std::process::id()).sample();
        let alone = Process::own().sample();
        child.kill().expect("own child");
        child.wait().expect("own child");
        assert_eq!(alone.expect("own process").processes, 1);
        assert!(tree.expect("own process").processes >= 2);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        child.wait().expect("own child");
        assert!(Process::new(child.id()).sample().is_err());
    }
}
