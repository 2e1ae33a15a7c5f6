//! `heronry restore DIR`: a backup comes into a new cluster, of any size. Everything is checked before anything is written; said
//! again after it broke off, it goes on.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use heronry_proto::{
    admin::{RestoreAdvanceRequest, RestoreBeginRequest, RestorePhase, RestoreRowsRequest},
    raft::SnapshotRow,
};
use heronry_xmpp::shard::Phase;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Failure,
    backup::{
        file,
        manifest::{MANIFEST, Manifest, Unreadable},
    },
    client::{self, Client},
    failure, progress, say,
};
use crate::config::Config;

/// Bytes of rows in one request, one row more or less.
const REQUEST_BYTES: usize = 256 << 10;

/// Requests that wait to be sent.
const WAITING_MAX: usize = 4;

/// Requests under way. Effects keep their order: one at a time.
const UNDER_WAY_MAX: usize = 8;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What `heronry backup` has written
    directory: PathBuf,
    /// Only read the backup and check that it is whole; no broker is needed
    #[arg(long)]
    check: bool,
    /// Say what was restored as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RestoreArgs, config: &Config) -> Result<(), Failure> {
    let began = Instant::now();
    let manifest = read_manifest(&args.directory)?;
    let (bytes, ..) = manifest.sums();
    let bar = progress::bar(Some(bytes));
    let checked = check(&args.directory, &manifest, &bar);
    bar.finish_and_clear();
    checked?;
    if args.check {
        report(args, &manifest, "checked", began.elapsed());
        return Ok(());
    }
    let bar = progress::bar(Some(3 * bytes));
    let restored = client::ask_for_long(config, async |admin| {
        restore(admin, &args.directory, &manifest, &bar).await
    });
    bar.finish_and_clear();
    let what = if restored?? { "restored" } else { "restored already" };
    report(args, &manifest, what, began.elapsed());
    Ok(())
}

fn read_manifest(directory: &Path) -> Result<Manifest, Failure> {
    let path = directory.join(MANIFEST);
    let path = path.display();
    Manifest::read(directory).map_err(|error| match error {
        Unreadable::Missing => Failure::new(
            failure::USAGE,
            format!("there is no {path}: that is no backup, or one that was not finished"),
        ),
        Unreadable::Newer(form) => Failure::new(
            failure::NEWER,
            format!("{path} was written by a newer version (its form is {form}): upgrade this program"),
        ),
        Unreadable::Damaged(problem) => Failure::new(
            failure::DAMAGED,
            format!("{path} is damaged or cannot be read: {problem}"),
        ),
    })
}

/// Whether every file is as it was written, and can be read.
fn check(directory: &Path, manifest: &Manifest, bar: &ProgressBar) -> Result<(), Failure> {
    bar.set_message("checking");
    for shard in &manifest.shards {
        let path = directory.join(file::name(shard.shard));
        let damaged =
            |problem: String| Failure::new(failure::DAMAGED, format!("{} is damaged: {problem}", path.display()));
        let sum = file::sum(&path, |read| bar.inc(read))
            .map_err(|error| Failure::new(failure::DAMAGED, format!("{} cannot be read: {error}", path.display())))?;
        if sum.bytes != shard.bytes {
            return Err(damaged(format!("it has {} bytes and had {}", sum.bytes, shard.bytes)));
        }
        if sum.sha256 != shard.sha256 {
            return Err(damaged("its checksum is wrong".to_owned()));
        }
        // Whole, and yet not understood: then by this version.
        let looked = file::look(&path, |_, _| Ok(())).map_err(|problem| {
            let sentence = format!("{} cannot be read by this version: {problem}", path.display());
            Failure::new(failure::NEWER, sentence)
        })?;
        if (looked.rows, looked.accounts) != (shard.rows, shard.accounts) {
            return Err(damaged("it has not the rows that the manifest says".to_owned()));
        }
    }
    Ok(())
}

/// Whether there was anything left to do.
async fn restore(
    admin: &mut Client,
    directory: &Path,
    manifest: &Manifest,
    bar: &ProgressBar,
) -> Result<Result<bool, Failure>, Status> {
    let backup = manifest.id().to_be_bytes().to_vec();
    let begin = RestoreBeginRequest {
        backup: backup.clone().into(),
        feature_level: manifest.feature_level,
        domains: manifest.domains.clone(),
        at: manifest.shards.iter().map(|shard| shard.at).max().unwrap_or_default(),
    };
    let mut phase = phase(admin.restore_begin(begin).await?.into_inner().phase());
    if phase == Phase::Done {
        return Ok(Ok(false));
    }
    while phase != Phase::Done {
        let (send, requests) = mpsc::channel(WAITING_MAX);
        bar.set_position(phase as u64 * manifest.sums().0);
        bar.set_message(match phase {
            Phase::Belongings => "what accounts own",
            Phase::Accounts => "accounts",
            Phase::Effects | Phase::Done => "what was under way",
        });
        let reading = Reading {
            directory: directory.to_owned(),
            manifest: manifest.clone(),
            phase,
            send,
            bar: bar.clone(),
        };
        let reader = tokio::task::spawn_blocking(move || reading.read());
        let at_once = if phase == Phase::Effects { 1 } else { UNDER_WAY_MAX };
        let sent = ReceiverStream::new(requests)
            .map(|rows| {
                let mut admin = admin.clone();
                let backup = backup.clone().into();
                let phase = wire_phase(phase).into();
                async move { admin.restore_rows(RestoreRowsRequest { backup, phase, rows }).await }
            })
            .buffered(at_once)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await;
        let read = reader
            .await
            .unwrap_or_else(|_| Err("the backup could not be read".to_owned()));
        sent?;
        if let Err(problem) = read {
            return Ok(Err(Failure::new(failure::DAMAGED, problem)));
        }
        phase = phase.next();
        let advance = RestoreAdvanceRequest {
            backup: backup.clone().into(),
            to: wire_phase(phase).into(),
        };
        admin.restore_advance(advance).await?;
    }
    Ok(Ok(true))
}

/// Reads the rows of one phase on a thread of its own; what waits to be sent is bounded.
struct Reading {
    directory: PathBuf,
    manifest: Manifest,
    phase: Phase,
    send: mpsc::Sender<Vec<SnapshotRow>>,
    bar: ProgressBar,
}

impl Reading {
    fn read(self) -> Result<(), String> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for shard in &self.manifest.shards {
            let path = self.directory.join(file::name(shard.shard));
            let looked = file::look(&path, |phase, (key, value)| {
                if phase != self.phase {
                    return Ok(());
                }
                let more = key.len() + value.len();
                if bytes + more > REQUEST_BYTES && !rows.is_empty() {
                    self.send(std::mem::take(&mut rows))?;
                    bytes = 0;
                }
                bytes += more;
                rows.push(SnapshotRow { key, value });
                Ok(())
            });
            looked.map_err(|problem| format!("{}: {problem}", path.display()))?;
            self.bar.inc(shard.bytes);
        }
        if !rows.is_empty() {
            self.send(rows)?;
        }
        Ok(())
    }

    fn send(&self, rows: Vec<SnapshotRow>) -> Result<(), String> {
        // The broker has given up; it says why itself.
        let gone = |_| "the broker takes no more".to_owned();
        self.send.blocking_send(rows).map_err(gone)
    }
}

fn phase(phase: RestorePhase) -> Phase {
    match phase {
        RestorePhase::Belongings => Phase::Belongings,
        RestorePhase::Accounts => Phase::Accounts,
        RestorePhase::Effects => Phase::Effects,
        RestorePhase::Restored => Phase::Done,
    }
}

fn wire_phase(phase: Phase) -> RestorePhase {
    match phase {
        Phase::Belongings => RestorePhase::Belongings,
        Phase::Accounts => RestorePhase::Accounts,
        Phase::Effects => RestorePhase::Effects,
        Phase::Done => RestorePhase::Restored,
    }
}

fn report(args: &RestoreArgs, manifest: &Manifest, what: &str, took: Duration) {
    let (bytes, rows, accounts) = manifest.sums();
    if args.json {
        return say(serde_json::json!({
            "backup": manifest.backup,
            "what": what,
            "shards": manifest.shards.len(),
            "accounts": accounts,
            "rows": rows,
            "bytes": bytes,
            "seconds": took.as_secs_f64(),
        }));
    }
    say(format_args!(
        "{accounts} accounts of cluster {} ({}) {what}",
        manifest.name, manifest.cluster
    ));
}
