//! What XEP-0077 says in XML: the only place with its element names.

use super::NS;
use crate::jid::BareJid;
use crate::sasl::{Password, is_reserved};
use crate::stanza::StanzaError;
use crate::xml::Element;

/// The fields of a registration (§3.1): a name and a password, and nothing that tells who somebody is.
pub(crate) fn fields() -> Element {
    query("Choose a username and a password.")
        .with_child(Element::new("username", NS))
        .with_child(Element::new("password", NS))
}

/// What is on file for an account (§3.1): its name.
pub(super) fn registered(account: &BareJid) -> Element {
    query("Choose another password to change yours.")
        .with_child(Element::new("registered", NS))
        .with_child(Element::new("username", NS).with_text(account.local().unwrap_or_default()))
        .with_child(Element::new("password", NS))
}

fn query(instructions: &'static str) -> Element {
    let instructions = Element::new("instructions", NS).with_text(instructions);
    Element::new("query", NS).with_child(instructions)
}

/// Reads who wants an account of `domain`, and with which password.
///
/// # Errors
/// `not-acceptable` when one of them is missing, or cannot be one (§3.1).
pub(crate) fn registration(query: &Element, domain: &str) -> Result<(BareJid, Password), StanzaError> {
    let missing = || StanzaError::not_acceptable().with_text("a username and a password are needed");
    let username = text(query, "username").ok_or_else(missing)?;
    let password = text(query, "password").ok_or_else(missing)?;
    let account = BareJid::new(Some(&username), domain).ok();
    let account = account
        .filter(|account| account.local().is_some_and(|local| !is_reserved(local)))
        .ok_or_else(|| StanzaError::not_acceptable().with_text("this cannot be a username"))?;
    Ok((account, prepared(&password)?))
}

/// Reads the new password of `account`.
///
/// # Errors
/// `bad-request` when something is missing, `not-allowed` when it is for somebody else (§3.3), `not-acceptable` when it cannot be
/// a password.
pub(crate) fn new_password(query: &Element, account: &BareJid) -> Result<Password, StanzaError> {
    let missing = || StanzaError::bad_request().with_text("the username and the new password are needed");
    let username = text(query, "username").ok_or_else(missing)?;
    let password = text(query, "password").ok_or_else(missing)?;
    let named = BareJid::new(Some(&username), account.domain());
    if named.is_ok_and(|named| named == *account) {
        prepared(&password)
    } else {
        Err(StanzaError::not_allowed().with_text("this is somebody else's username"))
    }
}

/// Whether it asks for the account to be removed (§3.2).
pub(crate) fn is_removal(query: &Element) -> bool {
    query.child("remove", NS).is_some()
}

fn prepared(password: &str) -> Result<Password, StanzaError> {
    Password::new(password).map_err(|error| StanzaError::not_acceptable().with_text(error.to_string()))
}

/// The text of a child, when there is one that has any.
fn text(query: &Element, name: &str) -> Option<String> {
    query.child(name, NS).map(Element::text).filter(|text| !text.is_empty())
}
