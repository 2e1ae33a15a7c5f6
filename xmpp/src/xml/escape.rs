//! Writing character data so that every parser reads back the same characters.

/// Appends `text` as element content.
///
/// `>` is escaped because `]]>` must not appear (XML §2.4), and carriage return because parsers turn it into a line feed
/// (XML §2.11). The text must consist of XML characters, as everything that was parsed does.
pub fn escape_text(text: &str, out: &mut String) {
    escape(text, in_text, |piece| out.push_str(piece));
}

/// Appends `text` as the inside of an attribute value in single or double quotes.
///
/// White space other than the space is escaped because parsers turn it into spaces (XML §3.3.3).
pub fn escape_attr(text: &str, out: &mut String) {
    escape(text, in_attribute, |piece| out.push_str(piece));
}

/// As [`escape_attr`], for who writes bytes.
pub(crate) fn escape_attr_bytes(text: &str, out: &mut Vec<u8>) {
    escape(text, in_attribute, |piece| out.extend_from_slice(piece.as_bytes()));
}

const fn in_text(byte: u8) -> Option<&'static str> {
    match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    }
}

const fn in_attribute(byte: u8) -> Option<&'static str> {
    match byte {
        b'\'' => Some("&apos;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        _ => in_text(byte),
    }
}

#[inline]
fn escape(text: &str, replacement: impl Fn(u8) -> Option<&'static str>, mut push: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| replacement(byte).is_some()) {
        push(&rest[..at]);
        push(replacement(rest.as_bytes()[at]).unwrap_or_default());
        rest = &rest[at + 1..];
    }
    push(rest);
}
