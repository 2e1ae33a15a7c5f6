//! When something was sent that comes late (XEP-0203).

use std::time::SystemTime;

use heronry_xmpp::{jid::Jid, stanza::Stanza, xml::Element};

const DELAY: &str = "urn:xmpp:delay";

/// Says that a stanza was held back, as messages are that came while nobody was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// When it was sent or first received.
    pub stamp: SystemTime,
    /// Who held it back. Anybody can claim anything here; what our own server says has its address or our account's.
    pub by: Option<Jid>,
}

impl Delay {
    /// The delay of a stanza; `None` when it came as it was sent.
    pub fn of(stanza: &Stanza) -> Option<Self> {
        Self::read(&stanza.root_element().ok()?)
    }

    /// The earliest one: every server that holds a stanza back may add its own.
    pub(super) fn read(content: &Element) -> Option<Self> {
        let delays = content.children().filter(|child| child.is("delay", DELAY));
        let delays = delays.filter_map(|delay| {
            Some(Self {
                stamp: humantime::parse_rfc3339(delay.attr("stamp")?).ok()?,
                by: delay.attr("from").and_then(|by| Jid::parse(by).ok()),
            })
        });
        delays.min_by_key(|delay| delay.stamp)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::message;

    #[test]
    fn the_earliest_stamp_counts() {
        let delayed = message(
            "<message><body>x</body><delay xmlns='urn:xmpp:delay' from='capulet.example' stamp='2002-09-10T23:08:25Z'/>\
             <delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:05:37.5Z'/></message>",
        );
        let delay = Delay::of(&delayed).expect("a delay");
        assert_eq!(
            delay.stamp,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_031_699_137_500)
        );
        assert_eq!(delay.by, None);
    }

    #[test]
    fn what_is_not_delayed_or_says_nonsense_is_not_delayed() {
        for xml in [
            "<message/>",
            "<message><delay xmlns='urn:xmpp:delay' stamp='yesterday'/></message>",
        ] {
            assert_eq!(Delay::of(&message(xml)), None);
        }
    }
}
