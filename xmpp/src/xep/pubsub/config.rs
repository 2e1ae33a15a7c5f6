//! The configuration of a pubsub node (XEP-0060 §8.2, §16.4.4): its fields, their defaults, and the form they are shown in.
//!
//! A field is a line in [`FIELDS`]; forms, submissions and preconditions are computed from it.

use super::limits::Limits;
use crate::jid::Jid;
use crate::xep::data_forms::{Field, FieldType, Form, Kind, boolean};

/// What a form about a node's configuration says it is.
pub(crate) const FORM_TYPE: &str = "http://jabber.org/protocol/pubsub#node_config";

/// What a form of preconditions says it is (§7.1.5).
pub(crate) const OPTIONS_FORM_TYPE: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// Texts of a configuration are at most so long, in bytes.
const TEXT_BYTES_MAX: usize = 1023;

/// A list in a configuration has at most so many entries.
const ENTRIES_MAX: usize = 64;

/// Defines an enumeration whose values are words in forms and numbers in rows.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
        #[repr(i32)]
        pub(crate) enum $name { $($(#[$of])* $variant = $number,)* }

        impl $name {
            const WORDS: &[&str] = &[$($word,)*];

            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

choices! {
    /// Who may subscribe and retrieve items (§4.5).
    AccessModel {
        /// Everybody.
        Open = 0 "open",
        /// Who is subscribed to an owner's presence.
        Presence = 1 "presence",
        /// Who is in certain groups of an owner's roster.
        Roster = 2 "roster",
        /// Whom an owner approves.
        Authorize = 3 "authorize",
        /// Whom an owner has named.
        Whitelist = 4 "whitelist",
    }
}

choices! {
    /// Who may publish.
    PublishModel {
        /// Publishers and owners.
        Publishers = 0 "publishers",
        /// Subscribers, too.
        Subscribers = 1 "subscribers",
        /// Everybody.
        Open = 2 "open",
    }
}

choices! {
    /// What happens when an item is published to a node that is full (§7.1.2.5).
    WhenFull {
        /// The oldest item goes, and subscribers hear of it.
        RetractOldest = 0 "retract-oldest",
        /// The oldest item goes.
        DiscardOldest = 1 "discard-oldest",
        /// The new item is refused.
        Reject = 2 "reject",
    }
}

choices! {
    /// When the last published item is sent (§6.1.7).
    SendLast {
        /// Never.
        Never = 0 "never",
        /// To who subscribes.
        OnSub = 1 "on_sub",
        /// Also to a subscriber's resource that becomes available.
        OnSubAndPresence = 2 "on_sub_and_presence",
    }
}

choices! {
    /// The type of the messages that notify.
    NotificationType {
        /// What nobody takes is dropped.
        Headline = 0 "headline",
        /// What nobody takes is stored.
        Normal = 1 "normal",
    }
}

choices! {
    /// Whether items say who published them (§12.17).
    ItemReply {
        /// They do not.
        None = 0 "none",
        /// They do.
        Publisher = 1 "publisher",
    }
}

/// The configuration of a node. In rows every field is said, so another default changes no node that exists.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Config {
    #[prost(string, tag = "1")]
    pub(crate) title: String,
    #[prost(string, tag = "2")]
    pub(crate) description: String,
    #[prost(string, tag = "3")]
    pub(crate) language: String,
    /// The namespace that payloads must have; empty: any.
    #[prost(string, tag = "4")]
    pub(crate) type_: String,
    #[prost(string, repeated, tag = "5")]
    pub(crate) contacts: Vec<String>,
    #[prost(bool, tag = "6")]
    pub(crate) deliver_notifications: bool,
    #[prost(bool, tag = "7")]
    pub(crate) deliver_payloads: bool,
    #[prost(bool, tag = "8")]
    pub(crate) notify_config: bool,
    #[prost(bool, tag = "9")]
    pub(crate) notify_delete: bool,
    #[prost(bool, tag = "10")]
    pub(crate) notify_retract: bool,
    #[prost(bool, tag = "11")]
    pub(crate) notify_sub: bool,
    #[prost(bool, tag = "12")]
    pub(crate) persist_items: bool,
    /// 0: as many as the service allows.
    #[prost(uint64, tag = "13")]
    pub(crate) max_items: u64,
    /// In seconds; 0: they stay.
    #[prost(uint64, tag = "14")]
    pub(crate) item_expire: u64,
    #[prost(bool, tag = "15")]
    pub(crate) subscribe: bool,
    #[prost(enumeration = "AccessModel", tag = "16")]
    pub(crate) access_model: i32,
    #[prost(string, repeated, tag = "17")]
    pub(crate) roster_groups_allowed: Vec<String>,
    #[prost(enumeration = "PublishModel", tag = "18")]
    pub(crate) publish_model: i32,
    #[prost(enumeration = "WhenFull", tag = "19")]
    pub(crate) publish_node_full: i32,
    #[prost(uint64, tag = "20")]
    pub(crate) max_payload_size: u64,
    #[prost(enumeration = "SendLast", tag = "21")]
    pub(crate) send_last_published_item: i32,
    #[prost(bool, tag = "22")]
    pub(crate) presence_based_delivery: bool,
    #[prost(enumeration = "NotificationType", tag = "23")]
    pub(crate) notification_type: i32,
    #[prost(enumeration = "ItemReply", tag = "24")]
    pub(crate) itemreply: i32,
    /// All subscriptions end with the subscriber's presence.
    #[prost(bool, tag = "25")]
    pub(crate) tempsub: bool,
}

impl Config {
    /// What a node of a service has that nobody configures.
    pub(crate) fn of_service(limits: &Limits) -> Self {
        Self {
            deliver_notifications: true,
            deliver_payloads: true,
            notify_delete: true,
            persist_items: true,
            max_items: u64::from(limits.default_items.min(limits.items_per_node_max)),
            subscribe: true,
            max_payload_size: limits.payload_bytes_max as u64,
            ..Self::default()
        }
    }

    /// Whether everybody may know of the node.
    pub(crate) fn is_listed(&self) -> bool {
        self.access_model() != AccessModel::Whitelist
    }

    /// Whether somebody who is nothing to the node may be subscribed to it for good.
    pub(crate) fn lets_anybody_in(&self) -> bool {
        matches!(self.access_model(), AccessModel::Open | AccessModel::Authorize)
    }

    /// How many items it keeps.
    pub(crate) fn items_max(&self, limits: &Limits) -> u64 {
        let most = u64::from(limits.items_per_node_max);
        match self.max_items {
            0 => most,
            max => max.min(most),
        }
    }

    /// How big a payload may be.
    pub(crate) fn payload_bytes_max(&self, limits: &Limits) -> usize {
        let most = limits.payload_bytes_max;
        usize::try_from(self.max_payload_size).map_or(most, |max| max.min(most))
    }

    /// The form with all fields; `Form` has labels and choices (§8.2.2), `Result` has values alone (§8.2.5.3).
    pub(crate) fn form(&self, kind: Kind) -> Form {
        let fields = FIELDS.iter().map(|field| field.shown(self, kind));
        fields.fold(Form::new(kind, FORM_TYPE), Form::with)
    }

    /// The fields that are told to everybody (§5.4).
    pub(crate) fn metadata(&self) -> impl Iterator<Item = Field> {
        let told = FIELDS.iter().filter(|field| field.is_metadata);
        told.map(|field| field.shown(self, Kind::Form))
            .map(|field| Field {
                options: Vec::new(),
                ..field
            })
            .filter(|field| field.values.iter().any(|value| !value.is_empty()))
    }

    /// This configuration with the fields of a submission changed; what it does not say stays (XEP-0004 §3.5), what nobody knows is
    /// left out (§3.1).
    ///
    /// # Errors
    /// The first field whose value makes no sense.
    pub(crate) fn with_submitted(&self, form: &Form, limits: &Limits) -> Result<Self, Improper> {
        let mut config = self.clone();
        for submitted in form.own_fields() {
            if submitted.var == NODE_TYPE {
                if submitted.values.iter().any(|value| value != "leaf") {
                    return Err(Improper::NodeType);
                }
                continue;
            }
            if let Some(field) = FIELDS.iter().find(|field| field.var == submitted.var) {
                let improper = match field.var {
                    ACCESS_MODEL => Improper::AccessModel,
                    var => Improper::Value(var),
                };
                (field.set)(&mut config, &submitted.values, limits).ok_or(improper)?;
            }
        }
        Ok(config)
    }

    /// Whether every field of `preconditions` is as it says (§7.1.5).
    ///
    /// # Errors
    /// A field that nobody knows, or whose value makes no sense.
    pub(crate) fn meets(&self, preconditions: &Form, limits: &Limits) -> Result<bool, Improper> {
        if let Some(unknown) = preconditions
            .own_fields()
            .find(|asked| asked.var != NODE_TYPE && !FIELDS.iter().any(|field| field.var == asked.var))
        {
            return Err(Improper::Unknown(unknown.var.clone()));
        }
        Ok(self.with_submitted(preconditions, limits)? == *self)
    }
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Improper {
    /// The access model is none.
    AccessModel,
    /// Only leaf nodes exist.
    NodeType,
    /// The value of this field makes no sense.
    Value(&'static str),
    /// There is no such field.
    Unknown(String),
}

const ACCESS_MODEL: &str = "pubsub#access_model";
const NODE_TYPE: &str = "pubsub#node_type";

/// One field of the form.
struct ConfigField {
    var: &'static str,
    label: &'static str,
    type_: FieldType,
    options: &'static [&'static str],
    /// Whether everybody may know it (§5.4).
    is_metadata: bool,
    shown: fn(&Config) -> Vec<String>,
    /// `None`: the values make no sense.
    set: fn(&mut Config, &[String], &Limits) -> Option<()>,
}

impl ConfigField {
    fn shown(&self, config: &Config, kind: Kind) -> Field {
        let values = (self.shown)(config);
        let field = Field::of(self.type_, self.var, values);
        if kind != Kind::Form {
            return Field { type_: None, ..field };
        }
        Field {
            label: Some(self.label),
            options: self.options.iter().map(|word| (*word).to_owned()).collect(),
            ..field
        }
    }
}

macro_rules! text_field {
    ($var:literal, $label:literal, $member:ident) => {
        ConfigField {
            var: $var,
            label: $label,
            type_: FieldType::TextSingle,
            options: &[],
            is_metadata: true,
            shown: |config| vec![config.$member.clone()],
            set: |config, values, _| {
                config.$member = text(values)?;
                Some(())
            },
        }
    };
}

macro_rules! bool_field {
    ($var:literal, $label:literal, $member:ident) => {
        ConfigField {
            var: $var,
            label: $label,
            type_: FieldType::Boolean,
            options: &[],
            is_metadata: false,
            shown: |config| vec![u8::from(config.$member).to_string()],
            set: |config, values, _| {
                config.$member = boolean(single(values)?)?;
                Some(())
            },
        }
    };
}

macro_rules! choice_field {
    ($var:expr, $label:literal, $member:ident, $type_:ident, $is_metadata:literal) => {
        ConfigField {
            var: $var,
            label: $label,
            type_: FieldType::ListSingle,
            options: $type_::WORDS,
            is_metadata: $is_metadata,
            shown: |config| vec![config.$member().word().to_owned()],
            set: |config, values, _| {
                config.$member = $type_::of(single(values)?)? as i32;
                Some(())
            },
        }
    };
}

static FIELDS: &[ConfigField] = &[
    text_field!("pubsub#title", "A friendly name for the node", title),
    text_field!("pubsub#description", "A description of the node", description),
    text_field!("pubsub#language", "The default language of the node", language),
    text_field!("pubsub#type", "The namespace of payloads; empty: any", type_),
    ConfigField {
        var: "pubsub#contact",
        label: "Whom to contact with questions",
        type_: FieldType::JidMulti,
        options: &[],
        is_metadata: true,
        shown: |config| config.contacts.clone(),
        set: |config, values, _| {
            let jids = entries(values)?
                .into_iter()
                .map(|jid| Some(Jid::parse(&jid).ok()?.to_string()));
            config.contacts = jids.collect::<Option<_>>()?;
            Some(())
        },
    },
    bool_field!(
        "pubsub#deliver_notifications",
        "Whether to deliver event notifications",
        deliver_notifications
    ),
    bool_field!(
        "pubsub#deliver_payloads",
        "Whether to deliver payloads with event notifications",
        deliver_payloads
    ),
    bool_field!(
        "pubsub#notify_config",
        "Notify subscribers when the node configuration changes",
        notify_config
    ),
    bool_field!(
        "pubsub#notify_delete",
        "Notify subscribers when the node is deleted",
        notify_delete
    ),
    bool_field!(
        "pubsub#notify_retract",
        "Notify subscribers when items are removed from the node",
        notify_retract
    ),
    bool_field!(
        "pubsub#notify_sub",
        "Notify owners about new subscribers and unsubscribes",
        notify_sub
    ),
    bool_field!("pubsub#persist_items", "Whether to keep items", persist_items),
    ConfigField {
        var: "pubsub#max_items",
        label: "How many items to keep; `max` for as many as the service allows",
        type_: FieldType::TextSingle,
        options: &[],
        is_metadata: true,
        shown: |config| vec![number_or_max(config.max_items)],
        set: |config, values, limits| {
            let max = parse_number_or_max(single(values)?)?;
            (max <= u64::from(limits.items_per_node_max)).then(|| config.max_items = max)
        },
    },
    ConfigField {
        var: "pubsub#item_expire",
        label: "Seconds after which items are removed; `max` for never",
        type_: FieldType::TextSingle,
        options: &[],
        is_metadata: false,
        shown: |config| vec![number_or_max(config.item_expire)],
        set: |config, values, _| {
            let seconds = parse_number_or_max(single(values)?)?;
            // A hundred years: microseconds of it are added to the time.
            (seconds <= 100 * 365 * 86_400).then(|| config.item_expire = seconds)
        },
    },
    bool_field!("pubsub#subscribe", "Whether to allow subscriptions", subscribe),
    choice_field!(
        ACCESS_MODEL,
        "Who may subscribe and retrieve items",
        access_model,
        AccessModel,
        true
    ),
    ConfigField {
        var: "pubsub#roster_groups_allowed",
        label: "Roster groups allowed to subscribe",
        type_: FieldType::ListMulti,
        options: &[],
        is_metadata: false,
        shown: |config| config.roster_groups_allowed.clone(),
        set: |config, values, _| {
            config.roster_groups_allowed = entries(values)?;
            Some(())
        },
    },
    choice_field!(
        "pubsub#publish_model",
        "Who may publish",
        publish_model,
        PublishModel,
        true
    ),
    choice_field!(
        "pubsub#publish_node_full",
        "What publishing to a full node does",
        publish_node_full,
        WhenFull,
        false
    ),
    ConfigField {
        var: "pubsub#max_payload_size",
        label: "Largest payload in bytes",
        type_: FieldType::TextSingle,
        options: &[],
        is_metadata: false,
        shown: |config| vec![config.max_payload_size.to_string()],
        set: |config, values, limits| {
            let size: u64 = single(values)?.parse().ok()?;
            config.max_payload_size = size.min(limits.payload_bytes_max as u64);
            Some(())
        },
    },
    choice_field!(
        "pubsub#send_last_published_item",
        "When to send the last published item",
        send_last_published_item,
        SendLast,
        false
    ),
    bool_field!(
        "pubsub#presence_based_delivery",
        "Deliver event notifications only to available users",
        presence_based_delivery
    ),
    choice_field!(
        "pubsub#notification_type",
        "The type of the messages that notify",
        notification_type,
        NotificationType,
        false
    ),
    choice_field!(
        "pubsub#itemreply",
        "Whether items say who published them",
        itemreply,
        ItemReply,
        false
    ),
    bool_field!(
        "pubsub#tempsub",
        "Whether all subscriptions end with the subscriber's presence",
        tempsub
    ),
];

/// The only value; none at all is an empty one (XEP-0004 §3.6).
fn single(values: &[String]) -> Option<&str> {
    match values {
        [] => Some(""),
        [value] => Some(value),
        _ => None,
    }
}

fn text(values: &[String]) -> Option<String> {
    let text = single(values)?;
    (text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned())
}

fn entries(values: &[String]) -> Option<Vec<String>> {
    let fit = values.len() <= ENTRIES_MAX && values.iter().all(|value| value.len() <= TEXT_BYTES_MAX);
    let said = values.iter().filter(|value| !value.is_empty());
    fit.then(|| said.cloned().collect())
}

fn number_or_max(number: u64) -> String {
    match number {
        0 => "max".to_owned(),
        number => number.to_string(),
    }
}

fn parse_number_or_max(text: &str) -> Option<u64> {
    match text {
        "max" => Some(0),
        text => text.parse().ok().filter(|number| *number > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(fields: &[(&str, &[&str])]) -> Form {
        let form = Form::new(Kind::Submit, FORM_TYPE);
        fields.iter().fold(form, |form, (var, values)| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            form.with(Field {
                values,
                ..Field::new(var, "")
            })
        })
    }

    #[test]
    fn what_a_form_shows_can_be_submitted() {
        let limits = Limits::default();
        let config = Config::of_service(&limits);
        let shown = Form {
            kind: Kind::Submit,
            ..config.form(Kind::Form)
        };
        assert_eq!(config.with_submitted(&shown, &limits), Ok(config.clone()));
        assert_eq!(config.meets(&shown, &limits), Ok(true));
    }

    #[test]
    fn what_is_not_submitted_stays() {
        let limits = Limits::default();
        let config = Config::of_service(&limits);
        let form = submission(&[("pubsub#title", &["Musings"]), ("pubsub#unheard_of", &["1"])]);
        let changed = config.with_submitted(&form, &limits).expect("proper");
        assert_eq!(
            changed,
            Config {
                title: "Musings".to_owned(),
                ..config
            }
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let limits = Limits::default();
        let config = Config::of_service(&limits);
        let too_many = (u64::from(limits.items_per_node_max) + 1).to_string();
        for (var, values, problem) in [
            ("pubsub#access_model", &["ajar"][..], Improper::AccessModel),
            ("pubsub#node_type", &["collection"], Improper::NodeType),
            ("pubsub#max_items", &[&too_many], Improper::Value("pubsub#max_items")),
            ("pubsub#max_items", &["0"], Improper::Value("pubsub#max_items")),
            (
                "pubsub#persist_items",
                &["maybe"],
                Improper::Value("pubsub#persist_items"),
            ),
            ("pubsub#title", &["a", "b"], Improper::Value("pubsub#title")),
            ("pubsub#contact", &["@"], Improper::Value("pubsub#contact")),
        ] {
            assert_eq!(
                config.with_submitted(&submission(&[(var, values)]), &limits),
                Err(problem),
                "{var}"
            );
        }
    }

    #[test]
    fn preconditions_are_met_or_not_and_never_unknown() {
        let limits = Limits::default();
        let config = Config::of_service(&limits);
        for (var, value, met) in [
            ("pubsub#persist_items", "true", true),
            ("pubsub#persist_items", "1", true),
            ("pubsub#access_model", "whitelist", false),
        ] {
            assert_eq!(
                config.meets(&submission(&[(var, &[value])]), &limits),
                Ok(met),
                "{var} {value}"
            );
        }
        let unknown = submission(&[("pubsub#unheard_of", &["1"])]);
        assert_eq!(
            config.meets(&unknown, &limits),
            Err(Improper::Unknown("pubsub#unheard_of".to_owned()))
        );
    }
}
