//! Writing character data so that every parser reads back the same characters.

use super::chars::{IN_TEXT, IN_VALUE, class};

/// Appends `text` as element content.
///
/// `>` is escaped because `]]>` must not appear (XML §2.4), and carriage return because parsers turn it into a line feed
/// (XML §2.11). The text must consist of XML characters, as everything that was parsed does.
pub fn escape_text(text: &str, out: &mut String) {
    escape(text, IN_TEXT, |piece| out.push_str(piece));
}

/// Appends `text` as the inside of an attribute value in single or double quotes.
///
/// White space other than the space is escaped because parsers turn it into spaces (XML §3.3.3).
pub fn escape_attr(text: &str, out: &mut String) {
    escape(text, IN_VALUE, |piece| out.push_str(piece));
}

/// As [`escape_attr`], for who writes bytes.
pub(crate) fn escape_attr_bytes(text: &str, out: &mut Vec<u8>) {
    escape(text, IN_VALUE, |piece| out.extend_from_slice(piece.as_bytes()));
}

#[inline]
fn escape(text: &str, escaped: u8, mut push: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| class(byte) & escaped != 0) {
        push(&rest[..at]);
        push(match rest.as_bytes()[at] {
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'&' => "&amp;",
            b'\'' => "&apos;",
            b'"' => "&quot;",
            b'\t' => "&#x9;",
            b'\n' => "&#xA;",
            _ => "&#xD;",
        });
        rest = &rest[at + 1..];
    }
    push(rest);
}
