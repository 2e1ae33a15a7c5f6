//! Real processes of the real binary.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// How long anything that has to happen may take on a machine that does other things, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A loopback address that no other test has: ports can be the same everywhere then.
pub(crate) fn own_address() -> Ipv4Addr {
    // From 1, so that the last byte is never 0, which is not an address of its own below.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let own = std::process::id()
        .wrapping_mul(64)
        .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let [_, a, b, c] = own.to_be_bytes();
    // Neither 127.0.x.y, where people's own services are, nor a host part of all ones.
    Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254))
}

/// A data directory and addresses of its own, and the flags that say so.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) ip: Ipv4Addr,
    pub(crate) flags: Vec<String>,
    /// A program that starts brokers here, with its arguments; empty: they are started as they are.
    pub(crate) through: Vec<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::at(own_address())
    }

    /// At an address that the caller knows to be free.
    pub(crate) fn at(ip: Ipv4Addr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let flags = vec![
            format!("--data={}", data.display()),
            format!("--set=admin.listen={ip}:5280"),
            format!("--set=edge.c2s={ip}:5222"),
            format!("--set=edge.c2s_tls={ip}:5223"),
        ];
        Self {
            directory,
            ip,
            flags,
            through: Vec::new(),
        }
    }

    /// With further flags.
    pub(crate) fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A command that finds this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = heronry(arguments);
        command.args(&self.flags).current_dir(self.directory.path());
        command
    }

    /// The token of the broker that runs here.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.data().join("admin.token"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Runs a command that ends by itself.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    /// Starts a broker here and waits until clients can connect.
    pub(crate) fn start(&self) -> Broker {
        self.start_with(&[])
    }

    /// Starts a broker here with further arguments of `run`.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Broker {
        let ours = self.command(&[&["run"], arguments].concat());
        let Some((program, before)) = self.through.split_first() else {
            return Broker::start(&mut { ours });
        };
        let mut command = Command::new(program);
        Broker::start(through(command.args(before), &ours))
    }
}

/// Adds a command of ours to one that starts commands.
pub(crate) fn through<'a>(starter: &'a mut Command, ours: &Command) -> &'a mut Command {
    starter
        .arg(ours.get_program())
        .args(ours.get_args())
        .stdin(Stdio::null());
    if let Some(directory) = ours.get_current_dir() {
        starter.current_dir(directory);
    }
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => starter.env(name, value),
            None => starter.env_remove(name),
        };
    }
    starter
}

/// The binary, without the environment's configuration.
pub(crate) fn heronry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heronry"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERONRY_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// The one line on standard error that is not a log line, with `place` as `DIR`.
    pub(crate) fn sentence(&self, place: &Path) -> String {
        let lines: Vec<_> = self
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("heronry: "))
            .collect();
        assert_eq!(lines.len(), 1, "not one sentence: {self:?}");
        lines[0].replace(&place.display().to_string(), "DIR")
    }

    /// Asserts that it did what it was told.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// A broker that accepts clients; killed when dropped.
pub(crate) struct Broker {
    process: Child,
    /// The first line on standard output.
    pub(crate) ready: String,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: mpsc::Receiver<String>,
}

impl Broker {
    /// Starts it and waits for its first line.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, stderr) = mpsc::channel();
        let mut errors = process.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (first, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut ready = String::new();
            // Ends with the process when there is no such line.
            stdout.read_line(&mut ready).unwrap();
            let _ = first.send((ready, stdout));
        });
        let (ready, stdout) = match line.recv_timeout(2 * PATIENCE) {
            Ok((ready, stdout)) => (ready, Some(stdout)),
            // What it says instead is told below.
            Err(_) => (String::new(), None),
        };
        let mut broker = Self {
            process,
            ready,
            stdout,
            stderr,
        };
        if !broker.ready.starts_with("heronry: ready") {
            let _ = broker.process.kill();
            panic!(
                "not ready: {:?} {}",
                broker.ready,
                broker.stderr.recv().unwrap_or_default()
            );
        }
        broker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal by name and waits for the end, which must come in time.
    pub(crate) fn end_with(mut self, signal: &str, limit: Duration) -> Ended {
        self.signal(signal);
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running {limit:?} after {signal}");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.ended(status)
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.process.wait().unwrap();
        self.ended(status)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn ended(&mut self, status: std::process::ExitStatus) -> Ended {
        let mut stdout = self.ready.clone();
        if let Some(mut rest) = self.stdout.take() {
            rest.read_to_string(&mut stdout).unwrap();
        }
        Ended {
            code: status.code(),
            stdout,
            stderr: self.stderr.recv_timeout(PATIENCE).unwrap(),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
