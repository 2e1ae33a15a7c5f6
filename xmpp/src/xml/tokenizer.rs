//! The only file that knows quick-xml: a frame's text as tags, attributes and character data.
//!
//! quick-xml finds where the pieces begin and end, matches end tags to start tags and resolves references. It is lenient: what
//! it lets through and XML does not is refused here as far as it is about the pieces' surroundings, and by
//! [`reader`](super::reader) as far as it is about what is in them. `docs/decisions/0003-xml-reading.md` has the list.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::errors::Error;
use quick_xml::escape::{EscapeError, resolve_predefined_entity};
use quick_xml::events::attributes::{Attribute, Attributes};
use quick_xml::events::{BytesRef, Event};
use quick_xml::name::QName;
use quick_xml::reader::Reader;

use super::XmlError;
use super::chars::{NORMALIZED, are_chars, class, is_char, is_ncname, is_plain};

/// A piece of a document.
pub(super) enum Token<'a> {
    /// A start tag, or one that is its own end.
    Start(Tag<'a>),
    /// The end tag of the element begun last.
    End,
    /// Character data without references. Line ends are as written; `]]>` may be in it.
    Text(&'a str),
    /// The inside of a CDATA section. Line ends are as written.
    CData(&'a str),
    /// The character that a reference stands for.
    Char(char),
    /// The end of the input.
    Eof,
}

/// A start tag without its angle brackets.
pub(super) struct Tag<'a> {
    inside: &'a str,
    name_length: usize,
    /// Whether it is its own end (`<a/>`).
    pub(super) empty: bool,
}

impl<'a> Tag<'a> {
    /// What stands before the first white space: not checked to be a name.
    pub(super) fn name(&self) -> &'a str {
        &self.inside[..self.name_length]
    }

    /// Fails when a `<` is in the tag: neither names nor values may have one (XML §2.3).
    pub(super) fn check(&self) -> Result<(), XmlError> {
        match memchr::memchr(b'<', self.inside.as_bytes()) {
            None => Ok(()),
            Some(_) => Err(XmlError::NotWellFormed("'<' in a tag")),
        }
    }

    /// As [`is_plain`], for what is in this tag.
    pub(super) fn is_plain(&self) -> bool {
        is_plain(self.inside)
    }

    /// Whether nothing stands after the name.
    pub(super) fn is_bare(&self) -> bool {
        self.name_length == self.inside.len()
    }

    /// What follows the name.
    pub(super) fn attributes(&self) -> Pieces<'a> {
        let mut attributes = Attributes::new(self.inside, self.name_length);
        attributes.with_checks(false);
        Pieces {
            inside: self.inside,
            after: self.name_length,
            attributes,
        }
    }
}

/// The attributes of a [`Tag`], in their order; repeated names are not noticed.
pub(super) struct Pieces<'a> {
    inside: &'a str,
    /// Where the name or the last attribute ended.
    after: usize,
    attributes: Attributes<'a>,
}

/// An attribute as written.
pub(super) struct Piece<'a> {
    /// What stands before the equals sign or the white space before it: not checked to be a name.
    pub(super) name: &'a str,
    /// What is between the quotes.
    pub(super) value: &'a str,
    /// From the first byte of the name to the closing quote.
    pub(super) source: &'a str,
}

impl<'a> Pieces<'a> {
    /// The next attribute; none when only white space is left.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'a>>, XmlError> {
        const BAD: XmlError = XmlError::NotWellFormed("attribute that XML does not allow");
        let (name, value) = match self.attributes.next() {
            None => return Ok(None),
            Some(Ok(Attribute {
                key: QName(name),
                value: Cow::Borrowed(value),
            })) => (name, value),
            Some(_) => return Err(BAD),
        };
        let begin = offset(self.inside, name).ok_or(BAD)?;
        if begin == self.after {
            return Err(XmlError::NotWellFormed("no space before an attribute"));
        }
        self.after = offset(self.inside, value).ok_or(BAD)? + value.len() + 1;
        let source = self.inside.get(begin..self.after).ok_or(BAD)?;
        Ok(Some(Piece { name, value, source }))
    }
}

/// An attribute's value with its references resolved and its white space normalised (XML §3.3.3).
pub(super) fn normalized<'a>(value: &'a str) -> Result<Cow<'a, str>, XmlError> {
    if !value.bytes().any(|byte| class(byte) & NORMALIZED != 0) {
        return Ok(Cow::Borrowed(value));
    }
    let attribute = Attribute {
        key: QName(""),
        value: Cow::Borrowed(value),
    };
    let normalized = attribute
        .normalized_value(XmlVersion::Implicit1_0)
        .map_err(|error| match error {
            Error::Escape(EscapeError::UnrecognizedEntity(_, name)) => unknown_entity(&name),
            _ => BAD_REFERENCE,
        })?;
    // What is new in it are characters written as references.
    if are_chars(&normalized) {
        Ok(normalized)
    } else {
        Err(BAD_REFERENCE)
    }
}

const BAD_REFERENCE: XmlError = XmlError::NotWellFormed("reference that XML does not allow");

/// RFC 6120 §11.1: entities other than the five predefined ones are prohibited, declared or not.
fn unknown_entity(name: &str) -> XmlError {
    match name.split(':').all(is_ncname) {
        true => XmlError::RestrictedXml("entity reference"),
        false => BAD_REFERENCE,
    }
}

/// The character that a reference in content stands for (XML §4.1 and §4.6).
fn character(reference: &BytesRef<'_>) -> Result<char, XmlError> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) if is_char(character) => Ok(character),
        Ok(None) => resolve_predefined_entity(reference)
            .and_then(|text| text.chars().next())
            .ok_or_else(|| unknown_entity(reference)),
        _ => Err(BAD_REFERENCE),
    }
}

pub(super) struct Tokenizer<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
}

impl<'a> Tokenizer<'a> {
    /// `text` must consist of XML characters.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            reader: Reader::from_str(text),
        }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.reader.buffer_position() as usize
    }

    /// Where in the input `part`, a slice of it, begins.
    pub(super) fn offset_of(&self, part: &str) -> Option<usize> {
        offset(self.text, part)
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Token<'a>, XmlError> {
        let start = self.position();
        match self.reader.read_event() {
            Ok(Event::Start(tag)) => self.tag(tag.len(), ">".len(), tag.name().0.len()),
            Ok(Event::Empty(tag)) => self.tag(tag.len(), "/>".len(), tag.name().0.len()),
            Ok(Event::End(_)) => Ok(Token::End),
            Ok(Event::Text(text)) => match text.into_inner() {
                Cow::Borrowed(text) => Ok(Token::Text(text)),
                Cow::Owned(_) => Err(self.refusal(start)),
            },
            Ok(Event::CData(text)) => match text.into_inner() {
                Cow::Borrowed(text) => Ok(Token::CData(text)),
                Cow::Owned(_) => Err(self.refusal(start)),
            },
            Ok(Event::GeneralRef(reference)) => character(&reference).map(Token::Char),
            Ok(Event::Eof) => Ok(Token::Eof),
            Ok(Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_)) | Err(_) => {
                Err(self.refusal(start))
            }
        }
    }

    /// The start tag that was read last: so many bytes inside, so many that close it.
    fn tag(&self, length: usize, close: usize, name_length: usize) -> Result<Token<'a>, XmlError> {
        let end = self.position() - close;
        let inside = self.text.get(end - length..end);
        Ok(Token::Start(Tag {
            inside: inside.ok_or(XmlError::NotWellFormed("tag does not end"))?,
            name_length,
            empty: close == 2,
        }))
    }

    /// Why what begins at `start` is no token for us.
    #[cold]
    fn refusal(&self, start: usize) -> XmlError {
        match self.text.as_bytes().get(start..).unwrap_or_default() {
            [b'<', b'?', ..] => XmlError::RestrictedXml("processing instruction"),
            [b'<', b'!', b'-', ..] => XmlError::RestrictedXml("comment"),
            [b'<', b'!', byte, ..] if byte.is_ascii_alphabetic() => {
                XmlError::RestrictedXml("document type declaration")
            }
            [b'<', b'!', rest @ ..] if rest.starts_with(b"[CDATA[") => {
                XmlError::NotWellFormed("CDATA section does not end")
            }
            [b'<', b'!', ..] => XmlError::NotWellFormed("'<!' that begins nothing"),
            [b'<', b'/', ..] => XmlError::NotWellFormed("end tag does not match its start tag"),
            [b'&', ..] => XmlError::NotWellFormed("reference without end"),
            _ => XmlError::NotWellFormed("tag does not end"),
        }
    }
}

/// Where in `whole` its slice `part` begins.
fn offset(whole: &str, part: &str) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset + part.len() <= whole.len()).then_some(offset)
}
