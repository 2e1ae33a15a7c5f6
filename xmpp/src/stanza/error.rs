//! Stanza errors (RFC 6120 §8.3): what went wrong with one stanza, told to its sender.

use crate::xml::{CLIENT, Element, STANZAS};

/// What the sender can do about an error (RFC 6120 §8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// Proceed: the condition was only a warning.
    Continue,
    /// Retry after changing what was sent.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    /// The attribute's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Continue => "continue",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }

    fn of(attribute: &str) -> Option<Self> {
        Some(match attribute {
            "auth" => Self::Auth,
            "cancel" => Self::Cancel,
            "continue" => Self::Continue,
            "modify" => Self::Modify,
            "wait" => Self::Wait,
            _ => return None,
        })
    }
}

/// Makes the condition enum, its names and a constructor for each with the type RFC 6120 recommends.
macro_rules! conditions {
    ($($variant:ident $constructor:ident $name:literal $type_:ident $doc:literal;)*) => {
        /// What went wrong (RFC 6120 §8.3.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Condition {
            $(#[doc = $doc] $variant,)*
        }

        impl Condition {
            /// Every condition, in the order of RFC 6120 §8.3.3.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The element's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The error type that RFC 6120 recommends for this condition.
            pub const fn default_type(self) -> ErrorType {
                match self {
                    $(Self::$variant => ErrorType::$type_,)*
                }
            }

            fn of(name: &str) -> Option<Self> {
                Some(match name {
                    $($name => Self::$variant,)*
                    _ => return None,
                })
            }
        }

        impl StanzaError {
            $(#[doc = $doc] pub const fn $constructor() -> Self {
                Self::new(Condition::$variant)
            })*
        }
    };
}

conditions! {
    BadRequest bad_request "bad-request" Modify
        "The stanza is malformed or cannot be processed (§8.3.3.1).";
    Conflict conflict "conflict" Cancel
        "A resource or session with the same name or address exists (§8.3.3.2).";
    FeatureNotImplemented feature_not_implemented "feature-not-implemented" Cancel
        "The request is understood in principle but not implemented (§8.3.3.3).";
    Forbidden forbidden "forbidden" Auth
        "The sender lacks the permission (§8.3.3.4).";
    Gone gone "gone" Cancel
        "The recipient is no longer at this address (§8.3.3.5).";
    InternalServerError internal_server_error "internal-server-error" Cancel
        "A fault of ours, or of something we need (§8.3.3.6).";
    ItemNotFound item_not_found "item-not-found" Cancel
        "The addressed address or item does not exist (§8.3.3.7).";
    JidMalformed jid_malformed "jid-malformed" Modify
        "An address violates RFC 7622 (§8.3.3.8).";
    NotAcceptable not_acceptable "not-acceptable" Modify
        "Understood, but does not meet the recipient's criteria (§8.3.3.9).";
    NotAllowed not_allowed "not-allowed" Cancel
        "Nobody is allowed to do this (§8.3.3.10).";
    NotAuthorized not_authorized "not-authorized" Auth
        "Credentials are needed first (§8.3.3.11).";
    PolicyViolation policy_violation "policy-violation" Modify
        "Violates a local policy (§8.3.3.12).";
    RecipientUnavailable recipient_unavailable "recipient-unavailable" Wait
        "The recipient is temporarily unavailable (§8.3.3.13).";
    Redirect redirect "redirect" Modify
        "Requests for this information go elsewhere for now (§8.3.3.14).";
    RegistrationRequired registration_required "registration-required" Auth
        "Registration is needed first (§8.3.3.15).";
    RemoteServerNotFound remote_server_not_found "remote-server-not-found" Cancel
        "The recipient's server does not exist or cannot be resolved (§8.3.3.16).";
    RemoteServerTimeout remote_server_timeout "remote-server-timeout" Wait
        "The recipient's server could not be reached in time (§8.3.3.17).";
    ResourceConstraint resource_constraint "resource-constraint" Wait
        "Too busy, or lacking a system resource (§8.3.3.18).";
    ServiceUnavailable service_unavailable "service-unavailable" Cancel
        "The service is not provided, or it is not to be told that it is (§8.3.3.19).";
    SubscriptionRequired subscription_required "subscription-required" Auth
        "A subscription is needed first (§8.3.3.20).";
    UndefinedCondition undefined_condition "undefined-condition" Cancel
        "None of these: an application-specific condition says what (§8.3.3.21).";
    UnexpectedRequest unexpected_request "unexpected-request" Wait
        "Understood, but out of order (§8.3.3.22).";
}

/// An error about one stanza.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .condition.name())]
pub struct StanzaError {
    /// What the sender can do.
    pub type_: ErrorType,
    /// What went wrong.
    pub condition: Condition,
    /// A sentence for people.
    pub text: Option<Box<str>>,
    /// Where to go instead: an address for `gone` and `redirect`.
    pub address: Option<Box<str>>,
    /// The extension's own condition (RFC 6120 §8.3.4).
    pub application: Option<Box<Element>>,
}

impl StanzaError {
    const fn new(condition: Condition) -> Self {
        Self {
            type_: condition.default_type(),
            condition,
            text: None,
            address: None,
            application: None,
        }
    }

    /// This error with a sentence for people, in English.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Box<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// This error with another type than the usual one.
    #[must_use]
    pub fn with_type(mut self, type_: ErrorType) -> Self {
        self.type_ = type_;
        self
    }

    /// This error with an application-specific condition.
    #[must_use]
    pub fn with_application(mut self, condition: Element) -> Self {
        self.application = Some(Box::new(condition));
        self
    }

    /// This error with the address to go to instead (`gone`, `redirect`).
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Box<str>>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The `<error/>` element.
    pub fn to_element(&self) -> Element {
        let mut condition = Element::new(self.condition.name(), STANZAS);
        condition.push_text(self.address.as_deref().unwrap_or_default());
        let mut error = Element::new("error", CLIENT)
            .with_attr("type", self.type_.as_str())
            .with_child(condition);
        if let Some(text) = &self.text {
            error.push_child(
                Element::new("text", STANZAS)
                    .with_attr("xml:lang", "en")
                    .with_text(&**text),
            );
        }
        error.with_children(self.application.as_deref().cloned())
    }

    /// Reads an `<error/>` element. What is missing or unknown becomes `undefined-condition` and the condition's usual type.
    pub fn from_element(error: &Element) -> Self {
        let known = |child: &Element| Condition::of(child.name()).filter(|_| child.ns() == STANZAS);
        let condition = error.children().find_map(|child| Some((known(child)?, child)));
        let (condition, address) = match condition {
            Some((condition, child)) => (condition, child.text()),
            None => (Condition::UndefinedCondition, String::new()),
        };
        Self {
            type_: error
                .attr("type")
                .and_then(ErrorType::of)
                .unwrap_or_else(|| condition.default_type()),
            condition,
            text: error.child("text", STANZAS).map(|text| text.text().into()),
            address: (!address.is_empty()).then(|| address.into()),
            application: error
                .children()
                .find(|child| child.ns() != STANZAS)
                .cloned()
                .map(Box::new),
        }
    }
}
