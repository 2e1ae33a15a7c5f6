//! `heronry user import FILE`: accounts from CSV ([`super::accounts`]) to the broker, some hundred at a time.
//!
//! The file is read once, while it is sent; what waits between the two is bounded. Whatever is not imported is named: a line that
//! cannot be used by its number, an account that the broker refuses by the number of its first line.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use heronry_proto::admin::{ExistingUsers, ImportedUser, UserImportReply, UserImportRequest};
use heronry_xmpp::jid::BareJid;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Failure,
    accounts::{Accounts, BadLine},
    client, failure, progress, say,
};
use crate::config::Config;

/// Requests that wait to be sent.
const WAITING_MAX: usize = 8;

/// Accounts in one request.
const KEYS_AT_ONCE: usize = 512;

/// Accounts with passwords in one request: each keeps a processor of the broker busy for some 20 ms.
const PASSWORDS_AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// CSV with a header: jid,password or jid,mechanism,iterations,salt,stored_key,server_key (base64); - is standard input
    file: PathBuf,
    /// What happens to accounts that exist: they get the new credentials and their sessions end, or they stay as they are, or that
    /// is a refusal. One that has exactly these keys already is kept in any case
    #[arg(long, value_enum, default_value_t)]
    existing: ExistingArg,
    /// Only read the file and name the lines that cannot be used; no broker is needed
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExistingArg {
    #[default]
    Replace,
    Keep,
    Refuse,
}

/// What became of the accounts.
#[derive(Default)]
struct Sums {
    created: u64,
    replaced: u64,
    kept: u64,
    refused: u64,
}

pub(super) fn run(args: &ImportArgs, config: &Config) -> Result<(), Failure> {
    let name = if args.file == Path::new("-") {
        "standard input".to_owned()
    } else {
        args.file.display().to_string()
    };
    let unusable = |problem: String| Failure::new(failure::USAGE, format!("{name} cannot be imported: {problem}"));
    let (file, bytes) = open(&args.file).map_err(|error| unusable(error.to_string()))?;
    let accounts = Accounts::new(file).map_err(unusable)?;
    let bar = progress::bar(bytes);
    if args.check {
        return check(accounts, &bar, &name).map_err(unusable)?;
    }

    let began = Instant::now();
    let (send, requests) = mpsc::channel(WAITING_MAX);
    let (bar_of_reader, existing) = (bar.clone(), args.existing);
    let reader = std::thread::spawn(move || read(accounts, existing, &send, &bar_of_reader));
    let asked = client::ask_for_long(config, async |admin| {
        let mut replies = admin.user_import(ReceiverStream::new(requests)).await?.into_inner();
        let mut sums = Sums::default();
        while let Some(reply) = replies.message().await? {
            sums.add(reply, &bar);
        }
        Ok(sums)
    });
    bar.finish_and_clear();
    let read = reader
        .join()
        .unwrap_or_else(|_| (0, Err("it could not be read".to_owned())));
    let mut sums = asked?;
    sums.refused += read.0;
    sums.report(began.elapsed());
    read.1.map_err(unusable)?;
    if sums.refused == 0 {
        return Ok(());
    }
    let sentence = format!("{} accounts or lines were refused; the others are there", sums.refused);
    Err(Failure::new(failure::REFUSED, sentence))
}

/// The file and, where that is known, how long it is.
fn open(file: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(file)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

/// Sends what is in the file; says how many lines were no use, and why it could not be read to its end.
fn read(
    mut accounts: Accounts<impl Read>,
    existing: ExistingArg,
    send: &mpsc::Sender<UserImportRequest>,
    bar: &ProgressBar,
) -> (u64, Result<(), String>) {
    let at_once = if accounts.has_passwords() {
        PASSWORDS_AT_ONCE
    } else {
        KEYS_AT_ONCE
    };
    let request = |users| UserImportRequest {
        users,
        existing: existing.wire().into(),
    };
    let (mut users, mut bad) = (Vec::with_capacity(at_once), 0);
    loop {
        match accounts.next() {
            Ok(Some(Ok(account))) => users.push(account),
            Ok(Some(Err(line))) => {
                bad += 1;
                name(&line, bar);
            }
            Ok(None) => break,
            Err(problem) => {
                let _ = send.blocking_send(request(users));
                return (bad, Err(problem));
            }
        }
        if users.len() >= at_once {
            bar.set_position(accounts.bytes());
            let full = std::mem::replace(&mut users, Vec::with_capacity(at_once));
            // The broker has given up; it says why itself.
            if send.blocking_send(request(full)).is_err() {
                return (bad, Ok(()));
            }
        }
    }
    let _ = send.blocking_send(request(users));
    (bad, Ok(()))
}

/// Reads the file and says how it is.
fn check(mut accounts: Accounts<impl Read>, bar: &ProgressBar, file: &str) -> Result<Result<(), Failure>, String> {
    let (mut good, mut bad) = (0_u64, 0_u64);
    while let Some(account) = accounts.next()? {
        let account = account.and_then(|account| address(&account).map(|_| account));
        match account {
            Ok(_) => good += 1,
            Err(line) => {
                bad += 1;
                name(&line, bar);
            }
        }
        if good % KEYS_AT_ONCE as u64 == 0 {
            bar.set_position(accounts.bytes());
        }
    }
    bar.finish_and_clear();
    say(format_args!("{file}: {good} accounts, {bad} lines that cannot be used"));
    Ok(match bad {
        0 => Ok(()),
        _ => Err(Failure::new(
            failure::REFUSED,
            format!("{bad} lines cannot be used; nothing was sent"),
        )),
    })
}

fn address(account: &ImportedUser) -> Result<(), BadLine> {
    let bad = |problem| BadLine {
        line: account.number,
        problem,
    };
    match BareJid::parse(&account.jid) {
        Ok(jid) if jid.local().is_some() => Ok(()),
        Ok(jid) => Err(bad(format!("{jid} is a domain"))),
        Err(error) => Err(bad(format!(
            "{:?} is not the address of an account: {error}",
            account.jid
        ))),
    }
}

fn name(line: &BadLine, bar: &ProgressBar) {
    bar.suspend(|| say(format_args!("line {}: {}", line.line, line.problem)));
}

impl ExistingArg {
    fn wire(self) -> ExistingUsers {
        match self {
            Self::Replace => ExistingUsers::Replace,
            Self::Keep => ExistingUsers::Keep,
            Self::Refuse => ExistingUsers::Refuse,
        }
    }
}

impl Sums {
    fn add(&mut self, reply: UserImportReply, bar: &ProgressBar) {
        self.created += reply.created;
        self.replaced += reply.replaced;
        self.kept += reply.kept;
        self.refused += reply.refusals.len() as u64;
        bar.set_message(format!("{} accounts", self.created + self.replaced + self.kept));
        for refusal in reply.refusals {
            let problem = format!("{}: {}", refusal.jid, refusal.reason);
            let line = refusal.number;
            name(&BadLine { line, problem }, bar);
        }
    }

    fn report(&self, took: Duration) {
        let Self {
            created,
            replaced,
            kept,
            refused,
        } = self;
        let seconds = took.as_secs_f64();
        let rate = (created + replaced + kept + refused) as f64 / seconds.max(1e-9);
        say(format_args!(
            "{created} created, {replaced} replaced, {kept} kept, {refused} refused in {seconds:.1} s ({rate:.0} a second)"
        ));
    }
}
