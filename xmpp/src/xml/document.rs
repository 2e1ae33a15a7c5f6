//! A frame's bytes as text: what can be checked without looking at markup.

use super::chars::{are_chars, is_plain};
use super::{Excess, Limits, XmlError};

/// Text that may be read: it is within its limit, and all of it are XML characters.
pub(crate) struct Document<'a> {
    text: &'a str,
    plain: bool,
}

impl<'a> Document<'a> {
    /// Checks `bytes`.
    pub(crate) fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self, XmlError> {
        if bytes.len() > limits.bytes() {
            return Err(XmlError::PolicyViolation(Excess::StanzaBytes));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| XmlError::UnsupportedEncoding("not UTF-8"))?;
        let plain = is_plain(text);
        if !plain && !are_chars(text) {
            return Err(XmlError::NotWellFormed("character that XML does not allow"));
        }
        if text.starts_with('\u{FEFF}') {
            // RFC 6120 §11.6: no mark but a character, where none may be. quick-xml would pass over it.
            return Err(XmlError::NotWellFormed("text outside of the element"));
        }
        Ok(Self { text, plain })
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Whether every attribute value in it is as written: without references and white space to normalise.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }
}
