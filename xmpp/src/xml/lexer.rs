//! A frame's text as tags, attributes and character data: the grammar of XML 1.0 without DTD, comments and processing
//! instructions, and nothing beside it.
//!
//! Why it is our own: `docs/decisions/xml-lexer.md`.

use std::borrow::Cow;

use super::XmlError;
use super::chars::{NAME, SPACE, SPECIAL, class, is_char, is_ncname};

/// A name as written, and where its colon is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    /// With its prefix.
    pub(super) text: &'a str,
    /// Bytes before the colon; 0 when there is no prefix.
    colon: usize,
}

impl<'a> Name<'a> {
    /// Empty when there is none.
    pub(super) fn prefix(self) -> &'a str {
        &self.text[..self.colon]
    }

    /// The name without its prefix.
    pub(super) fn local(self) -> &'a str {
        if self.colon == 0 {
            self.text
        } else {
            &self.text[self.colon + 1..]
        }
    }
}

/// A piece of a document.
pub(super) enum Token<'a> {
    /// A start tag begins; [`Lexer::in_tag`] goes on.
    StartTag(Name<'a>),
    /// An end tag begins; [`Lexer::end_tag`] goes on.
    EndTag,
    /// Character data without references, or the inside of a CDATA section. Line ends are as written.
    Text { text: &'a str, cdata: bool },
    /// The character that a reference stands for.
    Char(char),
    /// The end of the input.
    Eof,
}

/// What comes next in a start tag.
pub(super) enum InTag<'a> {
    Attribute {
        name: Name<'a>,
        /// References resolved, white space normalised.
        value: Cow<'a, str>,
        /// The attribute exactly as written.
        source: &'a str,
    },
    /// `>`, or `/>` when the element is empty.
    End { empty: bool },
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// `text` must consist of XML characters.
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Where in the input `part`, a slice of it, begins.
    pub(super) fn offset_of(&self, part: &str) -> Option<usize> {
        let offset = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        (offset + part.len() <= self.text.len()).then_some(offset)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn token(&mut self) -> Result<Token<'a>, XmlError> {
        match self.peek() {
            None => Ok(Token::Eof),
            Some(b'<') => self.markup(),
            Some(b'&') => {
                self.at += 1;
                self.reference().map(Token::Char)
            }
            Some(_) => self.character_data(),
        }
    }

    fn markup(&mut self) -> Result<Token<'a>, XmlError> {
        self.at += 1;
        match self.peek() {
            Some(b'/') => {
                self.at += 1;
                Ok(Token::EndTag)
            }
            Some(b'!') => self.cdata(),
            Some(b'?') => Err(XmlError::RestrictedXml("processing instruction")),
            _ => self.name().map(Token::StartTag),
        }
    }

    /// XML §2.4: up to the next markup or reference; `]]>` must not be in it.
    fn character_data(&mut self) -> Result<Token<'a>, XmlError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        loop {
            let Some(stop) = memchr::memchr3(b'<', b'&', b']', &bytes[self.at..]) else {
                self.at = bytes.len();
                break;
            };
            self.at += stop;
            if bytes[self.at] != b']' {
                break;
            }
            if bytes[self.at..].starts_with(b"]]>") {
                return Err(XmlError::NotWellFormed("']]>' in character data"));
            }
            self.at += 1;
        }
        Ok(Token::Text {
            text: &self.text[start..self.at],
            cdata: false,
        })
    }

    /// After `<`, at `!`.
    fn cdata(&mut self) -> Result<Token<'a>, XmlError> {
        let rest = &self.text[self.at..];
        let Some(inside) = rest.strip_prefix("![CDATA[") else {
            return Err(match rest.as_bytes().get(1) {
                Some(b'-') => XmlError::RestrictedXml("comment"),
                Some(byte) if byte.is_ascii_alphabetic() => XmlError::RestrictedXml("document type declaration"),
                _ => XmlError::NotWellFormed("'<!' that begins nothing"),
            });
        };
        let end = memchr::memmem::find(inside.as_bytes(), b"]]>");
        let end = end.ok_or(XmlError::NotWellFormed("CDATA section does not end"))?;
        self.at += "![CDATA[".len() + end + "]]>".len();
        Ok(Token::Text {
            text: &inside[..end],
            cdata: true,
        })
    }

    /// A qualified name (XML-NAMES §4).
    fn name(&mut self) -> Result<Name<'a>, XmlError> {
        const BAD: XmlError = XmlError::NotWellFormed("name that XML does not allow");
        let bytes = self.text.as_bytes();
        let start = self.at;
        let (mut colon, mut all) = (0, 0);
        while let Some(byte) = bytes.get(self.at) {
            if class(*byte) & NAME != 0 {
                all |= *byte;
            } else if *byte == b':' && colon == 0 {
                colon = self.at - start;
                if colon == 0 {
                    return Err(BAD);
                }
            } else {
                break;
            }
            self.at += 1;
        }
        let name = Name {
            text: &self.text[start..self.at],
            colon,
        };
        let starts = |part: &str| {
            part.bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        };
        let valid = if all < 0x80 {
            starts(name.text) && (colon == 0 || starts(name.local()))
        } else {
            is_ncname(name.local()) && (colon == 0 || is_ncname(name.prefix()))
        };
        if valid { Ok(name) } else { Err(BAD) }
    }

    /// What follows in the start tag whose name or last attribute was read (XML §3.1).
    pub(super) fn in_tag(&mut self) -> Result<InTag<'a>, XmlError> {
        const BAD: XmlError = XmlError::NotWellFormed("attribute that XML does not allow");
        let before = self.at;
        self.skip_space();
        match self.peek() {
            Some(b'>') => {
                self.at += 1;
                return Ok(InTag::End { empty: false });
            }
            Some(b'/') => {
                self.at += 1;
                self.expect(b'>', XmlError::NotWellFormed("'/' in a tag"))?;
                return Ok(InTag::End { empty: true });
            }
            None => return Err(XmlError::NotWellFormed("tag does not end")),
            Some(_) if self.at == before => return Err(XmlError::NotWellFormed("no space before an attribute")),
            Some(_) => {}
        }
        let start = self.at;
        let name = self.name()?;
        self.skip_space();
        self.expect(b'=', BAD)?;
        self.skip_space();
        let value = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.attribute_value(quote)?,
            _ => return Err(BAD),
        };
        Ok(InTag::Attribute {
            name,
            value,
            source: &self.text[start..self.at],
        })
    }

    /// At the opening quote; up to after the closing one (XML §2.3, `AttValue`).
    fn attribute_value(&mut self, quote: u8) -> Result<Cow<'a, str>, XmlError> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let mut from = self.at;
        let mut owned: Option<String> = None;
        loop {
            let length = bytes[self.at..].iter().position(|b| class(*b) & SPECIAL != 0);
            self.at += length.ok_or(XmlError::NotWellFormed("attribute value does not end"))?;
            let byte = bytes[self.at];
            let piece = &self.text[from..self.at];
            if byte == quote {
                self.at += 1;
                return Ok(match owned {
                    None => Cow::Borrowed(piece),
                    Some(value) => Cow::Owned(value + piece),
                });
            }
            self.at += 1;
            let character = match byte {
                b'<' => return Err(XmlError::NotWellFormed("'<' in an attribute value")),
                b'&' => self.reference()?,
                // XML §2.11 and §3.3.3: a line end of two characters is one, and becomes one space.
                b'\r' => {
                    self.at += usize::from(self.peek() == Some(b'\n'));
                    ' '
                }
                b'\n' | b'\t' => ' ',
                _ => continue,
            };
            let value = owned.get_or_insert_with(String::new);
            value.push_str(piece);
            value.push(character);
            from = self.at;
        }
    }

    /// After `&`: a character reference or one of the five predefined entities (XML §4.1 and §4.6).
    fn reference(&mut self) -> Result<char, XmlError> {
        const BAD: XmlError = XmlError::NotWellFormed("reference that XML does not allow");
        let rest = &self.text[self.at..];
        let end = memchr::memchr(b';', rest.as_bytes()).ok_or(XmlError::NotWellFormed("reference without end"))?;
        self.at += end + 1;
        let name = &rest[..end];
        match name {
            "lt" => return Ok('<'),
            "gt" => return Ok('>'),
            "amp" => return Ok('&'),
            "apos" => return Ok('\''),
            "quot" => return Ok('"'),
            _ => {}
        }
        let Some(number) = name.strip_prefix('#') else {
            // RFC 6120 §11.1: other entities are prohibited, declared or not.
            let well_formed = name.split(':').all(is_ncname);
            return Err(if well_formed {
                XmlError::RestrictedXml("entity reference")
            } else {
                BAD
            });
        };
        let (digits, radix) = match number.strip_prefix('x') {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        // from_str_radix would take a sign.
        if !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
            return Err(BAD);
        }
        let code = u32::from_str_radix(digits, radix).map_err(|_| BAD)?;
        char::from_u32(code).filter(|c| is_char(*c)).ok_or(BAD)
    }

    /// The rest of an end tag, which must repeat `name`.
    pub(super) fn end_tag(&mut self, name: &str) -> Result<(), XmlError> {
        const MISMATCH: XmlError = XmlError::NotWellFormed("end tag does not match its start tag");
        if !self.text.as_bytes()[self.at..].starts_with(name.as_bytes()) {
            return Err(MISMATCH);
        }
        self.at += name.len();
        self.skip_space();
        self.expect(b'>', MISMATCH)
    }

    fn expect(&mut self, byte: u8, error: XmlError) -> Result<(), XmlError> {
        if self.peek() != Some(byte) {
            return Err(error);
        }
        self.at += 1;
        Ok(())
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| class(byte) & SPACE != 0) {
            self.at += 1;
        }
    }
}
