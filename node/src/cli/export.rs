//! `heronry user export FILE`: accounts with their keys, as CSV that `heronry user import` reads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use heronry_proto::admin::UserListRequest;
use tonic::Status;

use super::{Failure, accounts, client, failure, progress, say, user::FilterArgs};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write, for its owner alone (mode 0600); - is standard output
    file: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
    /// Replace the file when there is one
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: ExportArgs, config: &Config) -> Result<(), Failure> {
    let ExportArgs { file, filter, force } = args;
    if file == Path::new("-") {
        return export(io::stdout().lock(), "standard output", filter.request(), config).map(drop);
    }
    let name = file.display().to_string();
    let unwritable = |error: io::Error| unwritable(&name, &error);
    if file.exists() && !force {
        return Err(Failure::new(
            failure::USAGE,
            format!("{name} exists: name another file, or add --force to replace it"),
        ));
    }
    // Whole or not at all: what is there is replaced when everything is written.
    let unfinished = Unfinished::create(&file).map_err(unwritable)?;
    let users = export(&unfinished.file, &name, filter.request(), config)?;
    unfinished.finish(&file).map_err(unwritable)?;
    say(format_args!("{users} accounts in {name}"));
    Ok(())
}

/// Writes what the broker has; gives the number of accounts.
fn export(out: impl Write, name: &str, filter: UserListRequest, config: &Config) -> Result<u64, Failure> {
    let mut out = csv::WriterBuilder::new()
        .has_headers(false)
        .from_writer(BufWriter::new(out));
    let failed = |error: csv::Error| unwritable(name, &io::Error::other(error));
    out.write_record(accounts::COLUMNS).map_err(failed)?;
    let bar = progress::bar(Some(0));
    // A reader that has gone away is not the broker's failure.
    let mut broken = None;
    let users = client::ask_for_long(config, async |admin| {
        bar.set_length(admin.user_count(filter.clone()).await?.into_inner().users);
        let mut pages = admin.user_export(filter).await?.into_inner();
        let mut users = 0;
        while let Some(page) = pages.message().await? {
            for user in &page.users {
                if let Err(error) = accounts::write(user, &mut out) {
                    broken = Some(error);
                    return Err(Status::cancelled("the file cannot be written"));
                }
            }
            users += page.users.len() as u64;
            bar.set_position(users);
            bar.set_message(format!("{users} accounts"));
        }
        Ok(users)
    });
    bar.finish_and_clear();
    if let Some(error) = broken {
        return Err(failed(error));
    }
    let users = users?;
    out.flush().map_err(|error| unwritable(name, &error))?;
    Ok(users)
}

fn unwritable(name: &str, error: &io::Error) -> Failure {
    Failure::new(failure::USAGE, format!("{name} cannot be written: {error}"))
}

/// A file beside the one that is wanted; removed when it is not finished.
struct Unfinished {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Unfinished {
    fn create(wanted: &Path) -> io::Result<Self> {
        let mut name = wanted
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
            .to_owned();
        name.push(format!(".unfinished-{}", std::process::id()));
        let path = wanted.with_file_name(name);
        // Keys let others guess passwords: the file is its owner's from the beginning.
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            finished: false,
        })
    }

    fn finish(mut self, wanted: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, wanted)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}
