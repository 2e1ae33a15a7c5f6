//! Elements, the many ways to write each down, and documents that are slightly wrong.

use heronry_xmpp::xml::{Element, Node};
use proptest::collection::vec;
use proptest::prelude::*;

/// Decisions taken one after the other from a list that repeats.
#[derive(Debug)]
pub(crate) struct Choices {
    bytes: Vec<u8>,
    next: usize,
}

impl Choices {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let byte = self.bytes[self.next % self.bytes.len()];
        // The list does not repeat with the same period everywhere.
        self.next += 1 + self.next / self.bytes.len() % 3;
        usize::from(byte) % bound
    }

    fn of<'a>(&mut self, options: &[&'a str]) -> &'a str {
        options[self.below(options.len())]
    }
}

pub(crate) fn choices() -> impl Strategy<Value = Choices> {
    vec(any::<u8>(), 1..64).prop_map(|bytes| Choices { bytes, next: 0 })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,8}", 1 => "[A-Za-z_][A-Za-z0-9._-]{0,6}", 1 => "[éπ学_][éπ学·0-9]{0,3}"]
}

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("jabber:client".to_owned()),
        3 => "urn:[a-c]",
        1 => Just(String::new()),
        1 => "[a-z<&'\"> \t]{1,5}",
    ]
}

/// XML characters, those that need care more often than they deserve.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        8 => any::<char>().prop_map(|c| if is_char(c) { c } else { '?' }),
        8 => prop::char::range(' ', '~'),
        4 => prop::sample::select(vec!['<', '>', '&', '\'', '"', ']', '\r', '\n', '\t', ';', '#']),
        1 => prop::sample::select(vec!['\u{85}', '\u{2028}', '\u{FEFF}', '\u{FFFD}', '\u{D7FF}', '\u{10FFFF}', '\u{7F}']),
    ];
    vec(character, 0..12).prop_map(|characters| characters.into_iter().collect())
}

pub(crate) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{FFFE}' | '\u{FFFF}'))
}

/// Any element: names, namespaces, attributes with and without namespace, text and children in any order.
pub(crate) fn element() -> impl Strategy<Value = Element> {
    let start = (
        name(),
        namespace(),
        vec((name(), namespace(), text()), 0..4),
        any::<bool>(),
    )
        .boxed();
    let leaf = (start.clone(), text()).prop_map(|(start, text)| begin(start).with_text(text));
    leaf.prop_recursive(5, 24, 5, move |inner| {
        let node = prop_oneof![inner.prop_map(Ok), text().prop_map(Err)];
        (start.clone(), vec(node, 0..5)).prop_map(|(start, nodes)| {
            nodes.into_iter().fold(begin(start), |element, node| match node {
                Ok(child) => element.with_child(child),
                Err(text) => element.with_text(text),
            })
        })
    })
}

type Start = (String, String, Vec<(String, String, String)>, bool);

fn begin((name, ns, attributes, lang): Start) -> Element {
    let mut element = Element::new(name, ns);
    for (name, ns, value) in attributes {
        // `xmlns` is not an attribute one can have.
        if name != "xmlns" {
            element.set_attr_ns(name, ns, value);
        }
    }
    if lang {
        element.with_attr("xml:lang", "de")
    } else {
        element
    }
}

/// One of the many documents that mean `element`.
pub(crate) fn spell(element: &Element, choices: &mut Choices) -> String {
    let mut out = String::new();
    spell_element(element, "", choices, &mut out);
    out
}

fn spell_element(element: &Element, default_ns: &str, choices: &mut Choices, out: &mut String) {
    // A stanza may not write its own namespace with a prefix (RFC 6120 §4.8.5).
    let prefixed = !matches!(element.ns(), "" | "jabber:client") && choices.below(3) == 0;
    let name = if prefixed {
        format!("p:{}", element.name())
    } else {
        element.name().to_owned()
    };
    let default_inside = if prefixed { default_ns } else { element.ns() };
    out.push('<');
    out.push_str(&name);
    let mut attributes = Vec::new();
    if prefixed {
        attributes.push(("xmlns:p".to_owned(), element.ns()));
    } else if element.ns() != default_ns || choices.below(5) == 0 {
        attributes.push(("xmlns".to_owned(), element.ns()));
    }
    for (at, attribute) in element.attrs().enumerate() {
        match attribute.ns() {
            "" => attributes.push((attribute.name().to_owned(), attribute.value())),
            "http://www.w3.org/XML/1998/namespace" => {
                attributes.push((format!("xml:{}", attribute.name()), attribute.value()));
            }
            ns => {
                attributes.push((format!("a{at}:{}", attribute.name()), attribute.value()));
                attributes.push((format!("xmlns:a{at}"), ns));
            }
        }
    }
    if choices.below(2) == 0 {
        attributes.reverse();
    }
    for (name, value) in attributes {
        spell_attribute(&name, value, choices, out);
    }
    out.push_str(choices.of(&["", "", " ", "\n"]));
    if element.nodes().is_empty() && choices.below(2) == 0 {
        out.push_str("/>");
        return;
    }
    out.push('>');
    for node in element.nodes() {
        match node {
            Node::Element(child) => spell_element(child, default_inside, choices, out),
            Node::Text(text) => spell_text(text, choices, out),
        }
    }
    out.push_str("</");
    out.push_str(&name);
    out.push_str(choices.of(&["", "", " ", "\t\r\n"]));
    out.push('>');
}

fn spell_attribute(name: &str, value: &str, choices: &mut Choices, out: &mut String) {
    out.push_str(choices.of(&[" ", " ", "\n  ", "\t"]));
    out.push_str(name);
    out.push_str(choices.of(&["=", "=", " =", "= ", "\r\n=\t"]));
    let quote = choices.of(&["'", "\""]);
    out.push_str(quote);
    for c in value.chars() {
        let must = matches!(c, '<' | '&' | '\t' | '\n' | '\r') || quote.starts_with(c);
        // A line end or tab as written is a space.
        match (c, choices.below(8)) {
            (' ', 0) => out.push_str(choices.of(&["\t", "\n", "\r\n"])),
            (_, 1) => spell_reference(c, choices, out),
            _ if must => spell_reference(c, choices, out),
            _ => out.push(c),
        }
    }
    out.push_str(quote);
}

fn spell_text(text: &str, choices: &mut Choices, out: &mut String) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let piece = &rest[..c.len_utf8()];
        match (c, choices.below(8)) {
            ('\n', 0) => out.push_str("\r\n"),
            // A CR as written would join with an LF after it.
            ('\n', 1) if !rest.starts_with("\n\n") => {
                out.push('\r');
                rest = &rest[1..];
                // What follows must not be an LF by spelling either.
                if let Some(next) = rest.chars().next() {
                    spell_reference(next, choices, out);
                    rest = &rest[next.len_utf8()..];
                }
                continue;
            }
            (_, 2) if !matches!(c, '\r') => {
                // A CDATA section of up to five characters, with nothing in it that means something else there.
                let end = rest.char_indices().nth(5).map_or(rest.len(), |(at, _)| at);
                let inside = rest[..end].split(['\r', ']']).next().unwrap_or_default();
                out.push_str("<![CDATA[");
                out.push_str(inside);
                out.push_str("]]>");
                if inside.is_empty() {
                    spell_reference(c, choices, out);
                    rest = &rest[c.len_utf8()..];
                } else {
                    rest = &rest[inside.len()..];
                }
                continue;
            }
            ('<' | '&' | '\r' | '>', _) | (_, 3) => spell_reference(c, choices, out),
            _ => out.push_str(piece),
        }
        rest = &rest[piece.len()..];
    }
}

fn spell_reference(c: char, choices: &mut Choices, out: &mut String) {
    let predefined = match c {
        '<' => "&lt;",
        '>' => "&gt;",
        '&' => "&amp;",
        '\'' => "&apos;",
        '"' => "&quot;",
        _ => "",
    };
    match choices.below(3) {
        0 => out.push_str(&format!("&#{};", u32::from(c))),
        1 => out.push_str(&format!("&#x{:X};", u32::from(c))),
        _ if predefined.is_empty() => out.push_str(&format!("&#x{:x};", u32::from(c))),
        _ => out.push_str(predefined),
    }
}

/// What documents go wrong with.
const TOKENS: &[&[u8]] = &[
    b"<",
    b">",
    b"/",
    b"</",
    b"/>",
    b"=",
    b"'",
    b"\"",
    b" ",
    b"\n",
    b"\r",
    b"\t",
    b"&",
    b";",
    b":",
    b"-",
    b"!",
    b"?",
    b"]",
    b"]]>",
    b"<![CDATA[",
    b"<!--",
    b"-->",
    b"<!DOCTYPE a>",
    b"<!ENTITY",
    b"<?a?>",
    b"<?xml version='1.0'?>",
    b"&lt;",
    b"&amp;",
    b"&a;",
    b"&#0;",
    b"&#1;",
    b"&#x41;",
    b"&#xD800;",
    b"&#xFFFE;",
    b"&#65",
    b"&#+65;",
    b"&#x;",
    b"&#;",
    b"&#1114112;",
    b"&#99999999999;",
    b"a",
    b"b",
    b"1",
    b".",
    b"xmlns",
    b"xmlns:",
    b"xmlns:a='u'",
    b" xmlns=''",
    b" xmlns:a=''",
    b" xmlns:xml='u'",
    b" xml:lang=''",
    b" xmlns:xmlns='u'",
    b" xmlns:b='http://www.w3.org/XML/1998/namespace'",
    b" a='1'",
    b" a:a='1'",
    b" b:a='1'",
    b"a:",
    b"p:",
    b"<a>",
    b"</a>",
    b"<a/>",
    b"<a:b xmlns:a='u'/>",
    b"\0",
    b"\x01",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xfe",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbf\xbe",
    b"\xef\xbf\xbf",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\xc3\x97",
    b"\xcd\xbe",
    b"\xe2\x80\xbf",
    b"\xf0\x9f\xa6\xa2",
    b"\xef\xb7\x90",
];

/// A document that was right, with up to four changes.
pub(crate) fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8);
    (element(), choices(), vec(change, 0..5)).prop_map(|(element, mut choices, changes)| {
        let mut document = spell(&element, &mut choices).into_bytes();
        for (place, token, how) in changes {
            let at = place.index(document.len() + 1);
            let token = TOKENS[token.index(TOKENS.len())];
            match how {
                0 => drop(document.splice(at..at, token.iter().copied())),
                1 => drop(document.splice(at..(at + token.len()).min(document.len()), token.iter().copied())),
                2 => drop(document.drain(at..(at + 1).min(document.len()))),
                3 => drop(document.drain(at..(at + token.len()).min(document.len()))),
                _ => {
                    let copy = document[at..(at + 9).min(document.len())].to_vec();
                    document.splice(at..at, copy);
                }
            }
        }
        document
    })
}

/// What was never right.
pub(crate) fn soup() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(TOKENS), 0..16).prop_map(|tokens| {
        let mut document = b"<a".to_vec();
        tokens.iter().for_each(|token| document.extend_from_slice(token));
        document
    })
}
