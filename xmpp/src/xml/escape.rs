//! Writing character data so that every parser reads back the same characters.

/// Appends `text` as element content.
///
/// `>` is escaped because `]]>` must not appear (XML §2.4), and carriage return because parsers turn it into a line feed
/// (XML §2.11). The text must consist of XML characters, as everything that was parsed does.
pub fn escape_text(text: &str, out: &mut String) {
    escape(text, out, |byte| match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

/// Appends `text` as the inside of an attribute value in single or double quotes.
///
/// White space other than the space is escaped because parsers turn it into spaces (XML §3.3.3).
pub fn escape_attr(text: &str, out: &mut String) {
    escape(text, out, |byte| match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        b'\'' => Some("&apos;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

fn escape(text: &str, out: &mut String, replacement: impl Fn(u8) -> Option<&'static str>) {
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        if let Some(replacement) = replacement(byte) {
            out.push_str(&text[written..at]);
            out.push_str(replacement);
            written = at + 1;
        }
    }
    out.push_str(&text[written..]);
}
