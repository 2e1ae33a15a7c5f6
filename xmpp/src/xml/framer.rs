//! Where a stream's bytes are cut: the header, each top-level element, the closing tag.
//!
//! The framer looks at no more than it must to find the end of a frame while bounding what it keeps: tags and their nesting,
//! quotes, CDATA. It refuses at once what no later byte can mend: comments, processing instructions, DTDs (RFC 6120 §11.1),
//! mismatched tags, text between elements. All else is the reader's to check, on the whole frame.

mod scan;

use bytes::Bytes;

use self::scan::{Found, Scan};
use super::chars::is_space;
use super::{Excess, Limits, XmlError};

/// A piece of a stream that means something on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The stream header: an XML declaration, if there is one, and the start tag. Read it with [`open::parse`](super::open).
    Open(Bytes),
    /// One whole top-level element.
    Element(Bytes),
    /// The stream's end tag: the peer sends nothing more.
    Close,
}

/// Where in its life a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Not one byte of the stream was read: only here may an XML declaration begin.
    #[default]
    Start,
    /// White space was read, the header is still to come.
    BeforeHeader,
    /// Inside the stream, whose root was written this way.
    Open(Root),
    /// The end tag was read.
    Closed,
}

/// How the stream's root element was named, as its end tag must be too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// `stream:stream`
    Prefixed,
    /// `stream`
    Bare,
    /// Something that [`open::parse`](super::open::parse) refuses.
    Other,
}

impl Root {
    fn of(name: &[u8]) -> Self {
        match name {
            b"stream:stream" => Self::Prefixed,
            b"stream" => Self::Bare,
            _ => Self::Other,
        }
    }
}

/// Cuts the bytes of one stream into [`Frame`]s, however they arrive.
///
/// Between frames it is two words; an incomplete frame is kept in a buffer that never grows beyond
/// [`Limits::stanza_bytes_max`].
#[derive(Debug, Default)]
pub struct Framer {
    phase: Phase,
    partial: Option<Box<Partial>>,
}

/// A frame whose end has not arrived.
#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    scan: Scan,
}

impl Framer {
    /// A framer that expects a stream header.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Start,
            partial: None,
        }
    }

    /// A framer that expects top-level elements without a stream around them, as WebSocket messages are (RFC 7395 §3.3.3).
    pub const fn headless() -> Self {
        Self {
            phase: Phase::Open(Root::Other),
            partial: None,
        }
    }

    /// Takes bytes from the front of `input` up to the end of one frame; what follows stays there. `None`: all of `input`
    /// was taken and the frame goes on.
    ///
    /// # Errors
    /// The stream is broken: send the error, call no more. Bytes kept so far are dropped.
    pub fn next(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Frame>, XmlError> {
        match self.partial.take() {
            Some(partial) => self.resume(partial, input, limits),
            None => self.begin(input, limits),
        }
    }

    /// Expects a new stream header, as after STARTTLS and SASL (RFC 6120 §4.3.3). Bytes kept so far are forgotten; the caller
    /// drops what it has not yet handed over (RFC 6120 §5.4.3.3).
    pub fn restart(&mut self) {
        *self = Self::new();
    }

    /// Whether no byte of an unfinished frame is held.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes of memory held for an unfinished frame.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes.capacity())
    }

    /// Starts with a frame's first byte and hopes for all of it: then the frame is copied once and nothing is kept.
    fn begin(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Frame>, XmlError> {
        self.skip_space(input);
        let Some(first) = input.first() else { return Ok(None) };
        if *first != b'<' {
            return Err(self.not_a_tag(input));
        }
        let mut scan = match self.phase {
            Phase::Start => Scan::header(true),
            Phase::BeforeHeader => Scan::header(false),
            Phase::Open(_) => Scan::element(),
            Phase::Closed => return Err(XmlError::NotWellFormed("markup after the end of the stream")),
        };
        let window = &input[..input.len().min(limits.bytes())];
        match scan.run(window, limits)? {
            Some(found) => {
                let frame = &input[..scan.position()];
                *input = &input[scan.position()..];
                self.finish(found, frame, || Bytes::copy_from_slice(frame)).map(Some)
            }
            None if window.len() == limits.bytes() => Err(XmlError::PolicyViolation(Excess::StanzaBytes)),
            None => {
                self.partial = Some(Box::new(Partial {
                    bytes: input.to_vec(),
                    scan,
                }));
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Goes on with a frame of which some bytes are kept.
    fn resume(
        &mut self,
        mut partial: Box<Partial>,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Frame>, XmlError> {
        let bytes = &mut partial.bytes;
        let kept = bytes.len();
        let taken = input.len().min(limits.bytes().saturating_sub(kept));
        grow(bytes, taken, limits);
        bytes.extend_from_slice(&input[..taken]);
        let Some(found) = partial.scan.run(bytes, limits)? else {
            if bytes.len() >= limits.bytes() {
                return Err(XmlError::PolicyViolation(Excess::StanzaBytes));
            }
            *input = &input[taken..];
            self.partial = Some(partial);
            return Ok(None);
        };
        let end = partial.scan.position();
        *input = &input[end.saturating_sub(kept)..];
        let mut bytes = std::mem::take(bytes);
        bytes.truncate(end);
        // A buffer that is mostly air is given back; otherwise the frame lives on in it.
        let frame = if bytes.capacity() > 2 * end {
            Bytes::copy_from_slice(&bytes)
        } else {
            Bytes::from(bytes)
        };
        self.finish(found, &frame, || frame.clone()).map(Some)
    }

    fn finish(&mut self, found: Found, source: &[u8], bytes: impl FnOnce() -> Bytes) -> Result<Frame, XmlError> {
        match found {
            Found::Header { name } => {
                self.phase = Phase::Open(Root::of(&source[name]));
                Ok(Frame::Open(bytes()))
            }
            Found::Element => Ok(Frame::Element(bytes())),
            Found::EndTag { name } => {
                let root = Root::of(&source[name]);
                if self.phase != Phase::Open(root) || root == Root::Other {
                    return Err(XmlError::NotWellFormed("end tag without start tag"));
                }
                self.phase = Phase::Closed;
                Ok(Frame::Close)
            }
        }
    }

    /// White space keeps a connection alive (RFC 6120 §4.6.1) and is nothing else.
    fn skip_space(&mut self, input: &mut &[u8]) {
        let spaces = input.iter().take_while(|byte| is_space(**byte)).count();
        *input = &input[spaces..];
        if spaces > 0 && self.phase == Phase::Start {
            self.phase = Phase::BeforeHeader;
        }
    }

    fn not_a_tag(&self, input: &[u8]) -> XmlError {
        match self.phase {
            // RFC 6120 §11.6: a byte order mark is no mark here but a character, and no character may be here. One of UTF-16, or
            // a zero byte, says that what follows is not UTF-8.
            Phase::Start if matches!(input[0], 0x00 | 0xFE | 0xFF) => XmlError::UnsupportedEncoding("not UTF-8"),
            Phase::Start | Phase::BeforeHeader => XmlError::NotWellFormed("text before the stream header"),
            Phase::Open(_) => XmlError::BadFormat("text between stanzas"),
            Phase::Closed => XmlError::NotWellFormed("text after the end of the stream"),
        }
    }
}

/// Makes room for `more` bytes: doubles, but never beyond the limit.
fn grow(bytes: &mut Vec<u8>, more: usize, limits: &Limits) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let capacity = needed.max((2 * bytes.capacity()).min(limits.bytes()));
        bytes.reserve_exact(capacity - bytes.len());
    }
}
