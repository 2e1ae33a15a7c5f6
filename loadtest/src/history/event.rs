//! What can be seen, and its form as lines of JSON.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// Something that a device or a node saw or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the history began. Only told to people: what counts is the order of the events.
    pub at: u64,
    /// Who: the address of a device (`juliet@localhost/balcony`), or the name of a node. A device keeps its name when it reconnects, also if it
    /// binds another resource.
    pub by: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What was seen or done.
///
/// A `session` is the device's name for what begins with a bind, and goes on through resumptions (XEP-0198 §5): unique in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A device begins to send a message. Once in each session: what XEP-0198 sends again after a resumption is not recorded, what the
    /// device says again of its own accord in another session is.
    Sent {
        /// The sender's session.
        session: String,
        /// The recipient: an account, or a resource of one.
        to: String,
        /// The stanza's id, and the message's name.
        id: String,
        /// Its text.
        body: String,
    },
    /// The sender knows that the server has taken the message: `<a h=…/>` or `<resumed h=…/>` covers it.
    Acknowledged {
        /// Which.
        id: String,
    },
    /// The sender has received the message as an error.
    Refused {
        /// Which.
        id: String,
        /// The stanza error's condition (RFC 6120 §8.3.3).
        condition: String,
    },
    /// A device has received a message.
    Delivered {
        /// The recipient's session.
        session: String,
        /// The `from` it carried.
        from: String,
        /// The id it carried; empty if none.
        id: String,
        /// Its text.
        body: String,
    },
    /// When all was over, the server still had the message for its recipient: seen in its store.
    Stored {
        /// Which.
        id: String,
    },
    /// A device begins to read or write a row (private XML, a roster item) that somebody else may read or write at the same time.
    Called {
        /// Names this call.
        call: String,
        /// Names the row.
        row: String,
        /// What is written: unlike everything else that is written into this row. `None`: it is read.
        writes: Option<String>,
    },
    /// The answer to a call has come. A call without one may have been carried out or not.
    Returned {
        /// Which call.
        call: String,
        /// How it ended.
        returned: Returned,
    },
    /// A node leads a shard.
    Leads {
        /// Which.
        shard: u16,
        /// The term.
        term: u64,
    },
    /// The rows that a node has of a shard, once as many entries have been applied to them.
    Rows {
        /// Which shard.
        shard: u16,
        /// The index of the entry applied last.
        applied: u64,
        /// A digest of all rows.
        digest: String,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Returned {
    /// It has been written.
    Wrote,
    /// It was read: what the row has, `None` if there is none.
    Read(Option<String>),
    /// An error. What was to be written may have been written all the same.
    Failed,
}

/// What happened, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One thing more, which happened after all others.
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// What happened.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// One line of JSON for each event.
    ///
    /// # Errors
    /// What `to` fails with.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// What [`write`](Self::write) has written. Empty lines count for nothing.
    ///
    /// # Errors
    /// What `from` fails with, and `InvalidData` with the line's number for a line that is no event.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let mut history = Self::new();
        for (number, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let event = serde_json::from_str(&line)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1)))?;
            history.push(event);
        }
        Ok(history)
    }
}

impl Extend<Event> for History {
    fn extend<T: IntoIterator<Item = Event>>(&mut self, events: T) {
        self.events.extend(events);
    }
}

impl FromIterator<Event> for History {
    fn from_iter<T: IntoIterator<Item = Event>>(events: T) -> Self {
        Self {
            events: events.into_iter().collect(),
        }
    }
}
