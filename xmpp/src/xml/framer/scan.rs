//! The state machine that finds the end of a frame, byte by byte or in leaps.

use std::ops::Range;

use memchr::memmem;
use smallvec::SmallVec;

use super::super::chars::{TAG, class, is_space};
use super::super::{Excess, Limits, XmlError};

/// What has ended at [`Scan::position`].
pub(super) enum Found {
    /// The start tag of a stream header.
    Header { name: Range<usize> },
    /// A whole element.
    Element,
    /// An end tag that no start tag of this frame belongs to.
    EndTag { name: Range<usize> },
}

/// How far a frame was read. It is handed the same bytes again, with more after them.
#[derive(Debug)]
pub(super) struct Scan {
    state: State,
    header: bool,
    /// The next byte to look at.
    at: u32,
    /// The `<` of the tag or CDATA section that `at` is in.
    tag: u32,
    /// Where the names of open elements begin: what their end tags must repeat.
    open: SmallVec<[u32; 16]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between the XML declaration and the header.
    Space,
    /// In the content of an element.
    Text,
    /// After `<`; a `?` may follow.
    FirstAngle,
    /// After `<`.
    Angle,
    /// In a start tag, outside of quotes.
    Tag,
    /// In a start tag after `/`: only `>` may follow.
    Slash,
    /// In an attribute value with these quotes.
    Quoted(u8),
    /// After `</`.
    EndTag,
    /// After `<!`.
    Bang,
    /// After `<![CDATA[`.
    CData,
    /// After `<?`.
    Question,
    /// In an XML declaration.
    Declaration,
}

impl Scan {
    /// For a stream header, which may begin with an XML declaration when it is the first thing in the stream.
    pub(super) fn header(first: bool) -> Self {
        Self {
            header: true,
            state: if first { State::FirstAngle } else { State::Angle },
            ..Self::element()
        }
    }

    /// For a top-level element or the stream's end tag. The first byte, `<`, is known.
    pub(super) fn element() -> Self {
        Self {
            state: State::Angle,
            header: false,
            at: 1,
            tag: 0,
            open: SmallVec::new(),
        }
    }

    /// How many bytes were looked at.
    pub(super) fn position(&self) -> usize {
        self.at as usize
    }

    /// Goes on in `bytes`, which begin with all those given before.
    pub(super) fn run(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Found>, XmlError> {
        let depth_max = limits.depth();
        let mut at = self.position();
        let found = loop {
            let rest = &bytes[at..];
            match self.state {
                State::Text => match memchr::memchr(b'<', rest) {
                    Some(angle) => {
                        self.tag = (at + angle) as u32;
                        at += angle + 1;
                        self.state = State::Angle;
                    }
                    None => break None,
                },
                State::Angle | State::FirstAngle => {
                    let Some(byte) = rest.first() else { break None };
                    match byte {
                        b'/' if self.header => return Err(XmlError::NotWellFormed("end tag before the stream header")),
                        b'/' => {
                            self.state = State::EndTag;
                            at += 1;
                        }
                        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                            if self.open.len() >= depth_max {
                                return Err(XmlError::PolicyViolation(Excess::Depth));
                            }
                            self.state = State::Tag;
                        }
                        b'?' if matches!(self.state, State::FirstAngle) => {
                            self.state = State::Question;
                            at += 1;
                        }
                        b'?' => return Err(XmlError::RestrictedXml("processing instruction")),
                        b'!' => {
                            self.state = State::Bang;
                            at += 1;
                        }
                        0 if self.header => return Err(XmlError::UnsupportedEncoding("not UTF-8")),
                        _ => return Err(XmlError::NotWellFormed("'<' that begins no tag")),
                    }
                }
                State::Tag => {
                    let Some(stop) = rest.iter().position(|byte| class(*byte) & TAG != 0) else {
                        break None;
                    };
                    at += stop + 1;
                    match rest[stop] {
                        b'>' if self.header => {
                            self.at = at as u32;
                            return Ok(Some(Found::Header {
                                name: self.start_name(bytes),
                            }));
                        }
                        b'>' => {
                            self.open.push(self.tag + 1);
                            self.state = State::Text;
                        }
                        b'/' => self.state = State::Slash,
                        b'<' => return Err(XmlError::NotWellFormed("'<' in a tag")),
                        quote => self.state = State::Quoted(quote),
                    }
                }
                State::Slash => {
                    match rest.first() {
                        Some(b'>') => at += 1,
                        Some(_) => return Err(XmlError::NotWellFormed("'/' in a tag")),
                        None => break None,
                    }
                    if self.header || self.open.is_empty() {
                        self.at = at as u32;
                        return Ok(Some(match self.header {
                            true => Found::Header {
                                name: self.start_name(bytes),
                            },
                            false => Found::Element,
                        }));
                    }
                    self.state = State::Text;
                }
                State::Quoted(quote) => match memchr::memchr2(quote, b'<', rest) {
                    Some(stop) if rest[stop] == quote => {
                        at += stop + 1;
                        self.state = State::Tag;
                    }
                    Some(_) => return Err(XmlError::NotWellFormed("'<' in an attribute value")),
                    None => break None,
                },
                State::EndTag => {
                    let Some(end) = memchr::memchr(b'>', rest) else {
                        break None;
                    };
                    let name = self.tag as usize + 2..at + end;
                    at += end + 1;
                    self.at = at as u32;
                    let name = trim_end(bytes, name);
                    match self.open.pop() {
                        Some(open) => {
                            if !begins_with_name(&bytes[open as usize..], &bytes[name]) {
                                return Err(XmlError::NotWellFormed("end tag does not match its start tag"));
                            }
                            if self.open.is_empty() {
                                return Ok(Some(Found::Element));
                            }
                            self.state = State::Text;
                        }
                        None => return Ok(Some(Found::EndTag { name })),
                    }
                }
                State::Bang => match self.cdata_begins(&bytes[self.tag as usize + 2..])? {
                    true => {
                        at = self.tag as usize + "<![CDATA[".len();
                        self.state = State::CData;
                    }
                    false => break None,
                },
                State::CData => match memmem::find(rest, b"]]>") {
                    Some(end) => {
                        at += end + 3;
                        self.state = State::Text;
                    }
                    None => {
                        // The last two bytes may be the beginning of the end.
                        self.at = at.max(bytes.len().saturating_sub(2)) as u32;
                        return Ok(None);
                    }
                },
                State::Question => match declaration_begins(&bytes[2..])? {
                    true => self.state = State::Declaration,
                    false => break None,
                },
                State::Declaration => match memmem::find(rest, b"?>") {
                    Some(end) => {
                        at += end + 2;
                        self.state = State::Space;
                    }
                    None => {
                        self.at = at.max(bytes.len().saturating_sub(1)) as u32;
                        return Ok(None);
                    }
                },
                State::Space => match rest.iter().position(|byte| !is_space(*byte)) {
                    Some(stop) if rest[stop] == b'<' => {
                        self.tag = (at + stop) as u32;
                        at += stop + 1;
                        self.state = State::Angle;
                    }
                    Some(_) => return Err(XmlError::NotWellFormed("text before the stream header")),
                    None => break None,
                },
            }
        };
        // All was looked at, and what these states look for may only come in bytes not seen yet.
        self.at = match self.state {
            State::Angle | State::FirstAngle | State::Slash | State::Bang | State::Question => at as u32,
            _ => bytes.len() as u32,
        };
        Ok(found)
    }

    /// The name in the start tag that has just ended.
    fn start_name(&self, bytes: &[u8]) -> Range<usize> {
        let start = self.tag as usize + 1;
        let length = bytes[start..]
            .iter()
            .position(|byte| ends_name(*byte))
            .unwrap_or_default();
        start..start + length
    }

    /// Whether `after`, what follows `<!`, begins a CDATA section; `false` when more bytes must tell.
    fn cdata_begins(&self, after: &[u8]) -> Result<bool, XmlError> {
        const OPENING: &[u8] = b"[CDATA[";
        let known = after.len().min(OPENING.len());
        match after.first() {
            Some(b'-') => Err(XmlError::RestrictedXml("comment")),
            Some(byte) if byte.is_ascii_alphabetic() => Err(XmlError::RestrictedXml("document type declaration")),
            _ if after[..known] != OPENING[..known] => Err(XmlError::NotWellFormed("'<!' that begins nothing")),
            // Character data where only elements may be: as bad as text without the brackets.
            Some(_) if self.open.is_empty() && self.header => {
                Err(XmlError::NotWellFormed("text before the stream header"))
            }
            Some(_) if self.open.is_empty() => Err(XmlError::BadFormat("text between stanzas")),
            _ => Ok(known == OPENING.len()),
        }
    }
}

/// Whether `after`, what follows `<?`, begins an XML declaration; `false` when more bytes must tell.
fn declaration_begins(after: &[u8]) -> Result<bool, XmlError> {
    let known = after.len().min(3);
    if after[..known] != b"xml"[..known] || after.get(3).is_some_and(|byte| !is_space(*byte)) {
        return Err(XmlError::RestrictedXml("processing instruction"));
    }
    Ok(after.len() > 3)
}

/// The end tag's name without the white space that may follow it (XML §3.1, `ETag`).
fn trim_end(bytes: &[u8], name: Range<usize>) -> Range<usize> {
    let spaces = bytes[name.clone()]
        .iter()
        .rev()
        .take_while(|byte| is_space(**byte))
        .count();
    name.start..name.end - spaces
}

/// Whether the start tag that goes on with `start` has exactly this name.
fn begins_with_name(start: &[u8], name: &[u8]) -> bool {
    start.starts_with(name) && start.get(name.len()).is_some_and(|byte| ends_name(*byte)) && !name.is_empty()
}

fn ends_name(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b'/' | b'>')
}
