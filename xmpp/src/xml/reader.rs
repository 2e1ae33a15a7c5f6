//! A frame's text, read once and strictly: everything XML 1.0, Namespaces in XML 1.0 and RFC 6120 §11 demand.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::chars::{are_chars, is_all_space};
use super::lexer::{InTag, Lexer, Name, Token};
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
    /// Empty when there is none.
    pub(crate) prefix: &'a str,
    /// The name without its prefix.
    pub(crate) local: &'a str,
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
struct Open<'a> {
    name: &'a str,
    bindings_before: u32,
    default_before: Bound,
    children: u32,
}

pub(crate) struct Reader<'a> {
    lexer: Lexer<'a>,
    limits: &'a Limits,
    scope: Option<&'a StreamPrefixes>,
    open: SmallVec<[Open<'a>; 8]>,
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
    /// Reads `bytes`, which must hold one element. With a `scope`, names may use what the stream header declared.
    pub(crate) fn new(
        bytes: &'a [u8],
        limits: &'a Limits,
        scope: Option<&'a StreamPrefixes>,
    ) -> Result<Self, XmlError> {
        if bytes.len() > limits.bytes() {
            return Err(XmlError::PolicyViolation(Excess::StanzaBytes));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| XmlError::UnsupportedEncoding("not UTF-8"))?;
        if !are_chars(text) {
            return Err(XmlError::NotWellFormed("character that XML does not allow"));
        }
        Ok(Self {
            lexer: Lexer::new(text),
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
        })
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
        self.lexer.position()
    }

    /// Whether the current start tag is its own end (`<a/>`).
    pub(crate) fn is_empty_tag(&self) -> bool {
        self.empty
    }

    /// Where in the document `part`, a slice of it, begins.
    pub(crate) fn offset_of(&self, part: &str) -> Option<usize> {
        self.lexer.offset_of(part)
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
            return match self.lexer.token()? {
                Token::StartTag(name) => self.start(name).map(|()| Event::Start),
                Token::EndTag => {
                    let open = self
                        .open
                        .last()
                        .ok_or(XmlError::NotWellFormed("end tag without start tag"))?;
                    self.lexer.end_tag(open.name)?;
                    self.end();
                    Ok(Event::End)
                }
                Token::Text { text, .. } if !self.open.is_empty() => Ok(Event::Text(text)),
                Token::Char(c) if !self.open.is_empty() => Ok(Event::Char(c)),
                Token::Text { text, cdata: false } if is_all_space(text) => continue,
                Token::Text { .. } | Token::Char(_) => Err(XmlError::NotWellFormed("text outside of the element")),
                Token::Eof if self.open.is_empty() && self.root_seen => Ok(Event::Eof),
                Token::Eof => Err(XmlError::NotWellFormed("element does not end")),
            };
        }
    }

    fn start(&mut self, name: Name<'a>) -> Result<(), XmlError> {
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
        self.check_length(name)?;
        self.declared_from = self.bindings.len() as u32;
        self.open.push(Open {
            name: name.text,
            bindings_before: self.declared_from,
            default_before: self.default,
            children: 0,
        });

        self.read_attributes()?;
        (self.prefix, self.name) = (name.prefix(), name.local());
        self.ns = self.bind(self.prefix)?;
        if !self.prefix.is_empty() && self.scope.is_some_and(|scope| scope.content() == self.ns()) {
            // RFC 6120 §4.8.5: no prefixes for the content namespace.
            return Err(XmlError::BadNamespacePrefix("prefix for the content namespace"));
        }
        self.bind_attributes()
    }

    fn end(&mut self) {
        if let Some(open) = self.open.pop() {
            self.bindings.truncate(open.bindings_before as usize);
            self.default = open.default_before;
        }
    }

    fn check_length(&self, name: Name<'a>) -> Result<(), XmlError> {
        match name.text.len() <= usize::from(self.limits.name_bytes_max) {
            true => Ok(()),
            false => Err(XmlError::PolicyViolation(Excess::NameBytes)),
        }
    }

    fn read_attributes(&mut self) -> Result<(), XmlError> {
        self.attributes.clear();
        let mut count = 0;
        loop {
            let (name, value, source) = match self.lexer.in_tag()? {
                InTag::Attribute { name, value, source } => (name, value, source),
                InTag::End { empty } => {
                    self.empty = empty;
                    return Ok(());
                }
            };
            count += 1;
            if count > self.limits.attributes_max {
                return Err(XmlError::PolicyViolation(Excess::Attributes));
            }
            self.check_length(name)?;
            let (prefix, local) = (name.prefix(), name.local());
            if prefix == "xmlns" {
                self.declare(local, value, source)?;
            } else if name.text == "xmlns" {
                self.declare("", value, source)?;
            } else {
                self.attributes.push(RawAttribute {
                    prefix,
                    local,
                    value,
                    source,
                    binding: Bound::None,
                });
            }
        }
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
        match prefix {
            "" => return Ok(self.default),
            "xml" => return Ok(Bound::Xml),
            _ => {}
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

    /// Resolves the attributes' prefixes, then refuses repeated names, also by expanded name (XML-NAMES §6.3).
    fn bind_attributes(&mut self) -> Result<(), XmlError> {
        for at in 0..self.attributes.len() {
            let prefix = self.attributes[at].prefix;
            if !prefix.is_empty() {
                self.attributes[at].binding = self.bind(prefix)?;
            }
            let (earlier, this) = (&self.attributes[..at], &self.attributes[at]);
            let same = |other: &RawAttribute<'_>| {
                other.local == this.local
                    && (other.prefix == this.prefix
                        || (!other.prefix.is_empty()
                            && !prefix.is_empty()
                            && self.attribute_ns(other) == self.attribute_ns(this)))
            };
            if earlier.iter().any(same) {
                return Err(XmlError::NotWellFormed("attribute repeated"));
            }
        }
        Ok(())
    }
}

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
