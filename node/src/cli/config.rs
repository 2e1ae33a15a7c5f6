//! `heronry config check FILE | show`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{ConfigurationArgs, Failure, failure, say};
use crate::config::{Loaded, Sources, toml};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a file, and whether this version can run with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every key with its doc, default, value and where that came from, as TOML
    Show,
}

pub(super) fn run(command: &ConfigCommand, args: &ConfigurationArgs) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => {
            if args.config.as_ref().is_some_and(|other| other != file) {
                return Err(Failure::new(
                    failure::USAGE,
                    "name the file once: as FILE or with --config",
                ));
            }
            let sources = Sources {
                file: Some(file.clone()),
                ..args.sources()
            };
            Loaded::load(&sources)?.check_runnable()?;
            say(format_args!("{}: ok", file.display()));
        }
        ConfigCommand::Show => say(toml(&args.load()?).trim_end()),
    }
    Ok(())
}
