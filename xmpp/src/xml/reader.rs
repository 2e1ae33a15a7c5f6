//! A frame's text, read once and strictly: everything XML 1.0, Namespaces in XML 1.0 and RFC 6120 §11 demand.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::chars::is_all_space;
use super::document::Document;
use super::name::Name;
use super::tokenizer::{Tag, Token, Tokenizer, normalized};
use super::{Excess, Limits, StreamPrefixes, XML, XMLNS, XmlError};

/// What comes next in a document. Of a start tag, the reader itself answers what it was.
pub(crate) enum Event<'a> {
    /// An element begins: see [`Reader::name`], [`Reader::ns`], [`Reader::attributes`].
    Start,
    /// The element begun last ends.
    End,
    /// Character data as written: line ends are not normalised yet, see [`push_text`].
    Text(&'a str),
    /// A character that was written as a reference.
    Char(char),
    /// The document's only root element has ended and so has the input.
    Eof,
}

/// An attribute that is no namespace declaration.
#[derive(Clone, Debug)]
pub(crate) struct RawAttribute<'a> {
    pub(crate) name: Name<'a>,
    /// References resolved, white space normalised.
    pub(crate) value: Cow<'a, str>,
    /// Name, equals sign and quoted value, exactly as written.
    pub(crate) source: &'a str,
    /// Which binding the prefix has.
    binding: Bound,
}

/// A namespace declaration of the current start tag.
pub(crate) struct Declaration<'a> {
    /// Empty for the default namespace.
    pub(crate) prefix: &'a str,
    pub(crate) ns: Cow<'a, str>,
    pub(crate) source: &'a str,
}

/// Where a prefix is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// No prefix and no default namespace, or an attribute without prefix.
    None,
    /// The prefix `xml`.
    Xml,
    /// `Reader::bindings[_]`.
    Here(u32),
    /// The stream header's default namespace.
    StreamDefault,
    /// `Reader::borrowed[_]`: a prefix of the stream header.
    Stream(u32),
}

/// An element that has begun and not ended.
struct Open {
    bindings_before: u32,
    default_before: Bound,
    children: u32,
}

pub(crate) struct Reader<'a> {
    tokenizer: Tokenizer<'a>,
    /// See [`Document::is_plain`].
    plain: bool,
    limits: &'a Limits,
    scope: Option<&'a StreamPrefixes>,
    open: SmallVec<[Open; 8]>,
    bindings: SmallVec<[Declaration<'a>; 6]>,
    /// Prefixes that only the stream header declares and this document uses.
    borrowed: SmallVec<[&'a str; 2]>,
    namespaces: u32,
    root_seen: bool,
    /// The current start tag is its own end.
    empty: bool,
    prefix: &'a str,
    name: &'a str,
    ns: Bound,
    attributes: SmallVec<[RawAttribute<'a>; 6]>,
    declared_from: u32,
    /// The default namespace inside the current element.
    default: Bound,
}

impl<'a> Reader<'a> {
    /// Reads `document`. With a `scope`, names may use what the stream header declared.
    pub(crate) fn new(document: Document<'a>, limits: &'a Limits, scope: Option<&'a StreamPrefixes>) -> Self {
        Self {
            tokenizer: Tokenizer::new(document.text()),
            plain: document.is_plain(),
            limits,
            scope,
            open: SmallVec::new(),
            bindings: SmallVec::new(),
            borrowed: SmallVec::new(),
            namespaces: 0,
            root_seen: false,
            empty: false,
            prefix: "",
            name: "",
            ns: Bound::None,
            attributes: SmallVec::new(),
            declared_from: 0,
            default: match scope {
                Some(scope) if !scope.default_ns().is_empty() => Bound::StreamDefault,
                _ => Bound::None,
            },
        }
    }

    /// The current element's prefix; empty for none.
    pub(crate) fn prefix(&self) -> &'a str {
        self.prefix
    }

    /// The current element's name without prefix.
    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    /// The current element's namespace; empty for none.
    pub(crate) fn ns(&self) -> &str {
        self.resolve(self.ns)
    }

    /// The current start tag's attributes without its namespace declarations, in their order.
    pub(crate) fn attributes(&self) -> &[RawAttribute<'a>] {
        &self.attributes
    }

    /// The namespace of one of the current attributes; empty for none.
    pub(crate) fn attribute_ns(&self, attribute: &RawAttribute<'_>) -> &str {
        self.resolve(attribute.binding)
    }

    /// The current start tag's namespace declarations, in their order.
    pub(crate) fn declarations(&self) -> &[Declaration<'a>] {
        &self.bindings[self.declared_from as usize..]
    }

    /// Prefixes used so far that only the stream header declares, with their namespaces.
    pub(crate) fn borrowed(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.borrowed
            .iter()
            .filter_map(|prefix| Some((*prefix, self.scope?.lookup(prefix)?)))
    }

    /// Elements that have begun and not ended, the current one included.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Bytes read so far: after a start tag, where the element's content begins.
    pub(crate) fn position(&self) -> usize {
        self.tokenizer.position()
    }

    /// Whether the current start tag is its own end (`<a/>`).
    pub(crate) fn is_empty_tag(&self) -> bool {
        self.empty
    }

    /// Where in the document `part`, a slice of it, begins.
    pub(crate) fn offset_of(&self, part: &str) -> Option<usize> {
        self.tokenizer.offset_of(part)
    }

    fn resolve(&self, bound: Bound) -> &str {
        match bound {
            Bound::None => "",
            Bound::Xml => XML,
            Bound::Here(at) => self.bindings.get(at as usize).map_or("", |declaration| &declaration.ns),
            Bound::StreamDefault => self.scope.map_or("", StreamPrefixes::default_ns),
            Bound::Stream(at) => self
                .scope
                .and_then(|scope| scope.lookup(self.borrowed[at as usize]))
                .unwrap_or_default(),
        }
    }

    pub(crate) fn next(&mut self) -> Result<Event<'a>, XmlError> {
        if self.empty {
            self.empty = false;
            self.end();
            return Ok(Event::End);
        }
        loop {
            return match self.tokenizer.next()? {
                Token::Start(tag) => self.start(&tag).map(|()| Event::Start),
                Token::End => {
                    self.end();
                    Ok(Event::End)
                }
                Token::Text(text) if !self.open.is_empty() => {
                    if memchr::memchr(b']', text.as_bytes()).is_some() && text.contains("]]>") {
                        return Err(XmlError::NotWellFormed("']]>' in character data"));
                    }
                    Ok(Event::Text(text))
                }
                Token::CData(text) if !self.open.is_empty() => Ok(Event::Text(text)),
                Token::Char(c) if !self.open.is_empty() => Ok(Event::Char(c)),
                Token::Text(text) if is_all_space(text) => continue,
                Token::Text(_) | Token::CData(_) | Token::Char(_) => {
                    Err(XmlError::NotWellFormed("text outside of the element"))
                }
                Token::Eof if self.open.is_empty() && self.root_seen => Ok(Event::Eof),
                Token::Eof => Err(XmlError::NotWellFormed("element does not end")),
            };
        }
    }

    fn start(&mut self, tag: &Tag<'a>) -> Result<(), XmlError> {
        match self.open.last_mut() {
            Some(parent) => {
                parent.children += 1;
                if parent.children > self.limits.children_max {
                    return Err(XmlError::PolicyViolation(Excess::Children));
                }
            }
            None if self.root_seen => return Err(XmlError::NotWellFormed("more than one root element")),
            None => self.root_seen = true,
        }
        if self.open.len() >= self.limits.depth() {
            return Err(XmlError::PolicyViolation(Excess::Depth));
        }
        let name = self.checked_name(tag.name())?;
        self.declared_from = self.bindings.len() as u32;
        self.open.push(Open {
            bindings_before: self.declared_from,
            default_before: self.default,
            children: 0,
        });

        self.empty = tag.empty;
        let to_bind = self.read_attributes(tag)?;
        (self.prefix, self.name) = (name.prefix(), name.local());
        if self.prefix.is_empty() {
            self.ns = self.default;
        } else {
            self.ns = self.bind(self.prefix)?;
            if self.scope.is_some_and(|scope| scope.content() == self.ns()) {
                // RFC 6120 §4.8.5: no prefixes for the content namespace.
                return Err(XmlError::BadNamespacePrefix("prefix for the content namespace"));
            }
        }
        if to_bind { self.bind_attributes() } else { Ok(()) }
    }

    fn end(&mut self) {
        if let Some(open) = self.open.pop() {
            self.bindings.truncate(open.bindings_before as usize);
            self.default = open.default_before;
        }
    }

    #[inline(always)]
    fn checked_name(&self, text: &'a str) -> Result<Name<'a>, XmlError> {
        if text.len() > usize::from(self.limits.name_bytes_max) {
            return Err(XmlError::PolicyViolation(Excess::NameBytes));
        }
        Name::parse(text)
    }

    /// Says whether there are attributes whose prefixes are still to be resolved.
    ///
    /// Not inlined: what it keeps on the stack would make every event dearer (some 5 % of a stanza).
    #[inline(never)]
    fn read_attributes(&mut self, tag: &Tag<'a>) -> Result<bool, XmlError> {
        self.attributes.clear();
        if tag.is_bare() {
            return Ok(false);
        }
        tag.check()?;
        let plain = self.plain || tag.is_plain();
        let mut attributes = tag.attributes();
        let (mut count, mut to_bind) = (0, false);
        while let Some(attribute) = attributes.next()? {
            count += 1;
            if count > self.limits.attributes_max {
                return Err(XmlError::PolicyViolation(Excess::Attributes));
            }
            let name = self.checked_name(attribute.name)?;
            let source = attribute.source;
            let value = match plain {
                true => Cow::Borrowed(attribute.value),
                false => normalized(attribute.value)?,
            };
            let mut binding = Bound::None;
            match name.prefix() {
                "" if name.text() == "xmlns" => {
                    self.declare("", value, source)?;
                    continue;
                }
                "" => {}
                "xmlns" => {
                    self.declare(name.local(), value, source)?;
                    continue;
                }
                "xml" => binding = Bound::Xml,
                _ => to_bind = true,
            }
            if self.attributes.iter().any(|earlier| earlier.name.text() == name.text()) {
                return Err(REPEATED);
            }
            self.attributes.push(RawAttribute {
                name,
                value,
                source,
                binding,
            });
        }
        Ok(to_bind)
    }

    fn declare(&mut self, prefix: &'a str, ns: Cow<'a, str>, source: &'a str) -> Result<(), XmlError> {
        self.namespaces += 1;
        if self.namespaces > u32::from(self.limits.namespaces_max) {
            return Err(XmlError::PolicyViolation(Excess::Namespaces));
        }
        if ns.len() > usize::from(self.limits.namespace_bytes_max) {
            return Err(XmlError::PolicyViolation(Excess::NamespaceBytes));
        }
        // XML-NAMES §3: what is reserved, and no undeclaring of prefixes in version 1.0 (§2.2).
        let reserved = prefix == "xmlns" || ns == XMLNS || (prefix == "xml") != (ns == XML);
        if reserved || (ns.is_empty() && !prefix.is_empty()) {
            return Err(XmlError::NotWellFormed("namespace declaration that XML does not allow"));
        }
        if self.declarations().iter().any(|earlier| earlier.prefix == prefix) {
            return Err(XmlError::NotWellFormed("namespace declared twice in one tag"));
        }
        let at = Bound::Here(self.bindings.len() as u32);
        if prefix.is_empty() {
            self.default = if ns.is_empty() { Bound::None } else { at };
        }
        self.bindings.push(Declaration { prefix, ns, source });
        Ok(())
    }

    fn bind(&mut self, prefix: &'a str) -> Result<Bound, XmlError> {
        if prefix == "xml" {
            return Ok(Bound::Xml);
        }
        match self.bindings.iter().rposition(|binding| binding.prefix == prefix) {
            Some(at) => Ok(Bound::Here(at as u32)),
            None => self.borrow_prefix(prefix),
        }
    }

    fn borrow_prefix(&mut self, prefix: &'a str) -> Result<Bound, XmlError> {
        if self.scope.and_then(|scope| scope.lookup(prefix)).is_none() {
            return Err(XmlError::NotWellFormed("prefix that is not declared"));
        }
        let at = self
            .borrowed
            .iter()
            .position(|known| *known == prefix)
            .unwrap_or_else(|| {
                self.borrowed.push(prefix);
                self.borrowed.len() - 1
            });
        Ok(Bound::Stream(at as u32))
    }

    /// Resolves the attributes' prefixes and refuses names that are repeated with another prefix (XML-NAMES §6.3).
    fn bind_attributes(&mut self) -> Result<(), XmlError> {
        for at in 0..self.attributes.len() {
            let prefix = self.attributes[at].name.prefix();
            if prefix.is_empty() || self.attributes[at].binding != Bound::None {
                continue;
            }
            self.attributes[at].binding = self.bind(prefix)?;
            let (earlier, this) = (&self.attributes[..at], &self.attributes[at]);
            let same = |other: &RawAttribute<'_>| {
                !other.name.prefix().is_empty()
                    && other.name.local() == this.name.local()
                    && self.attribute_ns(other) == self.attribute_ns(this)
            };
            if earlier.iter().any(same) {
                return Err(REPEATED);
            }
        }
        Ok(())
    }
}

const REPEATED: XmlError = XmlError::NotWellFormed("attribute repeated");

/// Appends character data with its line ends normalised (XML §2.11): CR LF and a lone CR become LF.
pub(crate) fn push_text(raw: &str, text: &mut String) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\r', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        text.push('\n');
        rest = &rest[at + 1..];
        rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
    text.push_str(rest);
}
