//! An owned element, for who reads or makes a payload.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::document::Document;
use super::reader::{Event, Reader, push_text};
use super::{Limits, StreamPrefixes, XML, XmlError, escape_attr, escape_text};

/// A name, namespace or value: usually one of ours, else shared with neighbours that have the same.
#[derive(Clone, Debug)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl From<Cow<'static, str>> for Name {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Static(text),
            Cow::Owned(text) => Self::Shared(text.into()),
        }
    }
}

/// An attribute of an [`Element`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    name: Name,
    ns: Name,
    value: Box<str>,
}

impl Attribute {
    /// The name without prefix.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The namespace; empty for the ordinary attribute without prefix.
    pub fn ns(&self) -> &str {
        self.ns.as_str()
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// A child of an [`Element`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A child element.
    Element(Element),
    /// Character data; never empty, never next to other text.
    Text(Box<str>),
}

/// An element with its namespace, attributes and children. Prefixes are not kept: written elements have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    name: Name,
    ns: Name,
    attributes: Vec<Attribute>,
    children: Vec<Node>,
}

impl Element {
    /// An empty element. `name` must be an XML name without colon.
    pub fn new(name: impl Into<Cow<'static, str>>, ns: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into().into(),
            ns: ns.into().into(),
            attributes: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Reads one element with everything in it; only white space may stand around it.
    ///
    /// # Errors
    /// What a stream would end with; see [`XmlError`].
    pub fn parse(xml: impl AsRef<[u8]>, limits: &Limits) -> Result<Self, XmlError> {
        Self::read_document(Reader::new(Document::new(xml.as_ref(), limits)?, limits, None))
    }

    /// As [`parse`](Self::parse), for a top-level element of a stream whose header declared `scope`.
    ///
    /// # Errors
    /// What the stream ends with; see [`XmlError`].
    pub fn parse_in(xml: impl AsRef<[u8]>, limits: &Limits, scope: &StreamPrefixes) -> Result<Self, XmlError> {
        Self::read_document(Reader::new(Document::new(xml.as_ref(), limits)?, limits, Some(scope)))
    }

    fn read_document(mut reader: Reader<'_>) -> Result<Self, XmlError> {
        match reader.next()? {
            Event::Start => Self::read_whole(&mut reader),
            _ => Err(XmlError::NotWellFormed("no element")),
        }
    }

    /// Reads the root element whose start tag `reader` has just passed, and makes sure that nothing follows it.
    pub(crate) fn read_whole(reader: &mut Reader<'_>) -> Result<Self, XmlError> {
        let element = Self::read(reader)?;
        match reader.next()? {
            Event::Eof => Ok(element),
            _ => Err(XmlError::NotWellFormed("more than one root element")),
        }
    }

    /// Reads the element whose start tag `reader` has just passed, up to its end.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, XmlError> {
        // The elements that are open, outermost first: depth is bounded by the reader, recursion is not needed.
        let mut open = vec![Self::begin(reader, None)];
        let mut text = String::new();
        loop {
            match reader.next()? {
                Event::Text(raw) => push_text(raw, &mut text),
                Event::Char(c) => text.push(c),
                Event::Start => {
                    Self::flush(&mut open, &mut text);
                    let child = Self::begin(reader, open.last());
                    open.push(child);
                }
                Event::End => {
                    Self::flush(&mut open, &mut text);
                    match (open.pop(), open.last_mut()) {
                        (Some(child), Some(parent)) => parent.children.push(Node::Element(child)),
                        (Some(root), None) => return Ok(root),
                        (None, _) => return Err(XmlError::NotWellFormed("end tag without start tag")),
                    }
                }
                Event::Eof => return Err(XmlError::NotWellFormed("element does not end")),
            }
        }
    }

    fn flush(open: &mut [Self], text: &mut String) {
        if let Some(element) = open.last_mut().filter(|_| !text.is_empty()) {
            element.children.push(Node::Text(std::mem::take(text).into_boxed_str()));
        }
    }

    fn begin(reader: &Reader<'_>, parent: Option<&Self>) -> Self {
        let ns = match parent {
            Some(parent) if parent.ns() == reader.ns() => parent.ns.clone(),
            _ => Name::Shared(reader.ns().into()),
        };
        let attribute = |attribute: &super::reader::RawAttribute<'_>| Attribute {
            name: Name::Shared(attribute.name.local().into()),
            ns: match reader.attribute_ns(attribute) {
                "" => Name::Static(""),
                XML => Name::Static(XML),
                ns => Name::Shared(ns.into()),
            },
            value: attribute.value.as_ref().into(),
        };
        Self {
            name: Name::Shared(reader.name().into()),
            ns,
            attributes: reader.attributes().iter().map(attribute).collect(),
            children: Vec::new(),
        }
    }

    /// The name without prefix.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The namespace; empty for none.
    pub fn ns(&self) -> &str {
        self.ns.as_str()
    }

    /// Whether the element has this expanded name.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name() == name && self.ns() == ns
    }

    /// The value of an attribute without prefix, or of `xml:lang` and the like by that very spelling.
    pub fn attr(&self, name: &str) -> Option<&str> {
        let (name, ns) = split_attribute_name(name);
        self.attr_ns(name, ns)
    }

    /// The value of an attribute by its expanded name.
    pub fn attr_ns(&self, name: &str, ns: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|a| a.name() == name && a.ns() == ns)
            .map(Attribute::value)
    }

    /// All attributes in their order.
    pub fn attrs(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter()
    }

    /// Sets an attribute without prefix (or `xml:…`), replacing the value it had. `name` must be an XML name.
    pub fn set_attr(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, ns) = match name.into() {
            Cow::Borrowed(name) => {
                let (name, ns) = split_attribute_name(name);
                (Cow::Borrowed(name), ns)
            }
            Cow::Owned(name) => {
                let (name, ns) = split_attribute_name(&name);
                (Cow::Owned(name.to_owned()), ns)
            }
        };
        self.set_attr_ns(name, ns, value);
    }

    /// Sets an attribute by its expanded name, replacing the value it had. `name` must be an XML name without colon.
    pub fn set_attr_ns(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        ns: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) {
        let (name, ns): (Name, Name) = (name.into().into(), ns.into().into());
        let value = value.into().into_boxed_str();
        match self.attributes.iter_mut().find(|a| a.name == name && a.ns == ns) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute { name, ns, value }),
        }
    }

    /// Removes an attribute without prefix (or `xml:…`) if it is there.
    pub fn remove_attr(&mut self, name: &str) {
        let (name, ns) = split_attribute_name(name);
        self.attributes.retain(|a| a.name() != name || a.ns() != ns);
    }

    /// The first child element with this expanded name.
    pub fn child(&self, name: &str, ns: &str) -> Option<&Self> {
        self.children().find(|child| child.is(name, ns))
    }

    /// The child elements, text left out.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The child elements, taken out of their parent.
    pub fn into_children(self) -> impl Iterator<Item = Self> {
        self.children.into_iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Child elements and text in their order.
    pub fn nodes(&self) -> &[Node] {
        &self.children
    }

    /// The text directly in this element, child elements left out.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(&**text),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    /// Appends a child element.
    pub fn push_child(&mut self, child: Self) {
        self.children.push(Node::Element(child));
    }

    /// Appends text, which must consist of XML characters; nothing when empty.
    pub fn push_text(&mut self, text: impl Into<String>) {
        let text = text.into();
        match self.children.last_mut() {
            _ if text.is_empty() => {}
            Some(Node::Text(last)) => *last = (std::mem::take(last).into_string() + &text).into_boxed_str(),
            _ => self.children.push(Node::Text(text.into_boxed_str())),
        }
    }

    /// This element with an attribute set.
    #[must_use]
    pub fn with_attr(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.set_attr(name, value);
        self
    }

    /// This element with a child appended.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.push_child(child);
        self
    }

    /// This element with children appended.
    #[must_use]
    pub fn with_children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// This element with text appended.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.push_text(text);
        self
    }

    /// Appends the element as XML. `parent_ns` is the default namespace where it will stand: an element that is in it needs
    /// no declaration.
    pub fn write(&self, out: &mut Vec<u8>, parent_ns: &str) {
        let mut text = String::new();
        self.write_str(&mut text, parent_ns);
        out.extend_from_slice(text.as_bytes());
    }

    /// As [`write`](Self::write), to a string.
    pub fn write_str(&self, out: &mut String, parent_ns: &str) {
        out.push('<');
        out.push_str(self.name());
        if self.ns() != parent_ns {
            out.push_str(" xmlns='");
            escape_attr(self.ns(), out);
            out.push('\'');
        }
        for (at, attribute) in self.attributes.iter().enumerate() {
            self.write_attribute(at, attribute, out);
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.children {
            match node {
                Node::Element(child) => child.write_str(out, self.ns()),
                Node::Text(text) => escape_text(text, out),
            }
        }
        out.push_str("</");
        out.push_str(self.name());
        out.push('>');
    }

    /// An attribute in a namespace of its own gets a prefix made from its place.
    fn write_attribute(&self, at: usize, attribute: &Attribute, out: &mut String) {
        match attribute.ns() {
            "" => out.push(' '),
            XML => out.push_str(" xml:"),
            ns => {
                let prefix = format!("a{at}");
                out.push_str(" xmlns:");
                out.push_str(&prefix);
                out.push_str("='");
                escape_attr(ns, out);
                out.push_str("' ");
                out.push_str(&prefix);
                out.push(':');
            }
        }
        out.push_str(attribute.name());
        out.push_str("='");
        escape_attr(attribute.value(), out);
        out.push('\'');
    }

    /// The element as a document of its own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = String::new();
        self.write_str(&mut out, "");
        Bytes::from(out)
    }
}

fn split_attribute_name(name: &str) -> (&str, &'static str) {
    match name.strip_prefix("xml:") {
        Some(local) => (local, XML),
        None => (name, ""),
    }
}
