//! Tests of RFC 7622.

use proptest::prelude::*;

use super::*;

fn parts(text: &str) -> Result<(Option<String>, String, Option<String>), JidError> {
    let jid = Jid::parse(text)?;
    let owned = |part: Option<&str>| part.map(str::to_owned);
    Ok((owned(jid.local()), jid.domain().to_owned(), owned(jid.resource())))
}

/// RFC 7622 §3.5, table 1, in its order: each is what it already says.
#[test]
fn legal_addresses() {
    let table = [
        ("juliet@example.com", (Some("juliet"), "example.com", None)),
        ("juliet@example.com/foo", (Some("juliet"), "example.com", Some("foo"))),
        (
            "juliet@example.com/foo bar",
            (Some("juliet"), "example.com", Some("foo bar")),
        ),
        (
            "juliet@example.com/foo@bar",
            (Some("juliet"), "example.com", Some("foo@bar")),
        ),
        ("foo\\20bar@example.com", (Some("foo\\20bar"), "example.com", None)),
        ("fussball@example.com", (Some("fussball"), "example.com", None)),
        ("fu\u{DF}ball@example.com", (Some("fu\u{DF}ball"), "example.com", None)),
        ("\u{3C0}@example.com", (Some("\u{3C0}"), "example.com", None)),
        ("\u{3A3}@example.com/foo", (Some("\u{3C3}"), "example.com", Some("foo"))),
        ("\u{3C3}@example.com/foo", (Some("\u{3C3}"), "example.com", Some("foo"))),
        ("\u{3C2}@example.com/foo", (Some("\u{3C2}"), "example.com", Some("foo"))),
        (
            "king@example.com/\u{265A}",
            (Some("king"), "example.com", Some("\u{265A}")),
        ),
        ("example.com", (None, "example.com", None)),
        ("example.com/foobar", (None, "example.com", Some("foobar"))),
        (
            "a.example.com/b@example.net",
            (None, "a.example.com", Some("b@example.net")),
        ),
    ];
    for (text, (local, domain, resource)) in table {
        let expected = (local.map(str::to_owned), domain.to_owned(), resource.map(str::to_owned));
        assert_eq!(parts(text), Ok(expected), "{text}");
    }
    // The notes below the table: 6 and 7 differ, 9 and 10 are one, 11 is another.
    let jid = |number: usize| Jid::parse(table[number - 1].0).unwrap();
    assert_ne!(jid(6), jid(7));
    assert_eq!(jid(9), jid(10));
    assert_ne!(jid(9), jid(11));
}

/// RFC 7622 §3.5, table 2, in its order.
#[test]
fn what_is_no_address() {
    let table = [
        ("\"juliet\"@example.com", JidError::BadLocal),
        ("foo bar@example.com", JidError::BadLocal),
        ("juliet@example.com/ foo", JidError::BadResource),
        ("@example.com/", JidError::EmptyLocal),
        ("henry\u{2163}@example.com", JidError::BadLocal),
        ("\u{265A}@example.com", JidError::BadLocal),
        ("juliet@", JidError::EmptyDomain),
        ("/foobar", JidError::EmptyDomain),
    ];
    for (text, error) in table {
        assert_eq!(Jid::parse(text), Err(error), "{text}");
    }
}

#[test]
fn localparts_are_case_mapped_usernames() {
    let local = |text: &str| parts(&format!("{text}@x")).map(|(local, ..)| local.unwrap());
    for (from, to) in [
        ("Juliet", "juliet"),
        ("ＪＵＬＩＥＴ", "juliet"),
        ("ÉLAN", "élan"),
        ("E\u{301}lan", "élan"),
        ("a!#$%()*+,-.;=?[\\]^_`{|}~9", "a!#$%()*+,-.;=?[\\]^_`{|}~9"),
        ("שלום", "שלום"),
        ("दि\u{94D}\u{200D}", "दि\u{94D}\u{200D}"), // ZWJ after a virama: RFC 5892 A.2
    ] {
        assert_eq!(local(from).as_deref(), Ok(to), "{from}");
    }
    // RFC 7622 §3.3.1, and their full-width forms, which width mapping turns into them.
    for excluded in [
        "\"", "&", "'", ":", "<", ">", "＠", "／", "：", "＆", "＂", "＇", "＜", "＞",
    ] {
        assert_eq!(local(&format!("a{excluded}b")), Err(JidError::BadLocal), "{excluded}");
    }
    for bad in [
        "a b",
        "a\tb",
        "\0",
        "\u{7F}",
        "\u{A0}",
        "\u{200B}",
        "\u{AD}",
        "ﬁ",
        "\u{E000}",
        "אa",
        "a\u{200D}b",
        "\u{FFFE}",
        "\u{212B}", // ANGSTROM SIGN has a compatibility equivalent
    ] {
        assert_eq!(local(bad), Err(JidError::BadLocal), "{bad:?}");
    }
}

#[test]
fn resourceparts_are_opaque_strings() {
    let resource = |text: &str| parts(&format!("x/{text}")).map(|(.., resource)| resource.unwrap());
    for (from, to) in [
        ("Balcony", "Balcony"),
        ("a/b@c", "a/b@c"),
        ("a\u{A0}b\u{3000}c", "a b c"), // other spaces become spaces
        ("e\u{301}", "é"),
        ("ﬁ Ⅳ ♚ 🦢", "ﬁ Ⅳ ♚ 🦢"),
        ("<&'\">", "<&'\">"),
        ("trailing ", "trailing "),
        ("🥰\u{A0}e\u{301}🦢", "🥰 é🦢"), // assigned since Unicode 6.3
    ] {
        assert_eq!(resource(from).as_deref(), Ok(to), "{from}");
    }
    for bad in [
        "a\nb", "\t", "\0", "\u{7F}", "\u{85}", "\u{200B}", "\u{FFFE}", "\u{E000}", "\u{A0}a", "\u{378}",
    ] {
        assert_eq!(resource(bad), Err(JidError::BadResource), "{bad:?}");
    }
    assert_eq!(resource(""), Err(JidError::EmptyResource));
}

#[test]
fn domainparts_are_names_with_u_labels() {
    let domain = |text: &str| parts(text).map(|(_, domain, _)| domain);
    for (from, to) in [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("1.2.3.4", "1.2.3.4"),
        ("bücher.example", "bücher.example"),
        ("BÜCHER.Example", "bücher.example"),
        ("xn--bcher-kva.example", "bücher.example"), // RFC 7622 §3.2.1: A-labels become U-labels
        ("XN--BCHER-KVA.example", "bücher.example"),
        ("faß.example", "faß.example"),
        ("ｅｘａｍｐｌｅ．com", "example.com"),
        ("例え。テスト", "例え.テスト"),
        ("例え。テスト。", "例え.テスト"),
        ("a-b.c--d.example", "a-b.c--d.example"),
        ("שלום.example", "שלום.example"),
        ("l·l.example", "l·l.example"), // RFC 5892 A.3
    ] {
        // "c--d" is fine, "xx--d" would not be: only the third and fourth place are reserved.
        assert_eq!(domain(from).as_deref(), Ok(to), "{from}");
    }
    for bad in [
        "-a.example",
        "a-.example",
        "ab--c.example",
        "a_b.example",
        "a b",
        "a..b",
        ".a",
        "a..",
        ".",
        "xn--a.example",
        "xn--",
        "xn--example-.com",
        "☕.example",
        "xn--53h.example",
        "a\u{200D}b.example",
        "ex\u{AD}ample\u{0}",
        "l·a.example",
        "a:5222",
        "a@b@c",
        "a%",
        "[",
        "[]",
        "[::1",
        "::1]",
        "[1.2.3.4]",
        "[::g]",
        "[fe80::1%25]",
        "[fe80::1%eth0]",
        "[::1]x",
        "\u{FFFD}",
        "אa.example",
    ] {
        assert!(
            matches!(domain(bad), Err(JidError::BadDomain | JidError::EmptyDomain)),
            "{bad:?}: {:?}",
            domain(bad)
        );
    }
}

#[test]
fn ip_literals() {
    let domain = |text: &str| parts(text).map(|(_, domain, _)| domain);
    for (from, to) in [
        ("[::1]", "[::1]"),
        ("[2001:DB8:0:0:0:0:0:1]", "[2001:db8::1]"), // RFC 5952
        ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ("[fe80::1%25en1]", "[fe80::1%25en1]"), // RFC 6874
    ] {
        assert_eq!(domain(from).as_deref(), Ok(to), "{from}");
        assert_eq!(parts(&format!("a@{from}/r")).unwrap().1, to);
    }
}

#[test]
fn parts_have_at_most_1023_bytes() {
    let (a, e) = ("a".repeat(1023), "é".repeat(511));
    for part in [&a, &e] {
        assert!(Jid::parse(&format!("{part}@x/{part}")).is_ok());
        // One byte or character more.
        let more = if part.is_ascii() {
            format!("{part}a")
        } else {
            format!("{part}é")
        };
        assert_eq!(Jid::parse(&format!("{more}@x")), Err(JidError::TooLong));
        assert_eq!(Jid::parse(&format!("x/{more}")), Err(JidError::TooLong));
    }
    // Decomposed it is 1 533 bytes, composed 1 022.
    assert!(Jid::parse(&format!("{}@x", "e\u{301}".repeat(511))).is_ok());
    assert_eq!(Jid::parse(&format!("{}@x", "É".repeat(3000))), Err(JidError::TooLong));
    // The domain obeys the DNS: labels of 63, names of 253 bytes, as A-labels.
    let label = "a".repeat(63);
    assert!(Jid::parse(&format!("{label}.{label}.{label}.{}", "a".repeat(61))).is_ok());
    assert_eq!(
        Jid::parse(&format!("{label}.{label}.{label}.{}", "a".repeat(62))),
        Err(JidError::BadDomain)
    );
    assert_eq!(Jid::parse(&format!("{label}a.b")), Err(JidError::BadDomain));
    assert!(Jid::parse(&"ü".repeat(30)).is_ok());
    assert_eq!(Jid::parse(&"ü".repeat(64)), Err(JidError::BadDomain));
}

#[test]
fn bare_and_full() {
    let full = FullJid::parse("Juliet@example.com./balcony").unwrap();
    let bare = BareJid::new(Some("juliet"), "example.com").unwrap();
    assert_eq!(full.bare(), bare);
    assert_eq!(
        (full.bare_str(), full.resource(), full.as_str()),
        ("juliet@example.com", "balcony", "juliet@example.com/balcony")
    );
    assert_eq!(bare.with_resource("balcony"), Ok(full.clone()));
    assert_eq!(bare.with_resource(""), Err(JidError::EmptyResource));
    assert_eq!(bare.to_domain(), "example.com");
    assert_eq!(Jid::from(&full).to_full(), Some(full.clone()));
    assert_eq!(Jid::from(full.clone()).try_into_full(), Ok(full.clone()));
    assert_eq!(Jid::from(bare.clone()).try_into_full(), Err(bare.clone()));
    assert!(Jid::from(full.clone()).to_bare() == bare && Jid::from(bare.clone()).is_bare());
    assert_eq!(BareJid::parse("a@b/c"), Err(JidError::UnexpectedResource));
    assert_eq!(FullJid::parse("a@b"), Err(JidError::NoResource));
    // A bare JID that shares a full one's text is still only itself.
    let map: std::collections::BTreeMap<BareJid, ()> = [(full.bare(), ())].into();
    assert!(map.contains_key("juliet@example.com"));
    assert_eq!(format!("{}", full.bare()), "juliet@example.com");
    assert_eq!(slot(full.bare().as_str()), slot(bare.as_str()));
    assert!(size_of::<Jid>() <= 24);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The fast path for plain ASCII and the way through PRECIS and IDNA come to the same.
    #[test]
    fn both_ways_agree(text in "[a-cA-C0-9@/. !:'<-]{0,12}|[a-z@/.-]{1,8}|[ -~]{0,12}") {
        let slowly = {
            let (rest, resource) = text.split_once('/').map_or((&*text, None), |(rest, resource)| (rest, Some(resource)));
            let (local, domain) = rest.split_once('@').map_or((None, rest), |(local, domain)| (Some(local), domain));
            Address::from_parts(local, domain, resource).map(Jid)
        };
        prop_assert_eq!(&Jid::parse(&text), &slowly);
        for part in text.split(['/', '@']).filter(|part| !part.is_empty()) {
            prop_assert_eq!(prepare::local(part).ok(), prepare::local_by_precis(part).ok());
            prop_assert_eq!(prepare::resource(part).ok(), prepare::resource_by_precis(part).ok());
        }
    }

    #[test]
    fn preparing_twice_changes_nothing(local in "\\PC{1,5}", domain in "\\PC{1,5}|[a-zü]{1,5}", resource in "\\PC{0,5}") {
        for text in [format!("{local}@{domain}/{resource}"), format!("{local}@{domain}"), domain.clone(), format!("x/{resource}")] {
            if let Ok(jid) = Jid::parse(&text) {
                prop_assert_eq!(Jid::parse(jid.as_str()), Ok(jid));
            }
        }
    }
}
