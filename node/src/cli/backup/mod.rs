//! `heronry backup DIR`: all rows of all shards, each shard as of one moment, and a manifest that is written last.
//!
//! What is in the directory is a backup when its manifest is; a command that did not come to its end leaves none.

pub(super) mod file;
pub(super) mod manifest;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use heronry_proto::admin::{BackupReply, BackupRequest, BackupShardRequest};
use tonic::{Code, Status};

use self::{
    file::{ShardFile, Sum},
    manifest::{MANIFEST, Manifest, Shard},
};
use super::{
    Failure,
    client::{self, Client},
    failure, progress, say,
};
use crate::config::Config;

/// How long a shard may have no leader, or its rows may break off, before the backup fails.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(60);

/// How long it waits before a shard is asked for again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The directory to write, for its owner alone (mode 0700): a new one, or an empty one
    directory: PathBuf,
    /// Say what was written as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BackupArgs, config: &Config) -> Result<(), Failure> {
    let began = Instant::now();
    let directory = &args.directory;
    let bar = progress::bar(Some(0));
    let made = client::ask_for_long(config, async |admin| {
        // Only a broker that answers makes a directory.
        let of = admin.backup(BackupRequest {}).await?.into_inner();
        if let Err(failure) = prepare(directory) {
            return Ok(Err(failure));
        }
        bar.set_length(of.shards.into());
        let mut shards = Vec::new();
        for shard in 0..of.shards {
            match back_up(admin, directory, shard, &|bytes| {
                let all: u64 = bytes + shards.iter().map(|shard: &Shard| shard.bytes).sum::<u64>();
                bar.set_message(format!("{} KiB", all >> 10));
            })
            .await?
            {
                Ok(shard) => shards.push(shard),
                Err(failure) => return Ok(Err(failure)),
            }
            bar.inc(1);
        }
        Ok(Ok((of, shards)))
    });
    bar.finish_and_clear();
    let (of, shards) = made??;
    let manifest = manifest(of, shards)?;
    manifest
        .write(directory)
        .map_err(|error| unwritable(&directory.join(MANIFEST), &error))?;
    report(args, &manifest, began.elapsed());
    Ok(())
}

/// A directory that can become a backup. What a backup that did not come to its end has left there is removed.
fn prepare(directory: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| unwritable(directory, &error);
    if !directory.exists() {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = fs::DirBuilder::new();
        return builder.recursive(true).mode(0o700).create(directory).map_err(failed);
    }
    let mut left = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if file::is_ours(&name.to_string_lossy()) {
            left.push(entry.path());
            continue;
        }
        let what = match name.to_str() {
            Some(MANIFEST) => "has a backup already",
            _ => "is not empty",
        };
        return Err(Failure::new(
            failure::USAGE,
            format!("{} {what}: name another directory", directory.display()),
        ));
    }
    left.into_iter().try_for_each(fs::remove_file).map_err(failed)
}

/// Writes one shard; again from its beginning when its rows break off.
async fn back_up(
    admin: &mut Client,
    directory: &Path,
    shard: u32,
    progress: &impl Fn(u64),
) -> Result<Result<Shard, Failure>, Status> {
    let path = directory.join(file::name(shard));
    let until = Instant::now() + UNAVAILABLE_MAX;
    loop {
        let status = match write_shard(admin, &path, shard, progress).await {
            Ok(Err(error)) => return Ok(Err(unwritable(&path, &error))),
            Ok(Ok(sum)) => match file::look(&path, |_, _| Ok(())) {
                Ok(looked) => {
                    return Ok(Ok(Shard {
                        shard,
                        file: file::name(shard),
                        bytes: sum.bytes,
                        sha256: sum.sha256,
                        rows: looked.rows,
                        accounts: looked.accounts,
                        term: looked.position.term,
                        index: looked.position.index,
                        at: looked.position.at.0,
                    }));
                }
                // The stream has ended before the shard's rows have.
                Err(problem) => Status::unavailable(format!("the rows of shard {shard} came in part only: {problem}")),
            },
            Err(status) => status,
        };
        if status.code() != Code::Unavailable || Instant::now() >= until {
            return Err(status);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

async fn write_shard(
    admin: &mut Client,
    path: &Path,
    shard: u32,
    progress: &impl Fn(u64),
) -> Result<io::Result<Sum>, Status> {
    let mut chunks = admin.backup_shard(BackupShardRequest { shard }).await?.into_inner();
    let mut file = match ShardFile::create(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    while let Some(reply) = chunks.message().await? {
        for chunk in &reply.chunks {
            if let Err(error) = file.add(chunk) {
                return Ok(Err(error));
            }
        }
        progress(file.bytes());
    }
    Ok(file.finish())
}

fn manifest(of: BackupReply, shards: Vec<Shard>) -> Result<Manifest, Failure> {
    let mut name = [0; 16];
    getrandom::fill(&mut name)
        .map_err(|error| Failure::new(1, format!("the system gives no random bytes: {error}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Manifest {
        form: manifest::FORM,
        backup: manifest::hex(&name),
        made: now.as_secs(),
        version: of.version,
        cluster: of.cluster,
        name: of.name,
        map_version: of.map_version,
        feature_level: of.feature_level,
        domains: of.domains,
        shards,
        sha256: String::new(),
    })
}

fn report(args: &BackupArgs, manifest: &Manifest, took: Duration) {
    let (bytes, rows, accounts) = manifest.sums();
    if args.json {
        return say(serde_json::json!({
            "backup": manifest.backup,
            "directory": args.directory,
            "cluster": manifest.cluster,
            "shards": manifest.shards.len(),
            "accounts": accounts,
            "rows": rows,
            "bytes": bytes,
            "seconds": took.as_secs_f64(),
        }));
    }
    say(format_args!(
        "{accounts} accounts ({rows} rows of {} shards, {} KiB) in {}",
        manifest.shards.len(),
        bytes >> 10,
        args.directory.display()
    ));
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { failure::FULL } else { failure::USAGE };
    Failure::new(code, format!("{} cannot be written: {error}", path.display()))
}
