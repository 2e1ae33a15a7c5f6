//! `heronry user add|list|delete|passwd|import|export`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use heronry_proto::admin::{
    ListedUser, UserAddRequest, UserDeleteRequest, UserListRequest, UserPasswdRequest, user_add_request,
    user_passwd_request,
};
use serde_json::json;

use super::{
    Failure,
    accounts::mechanism,
    client,
    export::{self, ExportArgs},
    failure,
    import::{self, ImportArgs},
    say,
};
use crate::config::{Config, Loaded};

/// The longest password and the line end after it.
const PASSWORD_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Create an account
    Add(NewPassword),
    /// Print accounts, one a line
    List(ListArgs),
    /// Remove accounts and all that is their own, and end their sessions
    Delete {
        /// The accounts, for example juliet@localhost
        #[arg(required = true, value_name = "JID")]
        jids: Vec<String>,
    },
    /// Change the password of an account, and end its sessions
    Passwd(NewPassword),
    /// Create many accounts from a file
    Import(ImportArgs),
    /// Write accounts with their keys (never passwords) to a file that import reads
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print a JSON array of objects: jid, created (UTC), mechanisms
    #[arg(long)]
    json: bool,
    /// Print only how many there are
    #[arg(long)]
    count: bool,
}

/// Which accounts are meant; without any of it, all.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only accounts of this domain
    #[arg(long)]
    domain: Option<String>,
    /// Only accounts whose address begins so
    #[arg(long)]
    prefix: Option<String>,
}

impl FilterArgs {
    pub(super) fn request(self) -> UserListRequest {
        UserListRequest {
            domain: self.domain.unwrap_or_default(),
            prefix: self.prefix.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct NewPassword {
    /// The account, for example juliet@localhost
    jid: String,
    /// The password; others on this machine can see it in the list of processes
    #[arg(long, value_name = "P", conflicts_with = "password_file")]
    password: Option<String>,
    /// A file whose first line is the password; without it and without --password, it is asked for or read from standard input
    #[arg(long, value_name = "F")]
    password_file: Option<PathBuf>,
}

pub(super) fn run(command: UserCommand, loaded: &Loaded) -> Result<(), Failure> {
    let config = &loaded.config;
    match command {
        UserCommand::Add(account) => {
            let credentials = Some(user_add_request::Credentials::Password(account.password()?));
            let jid = account.jid;
            let request = UserAddRequest {
                jid: jid.clone(),
                credentials,
            };
            client::ask(config, async |admin| admin.user_add(request).await)?;
            say(format_args!("{jid} added"));
        }
        UserCommand::Passwd(account) => {
            let credentials = Some(user_passwd_request::Credentials::Password(account.password()?));
            let jid = account.jid;
            let request = UserPasswdRequest {
                jid: jid.clone(),
                credentials,
            };
            client::ask(config, async |admin| admin.user_passwd(request).await)?;
            say(format_args!("{jid} has a new password"));
        }
        UserCommand::Import(args) => import::run(&args, config)?,
        UserCommand::Export(args) => export::run(args, config)?,
        UserCommand::Delete { jids } => delete(jids, config)?,
        UserCommand::List(args) => list(args, config)?,
    }
    Ok(())
}

/// All of them are tried; the first failure is the command's.
fn delete(jids: Vec<String>, config: &Config) -> Result<(), Failure> {
    let mut failed = None;
    for jid in jids {
        let request = UserDeleteRequest { jid: jid.clone() };
        match client::ask(config, async |admin| admin.user_delete(request).await) {
            Ok(_) => say(format_args!("{jid} deleted")),
            Err(failure) if failure.code == failure::REFUSED && failed.is_none() => failed = Some(failure),
            Err(failure) if failure.code == failure::REFUSED => {
                failure.report();
            }
            Err(failure) => return Err(failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn list(args: ListArgs, config: &Config) -> Result<(), Failure> {
    let ListArgs { filter, json, count } = args;
    let request = filter.request();
    if count {
        let users = client::ask_for_long(config, async |admin| admin.user_count(request).await)?;
        let users = users.into_inner().users;
        say(if json {
            json!({ "accounts": users }).to_string()
        } else {
            users.to_string()
        });
        return Ok(());
    }
    // Lines are written as they come, and together: a million of them are not kept, and not flushed one by one.
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut lines = 0_u64;
    let listed = client::ask_for_long(config, async |admin| {
        let mut pages = admin.user_list(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            for user in page.users {
                let written = match json {
                    true => write!(out, "{}{}", if lines == 0 { "[\n  " } else { ",\n  " }, as_json(&user)),
                    false => writeln!(out, "{}", user.jid),
                };
                // A reader that has gone away wants no more.
                if written.is_err() {
                    return Ok(());
                }
                lines += 1;
            }
        }
        Ok(())
    });
    listed?;
    if json {
        let _ = writeln!(out, "{}", if lines == 0 { "[]" } else { "\n]" });
    }
    let _ = out.flush();
    Ok(())
}

fn as_json(user: &ListedUser) -> serde_json::Value {
    let created = UNIX_EPOCH + Duration::from_micros(user.created);
    json!({
        "jid": user.jid,
        "created": humantime::format_rfc3339_seconds(created).to_string(),
        "mechanisms": user.hashes().map(mechanism).collect::<Vec<_>>(),
    })
}

impl NewPassword {
    fn password(&self) -> Result<String, Failure> {
        if let Some(password) = &self.password {
            return Ok(password.clone());
        }
        let refused = |what: &dyn std::fmt::Display, error: io::Error| {
            Failure::new(
                failure::USAGE,
                format!("the password cannot be read from {what}: {error}"),
            )
        };
        if let Some(file) = &self.password_file {
            return read_file(file).map_err(|error| refused(&file.display(), error));
        }
        if io::stdin().is_terminal() {
            return self.ask().map_err(|error| refused(&"the terminal", error))?;
        }
        first_line(io::stdin().lock()).map_err(|error| refused(&"standard input", error))
    }

    fn ask(&self) -> io::Result<Result<String, Failure>> {
        let password = rpassword::prompt_password(format!("New password of {}: ", self.jid))?;
        let again = rpassword::prompt_password("The same again: ")?;
        if password != again {
            return Ok(Err(Failure::new(
                failure::USAGE,
                "the two passwords differ; nothing was changed",
            )));
        }
        Ok(Ok(password))
    }
}

fn read_file(file: &Path) -> io::Result<String> {
    first_line(io::BufReader::new(fs::File::open(file)?))
}

fn first_line(reader: impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(PASSWORD_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_is_the_first_line_with_its_spaces() {
        for (text, password) in [("a b \n", "a b "), ("a\r\nsecond\n", "a"), ("a", "a"), ("", "")] {
            assert_eq!(super::first_line(text.as_bytes()).unwrap(), password);
        }
    }
}
