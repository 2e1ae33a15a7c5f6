//! The command line. Every subcommand takes the same flags and finds the same configuration.

mod accounts;
mod backup;
mod client;
mod cluster;
mod config;
mod export;
mod failure;
mod import;
mod progress;
mod restore;
mod run;
mod status;
mod user;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::failure::Failure;
use crate::config::{Loaded, Sources};

/// A clustered XMPP broker for things.
#[derive(Debug, Parser)]
#[command(name = "heronry", version, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    configuration: ConfigurationArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct ConfigurationArgs {
    /// Read this TOML file (`heronry config show` prints one)
    #[arg(long, value_name = "FILE", env = "HERONRY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Use this data directory [default: ./heronry-data]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Set a key, for example --set tls.required=false
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker
    Run(run::RunArgs),
    /// Accounts of a running broker
    #[command(subcommand)]
    User(user::UserCommand),
    /// How a running broker is: exit code 0 healthy, 1 degraded, 2 cannot be asked
    Status(status::StatusArgs),
    /// The cluster of a running broker
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Write everything that a running cluster keeps to a directory
    Backup(backup::BackupArgs),
    /// Bring a backup into a new cluster
    Restore(restore::RestoreArgs),
    /// The configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Does what the arguments say and gives the process's exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are "errors" that go to standard output and mean success.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Run(args) => cli
            .configuration
            .load()
            .and_then(|loaded| run::run(&args, &loaded, &cli.configuration.flags())),
        Command::User(command) => cli.configuration.load().and_then(|loaded| user::run(command, &loaded)),
        Command::Cluster(command) => cli
            .configuration
            .load()
            .and_then(|loaded| cluster::run(command, &loaded.config)),
        Command::Backup(args) => cli
            .configuration
            .load()
            .and_then(|loaded| backup::run(&args, &loaded.config)),
        Command::Restore(args) => cli
            .configuration
            .load()
            .and_then(|loaded| restore::run(&args, &loaded.config)),
        Command::Status(args) => return status::run(&args, cli.configuration.load()),
        Command::Config(command) => config::run(&command, &cli.configuration),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl ConfigurationArgs {
    fn sources(&self) -> Sources {
        // Names and values that are not Unicode cannot be keys of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().filter_map(text).collect(),
            set: self.set.clone(),
            data: self.data.clone(),
        }
    }

    /// The flags as they were given, with a space before each.
    fn flags(&self) -> String {
        let paths = [("--config", &self.config), ("--data", &self.data)];
        let paths = paths
            .into_iter()
            .filter_map(|(flag, path)| Some((flag, path.as_ref()?.to_string_lossy())));
        let set = self.set.iter().map(|assignment| ("--set", assignment.into()));
        paths
            .chain(set)
            .map(|(flag, value)| format!(" {flag} {}", quoted(&value)))
            .collect()
    }

    fn load(&self) -> Result<Loaded, Failure> {
        Ok(Loaded::load(&self.sources())?)
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// One line on standard output; a reader that has gone away is not our failure.
fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_given_back_as_a_shell_takes_them() {
        use clap::Parser as _;
        let words = [
            "heronry",
            "--data",
            "/a b",
            "status",
            "--set",
            "edge.c2s=[::1]:1",
            "--set",
            "domains=it's",
        ];
        let cli = super::Cli::try_parse_from(words).unwrap();
        assert_eq!(
            cli.configuration.flags(),
            " --data '/a b' --set edge.c2s=[::1]:1 --set 'domains=it'\\''s'"
        );
    }

    #[test]
    fn the_commands_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
