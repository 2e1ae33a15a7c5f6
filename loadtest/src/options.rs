//! The command line.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Simulated devices that measure an XMPP server: any server, by its address and its process id.
///
/// Accounts must exist: user number n is PREFIXn@DOMAIN with the password of the template.
#[derive(Debug, Parser)]
#[command(name = "heronry-loadtest", version)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each variant's documentation is its type's")]
pub enum Scenario {
    Idle(IdleOptions),
    Messages(MessagesOptions),
    Login(LoginOptions),
    Floor(FloorOptions),
    Steady(SteadyOptions),
    Check(CheckOptions),
    /// The relay that `floor` measures; not meant to be started by hand.
    #[command(hide = true)]
    Relay,
}

/// Opens sessions and leaves them idle: bytes of server memory per session.
#[derive(Debug, Args)]
pub struct IdleOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub output: OutputOptions,
    /// Numbers of sessions at which memory is read, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,19000")]
    pub steps: Vec<usize>,
    /// Sessions being opened at the same time.
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// Wait after each step before memory is read, in seconds: collectors run, buffers shrink.
    #[arg(long, value_parser = seconds, default_value = "5")]
    pub settle: Duration,
    /// Send initial presence in every session.
    #[arg(long)]
    pub presence: bool,
}

/// Pairs of sessions exchange chat messages: CPU time per message, latencies, messages per second.
#[derive(Debug, Args)]
pub struct MessagesOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub output: OutputOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub traffic: TrafficOptions,
    /// Where those log in who receive, if elsewhere than those who send: another edge of a cluster.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub receivers: Option<SocketAddr>,
}

/// Logs in and out again and again: logins per second of server CPU time.
#[derive(Debug, Args)]
pub struct LoginOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub output: OutputOptions,
    /// Accounts that take turns.
    #[arg(long, default_value_t = 100)]
    pub users: usize,
    /// Logins going on at the same time.
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
    /// Contacts of each account. A login then also asks for the roster, says that it is there and waits until every contact's
    /// presence has come. The contacts are as many further accounts as there are users, which stay all the time; before
    /// anything is measured they all subscribe to each other, unless they have.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub contacts: usize,
    /// Measured time in seconds.
    #[arg(long, value_parser = seconds, default_value = "10")]
    pub duration: Duration,
}

/// What any server must pay: the message traffic through a relay that reads and writes and understands nothing.
#[derive(Debug, Args)]
pub struct FloorOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub traffic: TrafficOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub output: OutputOptions,
    /// Pin the relay to this processor.
    #[arg(long)]
    pub relay_pin: Option<usize>,
    /// Pin the generator to this processor.
    #[arg(long)]
    pub pin: Option<usize>,
}

/// Devices talk at a steady rate and come back when their connection is lost: what becomes of sockets and messages while something
/// happens to the server.
#[derive(Debug, Args)]
pub struct SteadyOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "options common to scenarios")]
    pub output: OutputOptions,
    /// Further addresses of the server. Devices take turns in where they go first, and go to the next when that is gone.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, value_delimiter = ',')]
    pub also: Vec<SocketAddr>,
    /// Devices; each sends to the account of the next.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: u32,
    /// Devices that log in at the same time.
    #[arg(long, default_value_t = 16)]
    pub concurrency: usize,
    /// From one round of a device to the next, in seconds; it also waits for its acknowledgements.
    #[arg(long, value_parser = seconds, default_value = "1")]
    pub interval: Duration,
    /// Messages in each round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub burst: u32,
    /// Bytes of text in each body.
    #[arg(long, default_value_t = 100)]
    pub body_bytes: usize,
    /// A device writes or reads a row of its account (XEP-0049) in every so many rounds; 0 is never.
    #[arg(long, value_name = "ROUNDS", default_value_t = 5)]
    pub rows_every: u32,
    /// How long, in seconds. What is under way then may arrive within a minute.
    #[arg(long, value_parser = seconds, default_value = "10")]
    pub duration: Duration,
    /// Write what devices see to this file, as lines of JSON for `check`.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Say every second on standard output how it goes.
    #[arg(long)]
    pub watch: bool,
}

/// Reads histories that `steady --history` has written, and says which promises of a server do not hold in them. Each file is a
/// history of its own. Exit code 1: something does not hold.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// Histories.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Message traffic: in each pair A sends and B receives; B never answers.
#[derive(Clone, Debug, Args)]
pub struct TrafficOptions {
    /// Pairs of sessions.
    #[arg(long, default_value_t = 50)]
    pub pairs: usize,
    /// Messages of each pair that were sent and not yet received.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,
    /// Bytes of text in each body.
    #[arg(long, default_value_t = 100)]
    pub body_bytes: usize,
    /// Time before measuring starts, in seconds.
    #[arg(long, value_parser = seconds, default_value = "2")]
    pub warm_up: Duration,
    /// Measured time in seconds.
    #[arg(long, value_parser = seconds, default_value = "10")]
    pub duration: Duration,
}

/// The server and the accounts on it.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Address of the server.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, default_value = "127.0.0.1:5222")]
    pub server: SocketAddr,
    /// XMPP domain of the accounts.
    #[arg(long, default_value = "localhost")]
    pub domain: String,
    /// Local part of the accounts before their number.
    #[arg(long, value_name = "PREFIX", default_value = "u")]
    pub user_prefix: String,
    /// Passwords; {n} becomes the account's number.
    #[arg(long, value_name = "TEMPLATE", default_value = "p{n}")]
    pub password_template: String,
    /// Number of the first account.
    #[arg(long, default_value_t = 0)]
    pub first_user: usize,
    /// How the stream is encrypted.
    #[arg(long, value_enum, default_value_t = TlsMode::None)]
    pub tls: TlsMode,
    /// Certificates (PEM) the server's must be signed by or be one of. Without it any certificate will do.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Only this SASL mechanism; otherwise the strongest SCRAM offered.
    #[arg(long, value_name = "NAME")]
    pub mechanism: Option<String>,
    /// Bind authentication to the TLS connection where offered. Off, so that servers that differ in it can be compared.
    #[arg(long)]
    pub channel_binding: bool,
    /// Connect from this many addresses, 127.0.0.1 and up: each has some 28 000 ports. 0 leaves it to the system.
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=250))]
    pub source_addresses: u8,
    /// The server's process on this machine, to be measured.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Measure the descendants of that process too.
    #[arg(long, requires = "pid")]
    pub pid_tree: bool,
    /// Pin the generator to this processor.
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,
}

/// Where the result goes.
#[derive(Clone, Debug, Args)]
pub struct OutputOptions {
    /// Write the report as JSON to this file; - is standard output, without the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "XMPP's words")]
pub enum TlsMode {
    None,
    Starttls,
    Direct,
}

impl ServerOptions {
    /// Local part of account `number` counted from the first.
    pub fn user(&self, number: usize) -> String {
        format!("{}{}", self.user_prefix, self.first_user + number)
    }

    /// Its password.
    pub fn password(&self, number: usize) -> String {
        self.password_template
            .replace("{n}", &(self.first_user + number).to_string())
    }

    /// The process to measure.
    pub fn process(&self) -> Option<crate::measure::process::Process> {
        use crate::measure::process::Process;
        self.pid.map(|pid| {
            if self.pid_tree {
                Process::tree(pid)
            } else {
                Process::new(pid)
            }
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no such host".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn accounts_are_numbered_from_the_first() {
        let Ok(Options {
            scenario: Scenario::Login(login),
        }) = parse("x login --user-prefix dev --first-user 10 --password-template p-{n}!")
        else {
            panic!("login");
        };
        assert_eq!(
            (login.server.user(5), login.server.password(5)),
            ("dev15".into(), "p-15!".into())
        );
    }

    #[test]
    fn steps_are_a_list_and_durations_are_seconds() {
        let Ok(Options {
            scenario: Scenario::Idle(idle),
        }) = parse("x idle --steps 5,7 --settle 0.5")
        else {
            panic!("idle");
        };
        assert_eq!((idle.steps, idle.settle), (vec![5, 7], Duration::from_millis(500)));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "x messages --window 0",
            "x login --duration -1",
            "x idle --tls ssl3",
            "x idle --pid-tree",
            "x idle --server example.org",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
