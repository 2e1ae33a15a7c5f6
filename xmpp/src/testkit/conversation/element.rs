//! Whether what was heard is what a conversation says.

use std::collections::BTreeMap;

use crate::xml::{Attribute, CLIENT, Element, Node, STANZAS, XML};

/// Values by the names a conversation gives them.
pub(super) type Names = BTreeMap<String, String>;

/// The element without white space between its elements.
pub(super) fn without_white_space(element: &Element) -> Element {
    let mixed = element.children().next().is_some();
    let mut stripped = bare(element);
    for node in element.nodes() {
        match node {
            Node::Element(child) => stripped.push_child(without_white_space(child)),
            Node::Text(text) if mixed && text.trim().is_empty() => {}
            Node::Text(text) if mixed => stripped.push_text(text.trim()),
            Node::Text(text) => stripped.push_text(&**text),
        }
    }
    stripped
}

/// The element's name and attributes.
fn bare(element: &Element) -> Element {
    let mut bare = Element::new(element.name().to_owned(), element.ns().to_owned());
    for attribute in element.attrs() {
        bare.set_attr_ns(
            attribute.name().to_owned(),
            attribute.ns().to_owned(),
            attribute.value(),
        );
    }
    bare
}

/// The element with named values put in.
pub(super) fn filled(element: &Element, names: &Names) -> Element {
    let mut filled = bare(element);
    for attribute in element.attrs() {
        if let Some(value) = name_in(attribute.value()).and_then(|name| names.get(name)) {
            filled.set_attr_ns(attribute.name().to_owned(), attribute.ns().to_owned(), value);
        }
    }
    for node in element.nodes() {
        match node {
            Node::Element(child) => filled.push_child(self::filled(child, names)),
            Node::Text(text) => filled.push_text(&**text),
        }
    }
    filled
}

/// Whether `heard` is what was `expected`; learns the values of names when it is.
pub(super) fn is(expected: &Element, heard: &Element, names: &mut Names) -> bool {
    let mut learned = names.clone();
    let matched = matches(expected, &without_white_space(heard), &mut learned);
    if matched {
        *names = learned;
    }
    matched
}

fn matches(expected: &Element, heard: &Element, names: &mut Names) -> bool {
    expected.name() == heard.name()
        && expected.ns() == heard.ns()
        && expected.attrs().count() == said_attributes(expected, heard)
        && expected.attrs().all(|attribute| {
            let value = heard.attr_ns(attribute.name(), attribute.ns());
            value.is_some_and(|value| value_matches(attribute, value, names))
        })
        && content_matches(expected, heard, names)
}

/// How many attributes `heard` has; the language of the stream, which every stanza on it has (RFC 6120 §8.1.5), is one only when it
/// is expected.
fn said_attributes(expected: &Element, heard: &Element) -> usize {
    let streams = |attribute: &&Attribute| {
        (attribute.name(), attribute.ns(), attribute.value()) == ("lang", XML, "en")
            && expected.attr("xml:lang").is_none()
    };
    heard.attrs().filter(|attribute| !streams(attribute)).count()
}

fn value_matches(expected: &Attribute, value: &str, names: &mut Names) -> bool {
    match name_in(expected.value()) {
        _ if expected.value() == "*" => true,
        Some(name) => names.entry(name.to_owned()).or_insert_with(|| value.to_owned()) == value,
        None => expected.value() == value,
    }
}

fn name_in(value: &str) -> Option<&str> {
    value.strip_prefix('{')?.strip_suffix('}')
}

fn content_matches(expected: &Element, heard: &Element, names: &mut Names) -> bool {
    let others = |node: &Node| matches!(node, Node::Text(text) if &**text == "...");
    if expected.nodes().iter().any(others) {
        return expected
            .children()
            .all(|child| heard.children().any(|heard| matches(child, heard, names)));
    }
    let optional = |node: &&Node| {
        let error = expected.is("error", CLIENT) && expected.child("text", STANZAS).is_none();
        !(error && matches!(node, Node::Element(child) if child.is("text", STANZAS)))
    };
    let heard: Vec<&Node> = heard.nodes().iter().filter(optional).collect();
    expected.nodes().len() == heard.len()
        && expected.nodes().iter().zip(heard).all(|pair| match pair {
            (Node::Element(expected), Node::Element(heard)) => matches(expected, heard, names),
            (Node::Text(expected), Node::Text(heard)) => &**expected == "*" || expected == heard,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::conversation::read_element;

    fn check(expected: &str, heard: &str) -> (bool, Names) {
        let mut names = Names::new();
        let read = |xml| read_element(xml).expect("an element");
        let matched = is(&read(expected), &read(heard), &mut names);
        (matched, names)
    }

    #[test]
    fn the_same_is_the_same_however_it_is_written() {
        for (expected, heard) in [
            ("<a b='1' c='2'/>", "<a c=\"2\" b='1'></a>"),
            ("<a>\n  <b/>\n  <c/>\n</a>", "<a><b/><c/></a>"),
            ("<a xmlns='urn:x'/>", "<x:a xmlns:x='urn:x'/>"),
            ("<a/>", "<a xml:lang='en'/>"),
            ("<a xml:lang='en'/>", "<a xml:lang='en'/>"),
            ("<a b='*'>*</a>", "<a b='anything'>at all</a>"),
            ("<a>...<c/></a>", "<a><b/><c/><d/></a>"),
            (
                "<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
                "<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                 <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>taken</text></error>",
            ),
        ] {
            assert!(check(expected, heard).0, "{expected} is {heard}");
        }
    }

    #[test]
    fn what_differs_differs() {
        for (expected, heard) in [
            ("<a/>", "<b/>"),
            ("<a/>", "<a xmlns='urn:x'/>"),
            ("<a/>", "<a b='1'/>"),
            ("<a/>", "<a xml:lang='it'/>"),
            ("<a xml:lang='en'/>", "<a/>"),
            ("<a b='*'/>", "<a/>"),
            ("<a b='1'/>", "<a b='2'/>"),
            ("<a><b/><c/></a>", "<a><c/><b/></a>"),
            ("<a><b/></a>", "<a><b/><b/></a>"),
            ("<a>...<c/></a>", "<a><b/></a>"),
            ("<a>x</a>", "<a>y</a>"),
            ("<a>x</a>", "<a/>"),
            ("<a b='{n}' c='{n}'/>", "<a b='1' c='2'/>"),
        ] {
            assert!(!check(expected, heard).0, "{expected} is not {heard}");
        }
    }

    #[test]
    fn names_are_learned_and_put_in() {
        let (matched, names) = check("<a b='{n}' c='{n}'/>", "<a b='1' c='1'/>");
        assert!(matched);
        let said = filled(
            &read_element("<iq id='{n}' x='{m}'><b c='{n}'/></iq>").expect("an element"),
            &names,
        );
        let mut text = String::new();
        said.write_str(&mut text, CLIENT);
        assert_eq!(text, "<iq id='1' x='{m}'><b c='1'/></iq>");
    }
}
