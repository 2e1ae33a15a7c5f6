//! SASL in XML (RFC 6120 §6.4): how exchange messages travel over a stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::SASL;
use super::header::LANG;
use crate::sasl::{Condition, Failure};
use crate::xml::{Element, escape_attr, escape_text};

/// The message in an `<auth/>`, `<challenge/>`, `<response/>` or `<success/>`: none, or one that may be empty ("=").
pub(super) fn message(element: &Element) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    if element.children().next().is_some() {
        return Err(Failure::malformed("elements where base64 belongs"));
    }
    let text = Zeroizing::new(element.text());
    match text.as_str() {
        "" => Ok(None),
        "=" => Ok(Some(Zeroizing::new(Vec::new()))),
        // Padded, canonical, no white space (RFC 6120 §6.3.5).
        text => match BASE64.decode(text) {
            Ok(message) => Ok(Some(Zeroizing::new(message))),
            Err(_) => Err(Condition::IncorrectEncoding.into()),
        },
    }
}

/// Appends `<auth/>`.
pub(super) fn write_auth(mechanism: &str, initial: &[u8], out: &mut String) {
    out.push_str("<auth xmlns='");
    out.push_str(SASL);
    out.push_str("' mechanism='");
    escape_attr(mechanism, out);
    out.push_str("'>");
    push_base64(initial, out);
    out.push_str("</auth>");
}

/// Appends `<challenge/>`, `<response/>` or `<success/>`.
pub(super) fn write(name: &str, message: Option<&[u8]>, out: &mut String) {
    out.push('<');
    out.push_str(name);
    out.push_str(" xmlns='");
    out.push_str(SASL);
    let Some(message) = message else {
        out.push_str("'/>");
        return;
    };
    out.push_str("'>");
    push_base64(message, out);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Appends `<failure/>`.
pub(super) fn write_failure(failure: &Failure, out: &mut String) {
    out.push_str("<failure xmlns='");
    out.push_str(SASL);
    out.push_str("'><");
    out.push_str(failure.condition.name());
    out.push_str("/>");
    if let Some(text) = &failure.text {
        out.push_str("<text xml:lang='");
        out.push_str(LANG);
        out.push_str("'>");
        escape_text(text, out);
        out.push_str("</text>");
    }
    out.push_str("</failure>");
}

/// Reads a received `<failure/>`.
pub(super) fn read_failure(element: &Element) -> Failure {
    let mut failure = Failure::new(Condition::NotAuthorized);
    for child in element.children().filter(|child| child.ns() == SASL) {
        match child.name() {
            "text" => failure.text = Some(child.text().into()),
            name => failure.condition = Condition::from_name(name),
        }
    }
    failure
}

fn push_base64(message: &[u8], out: &mut String) {
    match message {
        [] => out.push('='),
        _ => BASE64.encode_string(message, out),
    }
}
