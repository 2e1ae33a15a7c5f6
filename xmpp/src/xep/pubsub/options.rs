//! The options of a subscription (XEP-0060 §6.3, §16.4.2).

use crate::rows::Timestamp;
use crate::xep::data_forms::{Field, FieldType, Form, Kind, boolean};
use crate::xep::date_time::{date_time, parse_date_time};

/// What a form about a subscription's options says it is.
pub(crate) const FORM_TYPE: &str = "http://jabber.org/protocol/pubsub#subscribe_options";

const DELIVER: &str = "pubsub#deliver";
const EXPIRE: &str = "pubsub#expire";
const SHOW_VALUES: &str = "pubsub#show-values";

/// What an available resource may show (RFC 6121 §4.7.2.1), and the bit of each; `online` is to show nothing.
const SHOWS: [(&str, u32); 5] = [("chat", 1), ("online", 2), ("away", 4), ("xa", 8), ("dnd", 16)];

/// Every resource that is available, and everybody who is not.
const ANY_SHOW: u32 = 31;

/// The options of one subscription.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Options {
    /// Whether notifications are delivered.
    #[prost(bool, tag = "1")]
    pub(crate) deliver: bool,
    /// What a resource must show to be notified, a bit each.
    #[prost(uint32, tag = "2")]
    pub(crate) shows: u32,
    /// When the subscription ends, in microseconds; 0: it does not.
    #[prost(uint64, tag = "3")]
    pub(crate) expire: u64,
    /// It ends when the subscriber becomes unavailable (§12.5).
    #[prost(bool, tag = "4")]
    pub(crate) temporary: bool,
}

impl Options {
    /// What a subscription has that nobody configures.
    pub(crate) fn by_default() -> Self {
        Self {
            deliver: true,
            shows: ANY_SHOW,
            expire: 0,
            temporary: false,
        }
    }

    /// Whether presence decides who is notified. All values together are no demand: they are what the form shows at first.
    pub(crate) fn asks_for_presence(&self) -> bool {
        self.shows != ANY_SHOW
    }

    /// Whether a resource that shows this is to be notified; `None` is mere availability.
    pub(crate) fn takes(&self, show: Option<&str>) -> bool {
        let show = show.unwrap_or("online");
        SHOWS.iter().any(|(word, bit)| *word == show && self.shows & bit != 0)
    }

    /// The form; `Form` has labels and choices, `Result` values alone.
    pub(crate) fn form(&self, kind: Kind) -> Form {
        let shows = SHOWS.iter().filter(|(_, bit)| self.shows & bit != 0);
        let expire = match self.expire {
            _ if self.temporary => "presence".to_owned(),
            0 => String::new(),
            at => date_time(Timestamp(at)),
        };
        let fields = [
            (
                DELIVER,
                FieldType::Boolean,
                "Whether to deliver notifications",
                vec![u8::from(self.deliver).to_string()],
            ),
            (
                EXPIRE,
                FieldType::TextSingle,
                "When the subscription ends: a date and time, or `presence`",
                vec![expire],
            ),
            (
                SHOW_VALUES,
                FieldType::ListMulti,
                "What a resource must show to be notified",
                shows.map(|(word, _)| (*word).to_owned()).collect(),
            ),
        ];
        fields
            .into_iter()
            .fold(Form::new(kind, FORM_TYPE), |form, (var, type_, label, values)| {
                let field = Field::of(type_, var, values);
                form.with(match kind {
                    Kind::Form => Field {
                        label: Some(label),
                        options: if var == SHOW_VALUES {
                            SHOWS.iter().map(|(word, _)| (*word).to_owned()).collect()
                        } else {
                            Vec::new()
                        },
                        ..field
                    },
                    _ => Field { type_: None, ..field },
                })
            })
    }

    /// These options with those of a submission changed; what is not said stays, what nobody knows is left out. `None`: they make
    /// no sense, or the end is before `now`.
    pub(crate) fn with_submitted(&self, form: &Form, now: Timestamp) -> Option<Self> {
        if form.form_type() != Some(FORM_TYPE) {
            return None;
        }
        let mut options = *self;
        for field in form.own_fields() {
            let single = match &field.values[..] {
                [] => Some(""),
                [value] => Some(&**value),
                _ => None,
            };
            match &*field.var {
                DELIVER => options.deliver = boolean(single?)?,
                EXPIRE => {
                    (options.temporary, options.expire) = match single? {
                        "" => (false, 0),
                        "presence" => (true, 0),
                        end => (false, parse_date_time(end).filter(|end| *end > now)?.0),
                    };
                }
                SHOW_VALUES => {
                    options.shows = 0;
                    for value in &field.values {
                        let (_, bit) = SHOWS.iter().find(|(word, _)| word == value)?;
                        options.shows |= bit;
                    }
                }
                _ => {}
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(fields: &[(&str, &[&str])]) -> Option<Options> {
        let form = fields
            .iter()
            .fold(Form::new(Kind::Submit, FORM_TYPE), |form, (var, values)| {
                let values = values.iter().map(|value| (*value).to_owned()).collect();
                form.with(Field {
                    values,
                    ..Field::new(var, "")
                })
            });
        Options::by_default().with_submitted(&form, Timestamp(1_000_000))
    }

    #[test]
    fn what_a_form_shows_can_be_submitted() {
        let options = [
            Options::by_default(),
            Options {
                deliver: false,
                shows: 3,
                ..Options::by_default()
            },
            Options {
                expire: 2_000_000,
                ..Options::by_default()
            },
            Options {
                temporary: true,
                ..Options::by_default()
            },
        ];
        for options in options {
            let form = Form {
                kind: Kind::Submit,
                ..options.form(Kind::Form)
            };
            assert_eq!(Options::by_default().with_submitted(&form, Timestamp(0)), Some(options));
        }
    }

    #[test]
    fn presence_decides_only_when_that_is_asked_for() {
        assert!(!Options::by_default().asks_for_presence());
        let some = submit(&[(SHOW_VALUES, &["chat", "online"])]).expect("proper");
        assert!(some.asks_for_presence());
        assert!(some.takes(None) && some.takes(Some("chat")) && !some.takes(Some("away")));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (var, values) in [
            (DELIVER, &["perhaps"][..]),
            (EXPIRE, &["tomorrow"]),
            (EXPIRE, &["1970-01-01T00:00:01Z"]),
            (SHOW_VALUES, &["invisible"]),
        ] {
            assert_eq!(submit(&[(var, values)]), None, "{var} {values:?}");
        }
        let other = Form::new(Kind::Submit, "urn:another");
        assert_eq!(Options::by_default().with_submitted(&other, Timestamp(0)), None);
    }
}
