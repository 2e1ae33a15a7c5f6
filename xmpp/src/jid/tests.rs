//! Tests of RFC 7622.

use super::*;

#[test]
fn parts() {
    let jid = Jid::parse("Juliet@Example.COM./balcony").unwrap();
    assert_eq!(
        (jid.local(), jid.domain(), jid.resource()),
        (Some("juliet"), "example.com", Some("balcony"))
    );
    assert_eq!(jid.to_bare().as_str(), "juliet@example.com");
    assert_eq!(Jid::parse("BÜCHER.example").unwrap().as_str(), "bücher.example");
}
