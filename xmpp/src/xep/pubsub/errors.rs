//! The errors of XEP-0060 with conditions of its own, each as the section says that describes it.

use super::payload::NS_ERRORS;
use crate::stanza::{ErrorType, StanzaError};
use crate::xml::Element;

/// Defines a function for an error with a condition of pubsub's own.
macro_rules! errors {
    ($($function:ident $base:ident $type_:ident $condition:literal $doc:literal;)*) => {
        $(#[doc = $doc]
        pub(crate) fn $function() -> StanzaError {
            StanzaError::$base().with_type(ErrorType::$type_).with_application(Element::new($condition, NS_ERRORS))
        })*
    };
}

errors! {
    closed_node not_allowed Cancel "closed-node" "§6.1.3.4, §6.5.9.8.";
    invalid_jid bad_request Modify "invalid-jid" "§6.1.3.1.";
    invalid_options bad_request Modify "invalid-options" "§6.3.6.2.";
    invalid_payload bad_request Modify "invalid-payload" "§7.1.3.6.";
    invalid_subid not_acceptable Modify "invalid-subid" "§6.2.3.5, §6.3.4.5, §6.5.9.2.";
    item_forbidden bad_request Modify "item-forbidden" "§7.1.3.7.";
    item_required bad_request Modify "item-required" "§7.1.3.7, §7.2.3.4.";
    jid_required bad_request Modify "jid-required" "§6.3.4.3.";
    max_items_exceeded not_allowed Cancel "max-items-exceeded" "§12.11.";
    node_full conflict Cancel "node-full" "§7.1.3.4.";
    nodeid_required bad_request Modify "nodeid-required" "§7.2.3.3, §8.2.3.3.";
    not_in_roster_group not_authorized Auth "not-in-roster-group" "§6.1.3.3, §6.5.9.7.";
    not_subscribed unexpected_request Cancel "not-subscribed" "§6.2.3.2.";
    no_such_subscriber unexpected_request Modify "not-subscribed" "§6.3.4.2.";
    only_for_subscribers not_authorized Auth "not-subscribed" "§6.5.9.3.";
    payload_required bad_request Modify "payload-required" "§7.1.3.7.";
    payload_too_big not_acceptable Modify "payload-too-big" "§7.1.3.5.";
    pending_subscription not_authorized Auth "pending-subscription" "§6.1.3.7.";
    precondition_not_met conflict Cancel "precondition-not-met" "§7.1.5.";
    presence_subscription_required not_authorized Auth "presence-subscription-required" "§6.1.3.2, §6.5.9.6.";
    subid_required bad_request Modify "subid-required" "§6.2.3.1, §6.3.4.4, §6.5.9.1.";
    too_many_subscriptions policy_violation Wait "too-many-subscriptions" "§6.1.3.9.";
    unsupported_access_model not_acceptable Modify "unsupported-access-model" "§8.1.2.";
}

/// The service or the node does not do this: `feature` says what.
pub(crate) fn unsupported(feature: &'static str) -> StanzaError {
    let condition = Element::new("unsupported", NS_ERRORS).with_attr("feature", feature);
    StanzaError::feature_not_implemented().with_application(condition)
}

/// The node has moved for good (§6.1.3.11).
pub(crate) fn moved(to: &str) -> StanzaError {
    StanzaError::gone().with_type(ErrorType::Modify).with_address(to)
}
