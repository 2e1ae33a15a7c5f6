//! What is written is read back the same, whatever it contains.

use heronry_xmpp::xml::{Element, Limits, escape_attr, escape_text};
use proptest::prelude::*;

use crate::generate::{choices, element, spell, text};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements(element in element()) {
        prop_assert_eq!(Element::parse(element.to_bytes(), &Limits::trusted()), Ok(element));
    }

    #[test]
    fn elements_inside_of_others(element in element(), ns in "[a-c:]{0,3}|jabber:client") {
        let mut xml = format!("<x xmlns='{ns}'>").into_bytes();
        element.write(&mut xml, &ns);
        xml.extend_from_slice(b"</x>");
        let parent = Element::parse(&xml, &Limits::trusted());
        prop_assert_eq!(parent.map(|parent| parent.into_children().collect()), Ok(vec![element]));
    }

    #[test]
    fn every_spelling_of_an_element_means_it(element in element(), mut choices in choices()) {
        let document = spell(&element, &mut choices);
        let read = Element::parse(&document, &Limits::trusted());
        prop_assert_eq!(read.as_ref().map(same_order), Ok(same_order(&element)), "{}", document);
    }

    #[test]
    fn text_in_both_places(text in text()) {
        let mut document = String::from("<a b='");
        escape_attr(&text, &mut document);
        document.push_str("'>");
        escape_text(&text, &mut document);
        document.push_str("</a>");
        let read = Element::parse(&document, &Limits::trusted()).unwrap();
        prop_assert_eq!(read.attr("b"), Some(&*text));
        prop_assert_eq!(read.text(), text);
    }
}

/// The element with its attributes sorted: their order is not part of what a document means.
fn same_order(element: &Element) -> Element {
    let mut copy = Element::new(element.name().to_owned(), element.ns().to_owned());
    let mut attributes: Vec<_> = element.attrs().collect();
    attributes.sort_by_key(|a| (a.ns(), a.name()));
    for a in attributes {
        copy.set_attr_ns(a.name().to_owned(), a.ns().to_owned(), a.value());
    }
    for node in element.nodes() {
        match node {
            heronry_xmpp::xml::Node::Element(child) => copy.push_child(same_order(child)),
            heronry_xmpp::xml::Node::Text(text) => copy.push_text(&**text),
        }
    }
    copy
}

#[test]
fn line_ends_and_white_space_are_normalised() {
    // XML §2.11 and §3.3.3
    let a = Element::parse(
        "<a b='1\r\n2\r3\n4\t5&#13;&#10;&#9;'>1\r\n2\r3\n\r\r\n&#13;&#xA;<![CDATA[\r\n\r]]></a>",
        &Limits::trusted(),
    );
    let a = a.unwrap();
    assert_eq!(a.attr("b"), Some("1 2 3 4 5\r\n\t"));
    assert_eq!(a.text(), "1\n2\n3\n\n\n\r\n\n\n");
}

#[test]
fn names_and_namespaces_are_resolved() {
    let document = "<p:a xmlns:p='urn:p' xmlns='urn:d' p:x='1' x='2' xml:lang='de'>\
                    <b xmlns=''><c/></b><d/><p:e xmlns:p='urn:q'/><p:f/></p:a>";
    let a = Element::parse(document, &Limits::trusted()).unwrap();
    assert!(a.is("a", "urn:p"));
    assert_eq!(
        (a.attr("x"), a.attr_ns("x", "urn:p"), a.attr("xml:lang")),
        (Some("2"), Some("1"), Some("de"))
    );
    let names: Vec<_> = a.children().map(|child| (child.name(), child.ns())).collect();
    assert_eq!(names, [("b", ""), ("d", "urn:d"), ("e", "urn:q"), ("f", "urn:p")]);
    assert!(a.child("b", "").unwrap().child("c", "").is_some());
}

#[test]
fn builders_write_what_they_say() {
    let query = Element::new("query", "jabber:iq:roster")
        .with_attr("ver", "a'b")
        .with_child(
            Element::new("item", "jabber:iq:roster")
                .with_attr("jid", "a@b")
                .with_text("x < y"),
        )
        .with_child(Element::new("other", "urn:x").with_child(Element::new("none", "")));
    let mut out = Vec::new();
    query.write(&mut out, "jabber:client");
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "<query xmlns='jabber:iq:roster' ver='a&apos;b'><item jid='a@b'>x &lt; y</item>\
         <other xmlns='urn:x'><none xmlns=''/></other></query>"
    );
}
