//! The character classes of XML 1.0 (fifth edition).

/// Class bit: ASCII that may be in a name without colon.
const NAME: u8 = 1;
/// Class bit: ASCII that may begin a name without colon.
const NAME_START: u8 = 1 << 1;
/// Class bit: has another meaning in an attribute value than itself (XML §3.3.3).
pub(crate) const NORMALIZED: u8 = 1 << 2;
/// Class bit: ends or interrupts the reading of a tag.
pub(crate) const TAG: u8 = 1 << 3;
/// Class bit: is written as a reference in content.
pub(crate) const IN_TEXT: u8 = 1 << 4;
/// Class bit: is written as a reference in an attribute value.
pub(crate) const IN_VALUE: u8 = 1 << 5;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'\t' | b'\n' => NORMALIZED | IN_VALUE,
            b'\r' => NORMALIZED | IN_VALUE | IN_TEXT,
            b'<' => TAG | IN_VALUE | IN_TEXT,
            b'"' | b'\'' => TAG | IN_VALUE,
            b'&' => NORMALIZED | IN_VALUE | IN_TEXT,
            b'>' => TAG | IN_VALUE | IN_TEXT,
            b'/' => TAG,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NAME | NAME_START,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// The class bits of a byte.
pub(crate) fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// White space (XML §2.3, production `S`).
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether all of `text` is white space.
pub(crate) fn is_all_space(text: &str) -> bool {
    text.bytes().all(is_space)
}

/// Production `Char` (XML §2.2).
pub(crate) const fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// Whether `is_meant` picks any of `bytes`: looked at in blocks and without branches, so that the compiler can vectorise it.
#[inline(always)]
fn any(bytes: &[u8], is_meant: impl Fn(u8) -> bool) -> bool {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let is_in = |block: &[u8; 16]| block.iter().fold(false, |found, byte| found | is_meant(*byte));
    blocks.iter().any(is_in)
        // The last block overlaps the one before it: one vector is cheaper than up to 15 bytes.
        || match bytes.last_chunk() {
            Some(last) => is_in(last),
            None => rest.iter().any(|byte| is_meant(*byte)),
        }
}

/// Whether `text` has no control characters (tab and line ends among them), no references, and nothing that may be U+FFFE or
/// U+FFFF. Then all of it are XML characters, and attribute values mean what is written.
pub(crate) fn is_plain(text: &str) -> bool {
    !any(text.as_bytes(), |byte| (byte < 0x20) | (byte == b'&') | (byte == 0xEF))
}

/// Whether all characters of `text` are XML characters.
pub(crate) fn are_chars(text: &str) -> bool {
    // Valid UTF-8 leaves only C0 controls, U+FFFE and U+FFFF to refuse; the latter begin with this byte.
    let suspicious = |byte: u8| ((byte < 0x20) & (byte != b'\t') & (byte != b'\n') & (byte != b'\r')) | (byte == 0xEF);
    !any(text.as_bytes(), suspicious) || text.chars().all(is_char)
}

/// Production `NameStartChar` without the colon, as Namespaces in XML has it (`NCName`).
pub(crate) const fn is_name_start(c: char) -> bool {
    matches!(c,
        'A'..='Z' | '_' | 'a'..='z'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}'
        | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

/// Production `NameChar` without the colon.
pub(crate) const fn is_name_char(c: char) -> bool {
    is_name_start(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Whether `name` is a name without a colon and all ASCII.
#[inline]
pub(crate) fn is_plain_name(name: &str) -> bool {
    // Names are short: going on to the end is cheaper than stopping early.
    name.bytes().next().is_some_and(|byte| class(byte) & NAME_START != 0)
        && name.bytes().fold(NAME, |all, byte| all & class(byte)) != 0
}

/// Production `NCName`: a name without a colon.
pub(crate) fn is_ncname(name: &str) -> bool {
    if is_plain_name(name) {
        return true;
    }
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}
