//! The character classes of XML 1.0 (fifth edition).

/// Class bit: white space (XML §2.3, production `S`).
pub(crate) const SPACE: u8 = 1;
/// Class bit: may be in a name without colon, as far as one byte can tell.
pub(crate) const NAME: u8 = 1 << 1;
/// Class bit: not itself in an attribute value.
pub(crate) const SPECIAL: u8 = 1 << 2;

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
            b' ' => SPACE,
            b'\t' | b'\n' => SPACE | SPECIAL | IN_VALUE,
            b'\r' => SPACE | SPECIAL | IN_VALUE | IN_TEXT,
            b'<' => SPECIAL | TAG | IN_VALUE | IN_TEXT,
            b'"' | b'\'' => SPECIAL | TAG | IN_VALUE,
            b'&' => SPECIAL | IN_VALUE | IN_TEXT,
            b'>' => TAG | IN_VALUE | IN_TEXT,
            b'/' => TAG,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | 0x80.. => NAME,
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

/// Whether all characters of `text` are XML characters. Valid UTF-8 leaves only C0 controls, U+FFFE and U+FFFF to refuse.
pub(crate) fn are_chars(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Branch-free in blocks, so that the compiler can vectorise it: no control, and no lead byte of U+FFFE/U+FFFF.
    let suspicious = |byte: &u8| (*byte < 0x20 && !is_space(*byte)) || *byte == 0xEF;
    if !bytes
        .chunks(64)
        .any(|block| block.iter().fold(false, |found, byte| found | suspicious(byte)))
    {
        return true;
    }
    text.chars().all(is_char)
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

/// Production `NCName`: a name without a colon.
pub(crate) fn is_ncname(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some(first) = bytes.first() else { return false };
    let ascii_start = first.is_ascii_alphabetic() || *first == b'_';
    if ascii_start
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        return true;
    }
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}
