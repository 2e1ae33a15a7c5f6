//! What a run says at its end: JSON for programs, a table for people.

use std::{fs, io, path::Path, time::SystemTime};

use serde::Serialize;

use crate::measure::{generator::Verdict, process::Sample};

/// The version of the JSON's form; it grows when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;

/// One run of one scenario.
#[derive(Debug, Serialize)]
pub struct Report<R> {
    format: u32,
    /// The scenario's name.
    pub scenario: &'static str,
    /// Seconds since 1970.
    unix_time: u64,
    /// The command line, without the program's name and with passwords left out.
    arguments: Vec<String>,
    /// What the scenario found.
    pub result: R,
    /// How the generator fared while it was found.
    pub generator: Verdict,
}

/// The server's process over the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct ServerUse {
    /// CPU time used in the measured time.
    pub cpu_seconds: f64,
    /// The same as a share of one processor.
    pub cpu_share: f64,
    /// Memory and threads at the end.
    pub after: Sample,
}

/// Rows of a table for people: what, and how much.
pub type Rows = Vec<(String, String)>;

/// A result that people can read.
pub trait Tabular {
    /// Its rows, the most important first.
    fn rows(&self) -> Rows;
}

impl<R: Serialize + Tabular> Report<R> {
    /// A report of now.
    pub fn new(scenario: &'static str, result: R, generator: Verdict) -> Self {
        let unix_time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        let arguments = without_passwords(std::env::args().skip(1));
        Self {
            format: FORMAT,
            scenario,
            unix_time,
            arguments,
            result,
            generator,
        }
    }

    /// Writes the JSON to `path`, or to standard output when that is `-`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        if path == Path::new("-") {
            return io::Write::write_all(&mut io::stdout(), json.as_bytes());
        }
        fs::write(path, json)
    }

    /// The table, ending with the word about the generator.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n{}", self.scenario, aligned(&self.result.rows()));
        text.push_str(&self.generator.sentence());
        text.push('\n');
        text
    }
}

impl ServerUse {
    /// From two samples and the seconds between them.
    pub fn between(before: Sample, after: Sample, wall_seconds: f64) -> Self {
        let cpu_seconds = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        Self {
            cpu_seconds,
            cpu_share: cpu_seconds / wall_seconds.max(f64::MIN_POSITIVE),
            after,
        }
    }

    /// Rows common to scenarios that measure CPU time.
    pub fn rows(&self) -> Rows {
        vec![
            row("server CPU", format!("{:.1} % of a processor", self.cpu_share * 100.0)),
            row("server memory", bytes(self.after.rss_bytes as f64)),
        ]
    }
}

/// One row of a table.
pub fn row(what: impl Into<String>, how_much: impl Into<String>) -> (String, String) {
    (what.into(), how_much.into())
}

/// A number of bytes for people.
pub fn bytes(count: f64) -> String {
    match count.abs() {
        size if size < 1024.0 => format!("{count:.0} B"),
        size if size < 1024.0 * 1024.0 => format!("{:.2} KiB", count / 1024.0),
        _ => format!("{:.1} MiB", count / (1024.0 * 1024.0)),
    }
}

/// Microseconds for people.
pub fn microseconds(count: f64) -> String {
    match count {
        short if short < 1000.0 => format!("{short:.1} µs"),
        some if some < 10_000.0 => format!("{:.2} ms", some / 1000.0),
        more if more < 1_000_000.0 => format!("{:.1} ms", more / 1000.0),
        long => format!("{:.2} s", long / 1_000_000.0),
    }
}

fn aligned(rows: &Rows) -> String {
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(what, how_much)| format!("  {what:width$}  {how_much}\n"))
        .collect()
}

/// A password template is no secret worth keeping in a load test, until somebody points it at a real server.
fn without_passwords(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut hide_next = false;
    let hide = |argument: String| {
        if std::mem::take(&mut hide_next) {
            return "***".to_owned();
        }
        hide_next = argument == "--password-template";
        match argument.split_once('=') {
            Some(("--password-template", _)) => "--password-template=***".to_owned(),
            _ => argument,
        }
    };
    arguments.map(hide).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn passwords_do_not_reach_the_report() {
        let arguments = [
            "login",
            "--password-template",
            "s3cret",
            "--users",
            "5",
            "--password-template=s3cret",
        ];
        let shown = without_passwords(arguments.iter().map(ToString::to_string));
        assert_eq!(
            shown,
            [
                "login",
                "--password-template",
                "***",
                "--users",
                "5",
                "--password-template=***"
            ]
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![row("p50", "1"), row("messages", "2")];
        assert_eq!(aligned(&rows), "  p50       1\n  messages  2\n");
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(bytes(54.0 * 1024.0), "54.00 KiB");
        assert_eq!(bytes(-12.0), "-12 B");
        assert_eq!(microseconds(162.3), "162.3 µs");
        assert_eq!(microseconds(1890.0), "1.89 ms");
        assert_eq!(microseconds(25_000.0), "25.0 ms");
        assert_eq!(microseconds(1_164_500.0), "1.16 s");
    }

    #[test]
    fn use_is_the_difference_of_two_samples() {
        let before = Sample {
            cpu: Duration::from_secs(10),
            ..Sample::default()
        };
        let after = Sample {
            cpu: Duration::from_secs(13),
            rss_bytes: 2 << 20,
            ..Sample::default()
        };
        let server = ServerUse::between(before, after, 4.0);
        assert_eq!(server.cpu_seconds, 3.0);
        assert_eq!(server.cpu_share, 0.75);
        assert_eq!(server.rows()[1].1, "2.0 MiB");
    }
}
