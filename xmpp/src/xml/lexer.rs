//! The only file that knows quick-xml: a frame's text as a sequence of tags and character data.
//!
//! quick-xml finds the tags and matches their names. What it lets through and XML does not (names, characters, what stands
//! between attributes, references) is checked by the reader above.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::XmlError;

/// A piece of a document as it is written there.
pub(super) enum Token<'a> {
    /// A start tag, or one that is its own end; `attributes` is what stands between the name and the end of the tag.
    Start {
        name: &'a str,
        attributes: &'a str,
        empty: bool,
    },
    /// The end tag that matches the last open start tag.
    End,
    /// Character data without references.
    Text(&'a str),
    /// The inside of a CDATA section.
    CData(&'a str),
    /// What stands between `&` and `;`.
    Reference(&'a str),
    /// The end of the input.
    Eof,
}

pub(super) struct Lexer<'a> {
    input: &'a str,
    reader: Reader<&'a [u8]>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self {
            input,
            reader: Reader::from_str(input),
        }
    }

    /// How many bytes of the input were read.
    pub(super) fn position(&self) -> usize {
        self.reader.buffer_position() as usize
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, XmlError> {
        let start = self.position();
        let event = self
            .reader
            .read_event()
            .map_err(|_| XmlError::NotWellFormed("tags do not match or do not end"))?;
        let token = &self.input[start..self.reader.buffer_position() as usize];
        let inside =
            |before: usize, after: usize| token.get(before..token.len().saturating_sub(after)).unwrap_or_default();
        Ok(match event {
            Event::Start(tag) => {
                let (name, attributes) = inside(1, 1).split_at(tag.name().0.len());
                Token::Start {
                    name,
                    attributes,
                    empty: false,
                }
            }
            Event::Empty(tag) => {
                let (name, attributes) = inside(1, 2).split_at(tag.name().0.len());
                Token::Start {
                    name,
                    attributes,
                    empty: true,
                }
            }
            Event::End(_) => Token::End,
            Event::Text(_) => Token::Text(token),
            Event::CData(_) => Token::CData(inside("<![CDATA[".len(), "]]>".len())),
            Event::GeneralRef(_) => Token::Reference(inside(1, 1)),
            Event::Comment(_) => return Err(XmlError::RestrictedXml("comment")),
            Event::PI(_) | Event::Decl(_) => return Err(XmlError::RestrictedXml("processing instruction")),
            Event::DocType(_) => return Err(XmlError::RestrictedXml("document type declaration")),
            Event::Eof => Token::Eof,
        })
    }
}
