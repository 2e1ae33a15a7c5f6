//! Qualified names (XML-NAMES §4).

use super::XmlError;
use super::chars::{is_ncname, is_plain_name};

/// A name as written, checked, and where its colon is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    text: &'a str,
    /// Bytes before the colon; 0 when there is no prefix.
    colon: usize,
}

impl<'a> Name<'a> {
    /// Checks that `text` is a qualified name.
    #[inline(always)]
    pub(super) fn parse(text: &'a str) -> Result<Self, XmlError> {
        if is_plain_name(text) {
            Ok(Self { text, colon: 0 })
        } else {
            Self::parse_any(text)
        }
    }

    /// Names with a colon or letters that are not ASCII.
    fn parse_any(text: &'a str) -> Result<Self, XmlError> {
        let colon = memchr::memchr(b':', text.as_bytes());
        let name = Self {
            text,
            colon: colon.unwrap_or(0),
        };
        if is_ncname(name.local()) && (colon.is_none() || is_ncname(name.prefix())) {
            Ok(name)
        } else {
            Err(XmlError::NotWellFormed("name that XML does not allow"))
        }
    }

    /// The name with its prefix.
    pub(crate) fn text(self) -> &'a str {
        self.text
    }

    /// Empty when there is none.
    pub(crate) fn prefix(self) -> &'a str {
        &self.text[..self.colon]
    }

    /// The name without its prefix.
    pub(crate) fn local(self) -> &'a str {
        match self.colon {
            0 => self.text,
            colon => &self.text[colon + 1..],
        }
    }
}
