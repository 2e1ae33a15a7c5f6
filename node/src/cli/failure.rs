//! How a command ends when it did not do what it was told: one sentence on standard error, and a code.
//!
//! | code | meaning |
//! |---|---|
//! | 1 | failed for a reason that has no code of its own; `status`: degraded |
//! | 2 | usage or configuration; `status`: the broker cannot be asked |
//! | 3 | another process uses the data directory |
//! | 4 | the store, or a backup, is damaged |
//! | 5 | the store, or a backup, was written by a newer version |
//! | 6 | the disk is full |
//! | 7 | an address cannot be listened on |
//! | 8 | certificate or key cannot be used |
//! | 9 | the data directory cannot be used |
//! | 10 | no broker answers |
//! | 11 | the broker does not accept the token |
//! | 12 | the broker refuses the request: no such account, there is one already, not an address, not while the cluster is as it is |

use std::{io::Write as _, process::ExitCode};

use crate::{StartError, config::ConfigError};

pub(super) const USAGE: u8 = 2;
pub(super) const DAMAGED: u8 = 4;
pub(super) const NEWER: u8 = 5;
pub(super) const FULL: u8 = 6;
pub(super) const UNREACHABLE: u8 = 10;
pub(super) const TOKEN: u8 = 11;
pub(super) const REFUSED: u8 = 12;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) sentence: String,
}

impl Failure {
    pub(super) fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }

    /// Says why, and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "heronry: {}", self.sentence);
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(USAGE, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}
