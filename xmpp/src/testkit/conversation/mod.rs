//! Conversations: what devices say and hear, as text files that read like the documents' examples.
//!
//! ```text
//! # RFC 6121 §3.1.1: what it is about, and where it says so.
//! romeo/orchard connects
//! romeo/orchard > <presence id='1' to='juliet@example.org' type='subscribe'/>
//! juliet/balcony < <presence id='1' from='romeo@example.org'
//!     to='juliet@example.org' type='subscribe'/>
//! all is quiet
//! ```
//!
//! A step is a line and the indented lines after it. A device is `localpart/resource` of the domain `example.org`; every account
//! that is named as a device exists from the beginning, others are made with `account`.
//!
//! | step | meaning |
//! |---|---|
//! | `account nurse` | there is such an account |
//! | `romeo sees juliet` | romeo has a subscription to juliet's presence; nobody who is connected hears of it, when nobody is |
//! | `romeo and juliet see each other` | likewise, both |
//! | `X connects` | logs in, binds its resource, says nothing more; without XEP-0198 |
//! | `X connects managed` | likewise, with a session that can be resumed |
//! | `X resumes` | comes back to that session |
//! | `X disconnects` | ends its stream |
//! | `X is cut` | its socket is gone |
//! | `X > element` | says this |
//! | `X < element` | this is the next thing it hears |
//! | `X << element` | the same, but consecutive steps of this kind may come true in any order |
//! | `X is quiet` | it has heard all there is |
//! | `all is quiet` | everybody has; also waits until what was said is done |
//!
//! Steps wait for each other only where somebody hears something. A conversation ends with `all is quiet`, said or not.
//!
//! What is heard must be what is written: the same elements, attributes and text, in the same order; the order of attributes and
//! white space between elements do not matter, the stream's own `xml:lang='en'` need not be written, and an error may have a
//! `<text/>`. In what is to be heard, `*` as an attribute's
//! value or as text stands for anything, `{name}` as an attribute's value for anything that is the same wherever the name
//! occurs, also in what is said later, and `...` among children for any others.

mod element;
mod play;
mod puppet;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

pub use play::{How, Stage, play};
pub use puppet::{Action, Puppet};

use crate::jid::{BareJid, FullJid};
use crate::xml::{CLIENT, Element, Limits, StreamPrefixes};

/// The domain of everybody in a conversation.
pub const DOMAIN: &str = "example.org";

/// A conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Everybody who has an account.
    pub accounts: BTreeSet<BareJid>,
    /// Everybody who connects.
    pub devices: BTreeSet<FullJid>,
    steps: Vec<(usize, Step)>,
}

#[derive(Clone, Debug)]
enum Step {
    Connect(FullJid, How),
    Disconnect(FullJid),
    Cut(FullJid),
    Say(FullJid, Element),
    Hear(FullJid, Element),
    HearInAnyOrder(FullJid, Element),
    Quiet(Option<FullJid>),
}

/// A file that is no conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    line: usize,
    problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for Unreadable {}

impl Conversation {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let mut conversation = Self {
            accounts: BTreeSet::new(),
            devices: BTreeSet::new(),
            steps: Vec::new(),
        };
        for (line, step) in joined(text) {
            conversation
                .step(line, &step)
                .map_err(|problem| Unreadable { line, problem })?;
        }
        conversation.steps.push((text.lines().count(), Step::Quiet(None)));
        Ok(conversation)
    }

    /// Of the things that are said in it, by their number: those that come when everybody has said for the last time that they are
    /// available.
    pub fn said_when_available(&self) -> Range<usize> {
        let said = self.steps.iter().filter_map(|(_, step)| match step {
            Step::Say(_, said) => Some(said),
            _ => None,
        });
        let available =
            |said: &&Element| said.name() == "presence" && said.attr("to").is_none() && said.attr("type").is_none();
        let said: Vec<&Element> = said.collect();
        said.iter().rposition(available).map_or(0, |last| last + 1)..said.len()
    }

    fn step(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(name) = text.strip_prefix("account ") {
            let account = BareJid::new(Some(name.trim()), DOMAIN).map_err(|error| error.to_string())?;
            self.accounts.insert(account);
            return Ok(());
        }
        if let Some((one, other)) = text
            .strip_suffix(" see each other")
            .and_then(|pair| pair.split_once(" and "))
        {
            self.subscribe(line, one, other)?;
            return self.subscribe(line, other, one);
        }
        if let Some((subscriber, contact)) = text.split_once(" sees ") {
            return self.subscribe(line, subscriber, contact);
        }
        if text == "all is quiet" {
            self.steps.push((line, Step::Quiet(None)));
            return Ok(());
        }
        let (who, what) = text.split_once(' ').ok_or("nobody does anything")?;
        let who = device(who)?;
        self.accounts.insert(who.bare());
        self.devices.insert(who.clone());
        let what = what.trim();
        let step = match what {
            "connects" => Step::Connect(who, How::Unmanaged),
            "connects managed" => Step::Connect(who, How::Managed),
            "resumes" => Step::Connect(who, How::Resuming),
            "disconnects" => Step::Disconnect(who),
            "is cut" => Step::Cut(who),
            "is quiet" => Step::Quiet(Some(who)),
            _ => match what.split_once(' ') {
                Some((">", xml)) => Step::Say(who, read_element(xml)?),
                Some(("<", xml)) => Step::Hear(who, read_element(xml)?),
                Some(("<<", xml)) => Step::HearInAnyOrder(who, read_element(xml)?),
                _ => return Err(format!("nobody knows how to do this: {what}")),
            },
        };
        self.steps.push((line, step));
        Ok(())
    }
}

impl Conversation {
    /// One account gets a subscription to another's presence, by devices that ask for no roster and are not available.
    fn subscribe(&mut self, line: usize, subscriber: &str, contact: &str) -> Result<(), String> {
        let asking = device(&format!("{subscriber}/asking"))?;
        let granting = device(&format!("{contact}/granting"))?;
        let say = |type_, from: &FullJid, to: &FullJid| {
            let presence = Element::new("presence", CLIENT)
                .with_attr("type", type_)
                .with_attr("to", to.bare_str());
            Step::Say(from.clone(), presence)
        };
        let steps = [
            Step::Connect(asking.clone(), How::Unmanaged),
            Step::Connect(granting.clone(), How::Unmanaged),
            say("subscribe", &asking, &granting),
            Step::Quiet(None),
            say("subscribed", &granting, &asking),
            Step::Quiet(None),
            Step::Disconnect(asking.clone()),
            Step::Disconnect(granting.clone()),
        ];
        self.steps.extend(steps.map(|step| (line, step)));
        for device in [asking, granting] {
            self.accounts.insert(device.bare());
            self.devices.insert(device);
        }
        Ok(())
    }
}

/// Reads every `.txt` of a directory: the name and what it says.
///
/// # Panics
/// When one cannot be read or is no conversation: these are files of tests.
#[expect(clippy::disallowed_methods, reason = "files of tests, for tests")]
pub fn read_all(directory: &Path) -> Vec<(String, Conversation)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory of conversations")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a text");
        let conversation = Conversation::read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (name, conversation)
    };
    files.into_iter().map(read).collect()
}

/// Steps with the number of their first line; comments and empty lines are left out.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut steps: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match steps.last_mut() {
            Some((_, step)) if line.starts_with([' ', '\t']) => {
                step.push('\n');
                step.push_str(trimmed);
            }
            _ => steps.push((number, trimmed.to_owned())),
        }
    }
    steps
}

fn device(name: &str) -> Result<FullJid, String> {
    let (local, resource) = name.split_once('/').ok_or_else(|| format!("not a device: {name}"))?;
    let account = BareJid::new(Some(local), DOMAIN).map_err(|error| error.to_string())?;
    account.with_resource(resource).map_err(|error| error.to_string())
}

fn read_element(xml: &str) -> Result<Element, String> {
    let element = Element::parse_in(xml, &Limits::trusted(), &StreamPrefixes::client());
    element
        .map(|element| element::without_white_space(&element))
        .map_err(|error| format!("{error}: {xml}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let text = "# a comment\n\naccount nurse\nromeo/orchard connects\nromeo/orchard > <presence\n    id='1'/>\nall is quiet\n";
        let conversation = Conversation::read(text).expect("a conversation");
        let accounts: Vec<&str> = conversation.accounts.iter().map(BareJid::as_str).collect();
        assert_eq!(accounts, ["nurse@example.org", "romeo@example.org"]);
        let lines: Vec<usize> = conversation.steps.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 7, 7]);
        assert!(matches!(&conversation.steps[1].1, Step::Say(who, said)
            if who.as_str() == "romeo@example.org/orchard" && said.attr("id") == Some("1")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, line) in [
            ("romeo connects", 1),
            ("\nromeo/orchard flies", 2),
            ("romeo/orchard connects\nromeo/orchard > <presence>", 2),
            ("quiet", 1),
        ] {
            let error = Conversation::read(text).expect_err(text);
            assert_eq!(error.line, line, "{error}");
        }
    }
}
