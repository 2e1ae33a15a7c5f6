//! Where it is written down what devices saw.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::Instant,
};

use crate::history::{Event, History, What};

/// Takes events in the order in which they happen.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    to: To,
}

#[derive(Debug)]
enum To {
    Nowhere,
    /// All of it is kept: for runs of minutes.
    Memory(History),
    /// Lines of JSON. The first error ends the recording and is told in the end.
    File(BufWriter<File>),
    Failed(io::Error),
}

impl Recorder {
    /// Writes nothing down.
    pub fn nowhere() -> Self {
        Self::to(To::Nowhere)
    }

    /// Keeps everything in memory, for runs of minutes.
    pub fn memory() -> Self {
        Self::to(To::Memory(History::new()))
    }

    /// Writes lines of JSON to a file, which is made anew.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::to(To::File(BufWriter::new(File::create(path)?))))
    }

    fn to(to: To) -> Self {
        Self {
            began: Instant::now(),
            to,
        }
    }

    /// One thing more has happened.
    pub(super) fn record(&mut self, by: &str, what: What) {
        if matches!(self.to, To::Nowhere | To::Failed(_)) {
            return;
        }
        let event = Event {
            at: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            by: by.to_owned(),
            what,
        };
        match &mut self.to {
            To::Nowhere | To::Failed(_) => {}
            To::Memory(history) => history.push(event),
            To::File(file) => {
                let written = serde_json::to_writer(&mut *file, &event).map_err(io::Error::from);
                if let Err(error) = written.and_then(|()| file.write_all(b"\n")) {
                    self.to = To::Failed(error);
                }
            }
        }
    }

    /// What was kept in memory; nothing more is recorded.
    pub(super) fn take(&mut self) -> History {
        match std::mem::replace(&mut self.to, To::Nowhere) {
            To::Memory(history) => history,
            _ => History::new(),
        }
    }

    /// Has everything in its file.
    ///
    /// # Errors
    /// The first that there was.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.to, To::Nowhere) {
            To::File(mut file) => file.flush(),
            To::Failed(error) => Err(error),
            To::Nowhere | To::Memory(_) => Ok(()),
        }
    }
}
