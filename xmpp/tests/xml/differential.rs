//! Our reader against rxml, a strict implementation of the same restricted XML: they accept the same documents and see the same
//! tree in them, so no text that is inside a stanza for us begins a second one for somebody else.

use heronry_xmpp::xml::{Element, Limits, XmlError};
use proptest::prelude::*;
use rxml::parser::{CommentMode, Options, WithOptions};
use rxml::{Event, Parse, Parser};

use crate::generate::{nearly_right, soup};

/// The tree that rxml sees, if it accepts the document.
fn rxml(document: &[u8]) -> Option<Element> {
    let options = Options {
        max_token_length: 1 << 20,
        context: None,
        comments: CommentMode::Reject,
    };
    let mut parser = Parser::with_options(options);
    let mut input = document;
    let (mut open, mut root) = (Vec::<Element>::new(), None);
    while let Some(event) = parser.parse(&mut input, true).ok()? {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (ns, name), attributes) => {
                let mut element = Element::new(name.as_str().to_owned(), ns.as_str().to_owned());
                for ((ns, name), value) in attributes {
                    element.set_attr_ns(name.as_str().to_owned(), ns.as_str().to_owned(), value);
                }
                open.push(element);
            }
            Event::Text(_, text) => open.last_mut()?.push_text(text),
            Event::EndElement(_) => {
                let element = open.pop()?;
                match open.last_mut() {
                    Some(parent) => parent.push_child(element),
                    None => root = Some(element),
                }
            }
        }
    }
    root
}

/// The document with its line ends normalised, which XML §2.11 says means the same. rxml gets this one: it forgets a CR before
/// the end of an attribute value and refuses one before a character that is not ASCII.
fn with_plain_line_ends(document: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(document.len());
    for (at, byte) in document.iter().enumerate() {
        match byte {
            b'\r' if document.get(at + 1) == Some(&b'\n') => {}
            b'\r' => plain.push(b'\n'),
            _ => plain.push(*byte),
        }
    }
    plain
}

/// Attributes have no order.
fn sorted(element: &Element) -> String {
    let mut attributes: Vec<_> = element
        .attrs()
        .map(|a| format!("{:?}", (a.ns(), a.name(), a.value())))
        .collect();
    attributes.sort();
    let nodes = element.nodes().iter().map(|node| match node {
        heronry_xmpp::xml::Node::Element(child) => sorted(child),
        heronry_xmpp::xml::Node::Text(text) => format!("{text:?}"),
    });
    format!(
        "{:?}{attributes:?}{:?}",
        (element.ns(), element.name()),
        nodes.collect::<Vec<_>>()
    )
}

fn check(document: &[u8]) -> Result<(), TestCaseError> {
    if document.starts_with(b"<?xml") {
        // For us an XML declaration is no part of an element but of a stream header.
        return Ok(());
    }
    let ours = Element::parse(document, &Limits::trusted());
    if ours == Err(XmlError::NotWellFormed("namespace declared twice in one tag")) {
        // XML §3.1: an attribute must not be there twice; rxml lets declarations be. `refusals` has them.
        return Ok(());
    }
    // White space before the root element is allowed (XML §2.8, `prolog`); rxml wants a declaration before it.
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let begin = document.iter().take_while(|byte| space(byte)).count();
    let theirs = rxml(&with_plain_line_ends(&document[begin..]));
    let text = std::str::from_utf8(document).unwrap_or_default();
    if theirs.is_none() && ours.is_ok() && text.contains(|c| matches!(c, '\u{FDF0}'..='\u{FFFD}')) {
        // XML §2.3 has this range in NameStartChar, rxml has it nowhere in names.
        return Ok(());
    }
    prop_assert_eq!(
        ours.as_ref().ok().map(sorted),
        theirs.as_ref().map(sorted),
        "{:?}: ours {:?}",
        String::from_utf8_lossy(document),
        ours
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nearly_right_documents_are_judged_alike(document in nearly_right()) {
        check(&document)?;
    }

    #[test]
    fn token_soup_is_judged_alike(document in soup()) {
        check(&document)?;
    }
}
