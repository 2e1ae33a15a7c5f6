//! The stream header (RFC 6120 §4.2): one start tag, with an XML declaration before it or without.

use super::chars::is_space;
use super::document::Document;
use super::reader::{Event, Reader};
use super::{Limits, STREAM, XML, XmlError};

/// What a stream header says. Which content namespace, version and host are acceptable is the negotiation's to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTag {
    /// The host the initiating entity wants, or the initiating entity in a response (§4.7.2).
    pub to: Option<Box<str>>,
    /// Who opens the stream, as far as it says so (§4.7.1).
    pub from: Option<Box<str>>,
    /// The stream's id, in responses (§4.7.3).
    pub id: Option<Box<str>>,
    /// The version as written; absent means 0.9 (§4.7.5).
    pub version: Option<Box<str>>,
    /// The stream's default language (§4.7.4).
    pub lang: Option<Box<str>>,
    default_ns: Box<str>,
    prefixes: Box<[(Box<str>, Box<str>)]>,
}

impl OpenTag {
    /// The default namespace: the content namespace, or the stream namespace itself when stanzas declare their own
    /// (RFC 6120 §4.8.2). Empty for none.
    pub fn default_ns(&self) -> &str {
        &self.default_ns
    }

    /// The prefixes the header declares with their namespaces, that of the stream namespace included.
    pub fn prefixes(&self) -> &[(Box<str>, Box<str>)] {
        &self.prefixes
    }

    /// Major and minor version; `(0, 9)` when none is given.
    ///
    /// # Errors
    /// `unsupported-version` when it is not two numbers with a dot.
    pub fn version(&self) -> Result<(u16, u16), XmlError> {
        let Some(version) = &self.version else {
            return Ok((0, 9));
        };
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().ok(),
            false => None,
        };
        let parts = version
            .split_once('.')
            .and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        parts.ok_or(XmlError::UnsupportedVersion("version is not of the form 1.0"))
    }
}

/// Reads a [`Frame::Open`](super::Frame).
///
/// # Errors
/// What the stream ends with: `unsupported-encoding`, `invalid-namespace`, `bad-namespace-prefix`, `bad-format` and what
/// every frame can fail with.
pub fn parse(frame: &[u8], limits: &Limits) -> Result<OpenTag, XmlError> {
    let tag = match frame.strip_prefix(b"<?xml") {
        Some(rest) => {
            let end =
                memchr::memmem::find(rest, b"?>").ok_or(XmlError::NotWellFormed("XML declaration does not end"))?;
            declaration(&rest[..end])?;
            &rest[end + 2..]
        }
        None => frame,
    };
    let mut reader = Reader::new(Document::new(tag, limits)?, limits, None);
    if !matches!(reader.next()?, Event::Start) || !tag[reader.position()..].is_empty() {
        return Err(XmlError::NotWellFormed("stream header is not one start tag"));
    }
    header(&reader)
}

fn header(reader: &Reader<'_>) -> Result<OpenTag, XmlError> {
    if reader.ns() != STREAM {
        return Err(XmlError::InvalidNamespace(
            "stream header is not in the stream namespace",
        ));
    }
    if reader.name() != "stream" || reader.is_empty_tag() {
        return Err(XmlError::BadFormat(
            "stream header is not the start of a stream element",
        ));
    }
    if !matches!(reader.prefix(), "stream" | "") {
        // RFC 6120 §4.8.5: an implementation may accept only this prefix.
        return Err(XmlError::BadNamespacePrefix(
            "stream namespace has another prefix than stream",
        ));
    }
    let attribute = |name: &str, ns: &str| {
        let mut attributes = reader.attributes().iter();
        attributes
            .find(|a| a.name.local() == name && reader.attribute_ns(a) == ns)
            .map(|a| a.value.as_ref().into())
    };
    let declarations = || reader.declarations().iter();
    Ok(OpenTag {
        to: attribute("to", ""),
        from: attribute("from", ""),
        id: attribute("id", ""),
        version: attribute("version", ""),
        lang: attribute("lang", XML),
        default_ns: declarations()
            .find(|d| d.prefix.is_empty())
            .map_or("", |d| &*d.ns)
            .into(),
        prefixes: declarations()
            .filter(|d| !d.prefix.is_empty())
            .map(|d| (d.prefix.into(), (&*d.ns).into()))
            .collect(),
    })
}

/// Checks what stands between `<?xml` and `?>` (XML §2.8, `XMLDecl`).
fn declaration(inside: &[u8]) -> Result<(), XmlError> {
    const BAD: XmlError = XmlError::NotWellFormed("XML declaration that XML does not allow");
    let inside = std::str::from_utf8(inside).map_err(|_| XmlError::UnsupportedEncoding("not UTF-8"))?;
    let mut rest = inside;
    let version = pseudo_attribute(&mut rest, "version").ok_or(BAD)?;
    let digits = version.strip_prefix("1.").ok_or(BAD)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    if let Some(encoding) = pseudo_attribute(&mut rest, "encoding")
        && !encoding.eq_ignore_ascii_case("utf-8")
    {
        return Err(XmlError::UnsupportedEncoding("encoding is not UTF-8"));
    }
    // RFC 6120 §11.5: must not be there, may be ignored.
    if let Some(standalone) = pseudo_attribute(&mut rest, "standalone")
        && !matches!(standalone, "yes" | "no")
    {
        return Err(BAD);
    }
    if rest.bytes().all(is_space) { Ok(()) } else { Err(BAD) }
}

/// Takes `name = 'value'` with the space it needs before it off the front of `rest`, if that is what comes next.
fn pseudo_attribute<'a>(rest: &mut &'a str, name: &str) -> Option<&'a str> {
    let trim = |text: &'a str| text.trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
    let begin = trim(rest);
    if begin.len() == rest.len() {
        return None;
    }
    let value = trim(trim(begin.strip_prefix(name)?).strip_prefix('=')?);
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (value, after) = value[1..].split_once(quote)?;
    *rest = after;
    Some(value)
}
