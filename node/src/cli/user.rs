//! `heronry user add|list|delete|passwd|import`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use heronry_proto::admin::{
    UserAddRequest, UserDeleteRequest, UserListRequest, UserPasswdRequest, user_add_request, user_passwd_request,
};

use super::{Failure, client, failure, import, say};
use crate::config::Loaded;

/// The longest password and the line end after it.
const PASSWORD_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Create an account
    Add(NewPassword),
    /// Print all accounts
    List {
        /// Only accounts of this domain
        #[arg(long)]
        domain: Option<String>,
    },
    /// Remove an account and all that is its own
    Delete {
        /// The account, for example juliet@localhost
        jid: String,
    },
    /// Change the password of an account
    Passwd(NewPassword),
    /// Create many accounts, or replace the passwords of those that exist
    Import {
        /// CSV with a header: jid,password or jid,mechanism,iterations,salt,stored_key,server_key (base64)
        file: PathBuf,
    },
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
        UserCommand::Import { file } => import::run(&file, config)?,
        UserCommand::Delete { jid } => {
            let request = UserDeleteRequest { jid: jid.clone() };
            client::ask(config, async |admin| admin.user_delete(request).await)?;
            say(format_args!("{jid} deleted"));
        }
        UserCommand::List { domain } => {
            let request = UserListRequest {
                domain: domain.unwrap_or_default(),
            };
            client::ask(config, async |admin| {
                let mut accounts = admin.user_list(request).await?.into_inner();
                while let Some(account) = accounts.message().await? {
                    say(account.jid);
                }
                Ok(())
            })?;
        }
    }
    Ok(())
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
