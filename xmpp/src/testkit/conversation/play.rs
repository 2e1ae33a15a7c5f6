//! Plays a conversation on a stage.

use super::element::{Names, filled, is, without_white_space};
use super::{Conversation, Step};
use crate::jid::FullJid;
use crate::xml::{CLIENT, Element};

/// How a device comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With a new session, without XEP-0198.
    Unmanaged,
    /// With a new session that can be resumed.
    Managed,
    /// To its former session.
    Resuming,
}

/// A broker with devices that do as they are told. The accounts of the conversation exist.
pub trait Stage {
    /// Connects a device, up to a bound or resumed session.
    fn connect(&mut self, who: &FullJid, how: How);

    /// The device ends its stream; waits until the broker has, too.
    fn disconnect(&mut self, who: &FullJid);

    /// The device's socket is gone.
    fn cut(&mut self, who: &FullJid);

    /// The device says this.
    fn say(&mut self, who: &FullJid, element: &Element);

    /// The next thing the device hears, if it hears anything in good time.
    fn hear(&mut self, who: &FullJid) -> Option<Element>;

    /// Waits until what was said is done; then, what devices have heard that nobody has asked for.
    fn quiet(&mut self) -> Vec<(FullJid, Element)>;
}

/// Plays `conversation` on `stage`.
///
/// # Errors
/// The first step that does not come true, with its line and what was heard instead.
pub fn play(conversation: &Conversation, stage: &mut dyn Stage) -> Result<(), String> {
    let mut names = Names::new();
    let mut steps = conversation.steps.iter().peekable();
    while let Some((line, step)) = steps.next() {
        let failed = |what: String| Err(format!("line {line}: {what}"));
        match step {
            Step::Connect(who, how) => stage.connect(who, *how),
            Step::Disconnect(who) => stage.disconnect(who),
            Step::Cut(who) => stage.cut(who),
            Step::Say(who, said) => stage.say(who, &filled(said, &names)),
            Step::Hear(who, expected) => match stage.hear(who) {
                Some(heard) if is(expected, &heard, &mut names) => {}
                heard => return failed(misheard(who, &[expected], heard.as_ref(), &names)),
            },
            Step::HearInAnyOrder(who, first) => {
                let mut expected = vec![first];
                while let Some((_, Step::HearInAnyOrder(same, next))) = steps.peek()
                    && same == who
                {
                    expected.push(next);
                    steps.next();
                }
                while !expected.is_empty() {
                    let heard = stage.hear(who);
                    let place = heard
                        .as_ref()
                        .and_then(|heard| expected.iter().position(|expected| is(expected, heard, &mut names)));
                    match place {
                        Some(place) => drop(expected.remove(place)),
                        None => return failed(misheard(who, &expected, heard.as_ref(), &names)),
                    }
                }
            }
            Step::Quiet(who) => {
                let heard = stage.quiet();
                let concerned = |(heard, _): &&(FullJid, Element)| who.as_ref().is_none_or(|who| who == heard);
                let more: Vec<String> = heard
                    .iter()
                    .filter(concerned)
                    .map(|(who, heard)| format!("{who} hears {}", written(heard)))
                    .collect();
                if !more.is_empty() {
                    return failed(format!("it is not quiet:\n  {}", more.join("\n  ")));
                }
            }
        }
    }
    Ok(())
}

fn misheard(who: &FullJid, expected: &[&Element], heard: Option<&Element>, names: &Names) -> String {
    let expected: Vec<String> = expected
        .iter()
        .map(|expected| format!("  expected {}", written(&filled(expected, names))))
        .collect();
    let heard = heard.map_or_else(|| "nothing".to_owned(), |heard| written(&without_white_space(heard)));
    format!("{who} hears\n  heard    {heard}\n{}", expected.join("\n"))
}

fn written(element: &Element) -> String {
    let mut text = String::new();
    element.write_str(&mut text, CLIENT);
    text
}
