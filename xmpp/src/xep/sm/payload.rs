//! What stream management looks like on the wire: its elements, and the arithmetic of its counters.

use crate::stanza::{Condition, StanzaError};
use crate::stream::StreamError;
use crate::xml::{Element, STANZAS};

/// The namespace of every element here, and of the stream feature.
pub const NS: &str = "urn:xmpp:sm:3";

/// How many stanzas went one way since stream management was enabled, modulo 2³² (XEP-0198 §4).
///
/// Such numbers have no order, only distances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counter(pub u32);

impl Counter {
    /// Where both sides begin.
    pub const ZERO: Self = Self(0);

    /// After `count` more stanzas.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// How many stanzas lie between `earlier` and this.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// With this many stanzas acknowledged so far and `sent` sent, how many more does `h` acknowledge?
    ///
    /// # Errors
    /// When it acknowledges more than was sent, or takes back what it acknowledged: end the stream with the error
    /// (XEP-0198 §6).
    pub const fn acknowledge(self, sent: Self, h: Self) -> Result<u32, HandledCountTooHigh> {
        let more = h.since(self);
        if more <= sent.since(self) {
            Ok(more)
        } else {
            Err(HandledCountTooHigh { h, sent })
        }
    }
}

impl std::fmt::Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An element of stream management. None of them is a stanza, and none is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonza {
    /// `<enable/>`: count from here (§3).
    Enable(Enable),
    /// `<enabled/>`: the server counts too.
    Enabled(Enabled),
    /// `<resume/>`: go on with an earlier session (§5).
    Resume(Resume),
    /// `<resumed/>`: it goes on.
    Resumed(Resumed),
    /// `<failed/>`: neither (§6).
    Failed(Failed),
    /// `<r/>`: how far are you? (§4)
    Request,
    /// `<a/>`: this far.
    Ack(Ack),
}

/// `<enable/>`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enable {
    /// The client wants to resume later.
    pub resume: bool,
    /// For how long the session should wait for that, in seconds.
    pub max_seconds: Option<u32>,
}

/// `<enabled/>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    /// The SM-ID: opaque to clients, secret, at most 4000 bytes.
    pub id: Option<Box<str>>,
    /// The session can be resumed.
    pub resume: bool,
    /// For how long it will wait, in seconds.
    pub max_seconds: Option<u32>,
    /// Where to reconnect: `domainpart[:port]`.
    pub location: Option<Box<str>>,
}

/// `<resume/>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The SM-ID of the earlier session.
    pub previd: Box<str>,
    /// How many stanzas of the server the client handled.
    pub h: Counter,
}

/// `<resumed/>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The SM-ID of the session that goes on.
    pub previd: Box<str>,
    /// How many stanzas of the client the server handled.
    pub h: Counter,
}

/// `<failed/>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why; servers should say.
    pub condition: Option<Condition>,
    /// For a session that is gone: how many stanzas of the client the server had handled.
    pub h: Option<Counter>,
}

/// `<a/>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// How many stanzas were handled.
    pub h: Counter,
}

/// An element of our namespace that is none of ours or lacks what it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed stream management element: {0}")]
pub struct Malformed(pub &'static str);

/// The peer acknowledges stanzas that it was never sent (§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("acknowledged {h} stanzas of {sent}")]
pub struct HandledCountTooHigh {
    /// What it acknowledged.
    pub h: Counter,
    /// What it was sent.
    pub sent: Counter,
}

impl From<HandledCountTooHigh> for StreamError {
    fn from(error: HandledCountTooHigh) -> Self {
        let HandledCountTooHigh { h, sent } = error;
        let element = Element::new("handled-count-too-high", NS)
            .with_attr("h", h.to_string())
            .with_attr("send-count", sent.to_string());
        Self::undefined_condition()
            .with_text(format!(
                "you acknowledged {h} stanzas, but I only sent you {sent} so far"
            ))
            .with_application(element)
    }
}

impl From<Condition> for Failed {
    fn from(condition: Condition) -> Self {
        Self {
            condition: Some(condition),
            h: None,
        }
    }
}

impl Nonza {
    /// Reads a top-level element; `None` when it belongs to another namespace.
    ///
    /// # Errors
    /// When it is no such element, or one without what it must have.
    pub fn parse(element: &Element) -> Option<Result<Self, Malformed>> {
        (element.ns() == NS).then(|| Self::read(element))
    }

    fn read(element: &Element) -> Result<Self, Malformed> {
        let text = |name: &str| element.attr(name).map(Box::from);
        Ok(match element.name() {
            "enable" => Self::Enable(Enable {
                resume: boolean(element, "resume")?,
                max_seconds: seconds(element, "max")?,
            }),
            "enabled" => Self::Enabled(Enabled {
                id: text("id"),
                resume: boolean(element, "resume")?,
                max_seconds: seconds(element, "max")?,
                location: text("location"),
            }),
            "resume" => Self::Resume(Resume {
                previd: previd(element)?,
                h: required_h(element)?,
            }),
            "resumed" => Self::Resumed(Resumed {
                previd: previd(element)?,
                h: required_h(element)?,
            }),
            "failed" => Self::Failed(Failed {
                condition: element
                    .children()
                    .any(|child| child.ns() == STANZAS)
                    .then(|| StanzaError::from_element(element).condition),
                h: h(element)?,
            }),
            "r" => Self::Request,
            "a" => Self::Ack(Ack {
                h: required_h(element)?,
            }),
            _ => return Err(Malformed("no such element")),
        })
    }

    /// The element.
    pub fn to_element(&self) -> Element {
        let name = match self {
            Self::Enable(_) => "enable",
            Self::Enabled(_) => "enabled",
            Self::Resume(_) => "resume",
            Self::Resumed(_) => "resumed",
            Self::Failed(_) => "failed",
            Self::Request => "r",
            Self::Ack(_) => "a",
        };
        let mut element = Element::new(name, NS);
        let mut set = |name, value: Option<String>| {
            if let Some(value) = value {
                element.set_attr(name, value);
            }
        };
        let yes = |yes: bool| yes.then(|| "true".to_owned());
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        match self {
            Self::Enable(Enable { resume, max_seconds }) => {
                set("resume", yes(*resume));
                set("max", number(*max_seconds));
            }
            Self::Enabled(Enabled {
                id,
                resume,
                max_seconds,
                location,
            }) => {
                set("id", id.as_deref().map(str::to_owned));
                set("resume", yes(*resume));
                set("max", number(*max_seconds));
                set("location", location.as_deref().map(str::to_owned));
            }
            Self::Resume(Resume { previd, h }) | Self::Resumed(Resumed { previd, h }) => {
                set("previd", Some(previd.to_string()));
                set("h", Some(h.to_string()));
            }
            Self::Failed(Failed { condition, h }) => {
                set("h", number(h.map(|h| h.0)));
                return element.with_children(condition.map(|condition| Element::new(condition.name(), STANZAS)));
            }
            Self::Request => {}
            Self::Ack(Ack { h }) => set("h", Some(h.to_string())),
        }
        element
    }

    /// Appends the element as it stands inside a client's stream.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.to_element().write(out, "");
    }

    /// The element as it stands inside a client's stream.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// An `xs:boolean`, false when absent: both styles must be understood (XEP-0198 §3).
fn boolean(element: &Element, name: &str) -> Result<bool, Malformed> {
    match element.attr(name) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(Malformed("not a boolean")),
    }
}

/// An `xs:positiveInteger`, which has no largest value: ours stands for every larger one.
fn seconds(element: &Element, name: &str) -> Result<Option<u32>, Malformed> {
    let Some(value) = element.attr(name) else {
        return Ok(None);
    };
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) || value.bytes().all(|byte| byte == b'0') {
        return Err(Malformed("not a positive number"));
    }
    Ok(Some(value.parse().unwrap_or(u32::MAX)))
}

fn h(element: &Element) -> Result<Option<Counter>, Malformed> {
    let parse = |value: &str| {
        value
            .parse()
            .map(Counter)
            .map_err(|_| Malformed("h is not an unsigned 32-bit number"))
    };
    element.attr("h").map(parse).transpose()
}

fn required_h(element: &Element) -> Result<Counter, Malformed> {
    h(element)?.ok_or(Malformed("h is missing"))
}

fn previd(element: &Element) -> Result<Box<str>, Malformed> {
    element
        .attr("previd")
        .filter(|id| !id.is_empty())
        .map(Box::from)
        .ok_or(Malformed("previd is missing"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xml::Limits;

    fn parse(xml: &str) -> Result<Nonza, Malformed> {
        Nonza::parse(&Element::parse(xml, &Limits::before_auth()).unwrap()).unwrap()
    }

    fn check(xml: &str, nonza: Nonza) {
        assert_eq!(parse(xml).as_ref(), Ok(&nonza));
        assert_eq!(String::from_utf8(nonza.to_bytes()).unwrap(), xml);
    }

    #[test]
    fn examples_of_xep_0198() {
        check("<enable xmlns='urn:xmpp:sm:3'/>", Nonza::Enable(Enable::default()));
        check(
            "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
            Nonza::Enable(Enable {
                resume: true,
                max_seconds: None,
            }),
        );
        check("<enabled xmlns='urn:xmpp:sm:3'/>", Nonza::Enabled(Enabled::default()));
        check(
            "<enabled xmlns='urn:xmpp:sm:3' id='some-long-sm-id' resume='true' max='300' \
             location='[2001:41D0:1:A49b::1]:9222'/>",
            Nonza::Enabled(Enabled {
                id: Some("some-long-sm-id".into()),
                resume: true,
                max_seconds: Some(300),
                location: Some("[2001:41D0:1:A49b::1]:9222".into()),
            }),
        );
        check(
            "<resume xmlns='urn:xmpp:sm:3' previd='some-long-sm-id' h='7'/>",
            Nonza::Resume(Resume {
                previd: "some-long-sm-id".into(),
                h: Counter(7),
            }),
        );
        check(
            "<resumed xmlns='urn:xmpp:sm:3' previd='some-long-sm-id' h='4294967295'/>",
            Nonza::Resumed(Resumed {
                previd: "some-long-sm-id".into(),
                h: Counter(u32::MAX),
            }),
        );
        check(
            "<failed xmlns='urn:xmpp:sm:3' h='9'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
            Nonza::Failed(Failed {
                condition: Some(Condition::ItemNotFound),
                h: Some(Counter(9)),
            }),
        );
        check(
            "<failed xmlns='urn:xmpp:sm:3'/>",
            Nonza::Failed(Failed {
                condition: None,
                h: None,
            }),
        );
        check("<r xmlns='urn:xmpp:sm:3'/>", Nonza::Request);
        check("<a xmlns='urn:xmpp:sm:3' h='1'/>", Nonza::Ack(Ack { h: Counter(1) }));
    }

    #[test]
    fn both_styles_of_boolean_are_understood() {
        let resume = |value: &str| parse(&format!("<enable xmlns='urn:xmpp:sm:3' resume='{value}'/>"));
        for (value, resumes) in [("1", true), ("true", true), ("0", false), ("false", false)] {
            assert_eq!(
                resume(value),
                Ok(Nonza::Enable(Enable {
                    resume: resumes,
                    max_seconds: None
                }))
            );
        }
        assert!(resume("yes").is_err());
    }

    #[test]
    fn a_longest_time_beyond_ours_is_our_longest() {
        let max = |value: &str| match parse(&format!("<enable xmlns='urn:xmpp:sm:3' max='{value}'/>")) {
            Ok(Nonza::Enable(enable)) => enable.max_seconds,
            _ => None,
        };
        assert_eq!(max("600"), Some(600));
        assert_eq!(max("99999999999999999999"), Some(u32::MAX));
        assert_eq!((max("0"), max("-1"), max(""), max("ten")), (None, None, None, None));
    }

    #[test]
    fn what_lacks_something_is_malformed() {
        for xml in [
            "<a xmlns='urn:xmpp:sm:3'/>",
            "<a xmlns='urn:xmpp:sm:3' h='4294967296'/>",
            "<a xmlns='urn:xmpp:sm:3' h='-1'/>",
            "<a xmlns='urn:xmpp:sm:3' h=''/>",
            "<resume xmlns='urn:xmpp:sm:3' h='1'/>",
            "<resume xmlns='urn:xmpp:sm:3' h='1' previd=''/>",
            "<resume xmlns='urn:xmpp:sm:3' previd='x'/>",
            "<failed xmlns='urn:xmpp:sm:3' h='x'/>",
            "<sm xmlns='urn:xmpp:sm:3'/>",
        ] {
            assert!(parse(xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn other_namespaces_are_not_ours() {
        assert_eq!(Nonza::parse(&Element::new("r", "urn:xmpp:sm:2")), None);
    }

    #[test]
    fn counters_wrap() {
        let last = Counter(u32::MAX);
        assert_eq!(last.plus(1), Counter::ZERO);
        assert_eq!(Counter(2).since(last), 3);
        assert_eq!(last.acknowledge(Counter(2), Counter(1)), Ok(2));
        assert_eq!(last.acknowledge(Counter(2), Counter(2)), Ok(3));
    }

    #[test]
    fn nobody_acknowledges_what_was_not_sent() {
        let too_high = |h, sent| {
            Err(HandledCountTooHigh {
                h: Counter(h),
                sent: Counter(sent),
            })
        };
        assert_eq!(Counter(5).acknowledge(Counter(8), Counter(8)), Ok(3));
        assert_eq!(Counter(5).acknowledge(Counter(8), Counter(5)), Ok(0));
        assert_eq!(Counter(5).acknowledge(Counter(8), Counter(9)), too_high(9, 8));
        assert_eq!(Counter(5).acknowledge(Counter(8), Counter(4)), too_high(4, 8));
        assert_eq!(Counter(0).acknowledge(Counter(0), Counter(1)), too_high(1, 0));
    }

    /// XEP-0198 §6, example 17
    #[test]
    fn too_high_a_count_ends_the_stream() {
        let mut out = String::new();
        StreamError::from(HandledCountTooHigh {
            h: Counter(10),
            sent: Counter(8),
        })
        .write(&mut out);
        assert_eq!(
            out,
            "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>\
             you acknowledged 10 stanzas, but I only sent you 8 so far</text>\
             <handled-count-too-high xmlns='urn:xmpp:sm:3' h='10' send-count='8'/></stream:error>"
        );
    }

    proptest! {
        #[test]
        fn acknowledging_step_by_step_comes_to_the_same(start: u32, sent in 0..1000_u32, first in 0..1000_u32) {
            let (start, end) = (Counter(start), Counter(start).plus(sent));
            let first = first.min(sent);
            prop_assert_eq!(start.acknowledge(end, start.plus(first)), Ok(first));
            prop_assert_eq!(start.plus(first).acknowledge(end, end), Ok(sent - first));
        }

        #[test]
        fn no_attribute_makes_the_parser_panic(name in "[a-z]{1,8}", value in "[^\\x00-\\x1f<&'\u{fffe}\u{ffff}]{0,12}") {
            for element in ["enable", "enabled", "resume", "resumed", "failed", "a"] {
                for attribute in ["h", "max", "resume", "previd", &name] {
                    let _ = Nonza::parse(&Element::new(element, NS).with_attr(
                        match attribute { "h" => "h", "max" => "max", "resume" => "resume", _ => "previd" }, &*value));
                }
            }
        }
    }
}
