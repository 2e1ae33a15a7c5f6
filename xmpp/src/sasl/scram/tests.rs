//! The examples of the RFCs, both sides, message by message; and everything either side must refuse.

use proptest::prelude::*;

use super::super::client::{ClientError, Secret};
use super::super::{BindingType, ChannelBindings, ClientBinding, Condition, Password};
use super::keys::{ClientKeys, KeysError, ScramKeys};
use super::message::{BindingFlag, ClientFinal, ClientFirst, ServerFinal, ServerFirst};
use super::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramHash, client, server};
use crate::random::testing::Seeded;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

struct Example {
    hash: ScramHash,
    client_nonce: &'static str,
    server_nonce: &'static str,
    salt: &'static str,
    proof: &'static str,
    verifier: &'static str,
}

/// RFC 5802 §5.
const SHA_1: Example = Example {
    hash: ScramHash::Sha1,
    client_nonce: "fyko+d2lbbFgONRv9qkxdawL",
    server_nonce: "3rfcNHYJY1ZVvWVs7j",
    salt: "QSXCR+Q6sek8bf92",
    proof: "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    verifier: "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
};

/// RFC 7677 §3.
const SHA_256: Example = Example {
    hash: ScramHash::Sha256,
    client_nonce: "rOprNGfwEbeRWgbNEkqO",
    server_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
    proof: "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    verifier: "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
};

/// No RFC has an example: the one of RFC 7677 computed with another implementation (Python's hashlib), which gives the two above.
const SHA_512: Example = Example {
    hash: ScramHash::Sha512,
    proof: "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
    verifier: "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    ..SHA_256
};

fn pencil() -> Password {
    Password::new("pencil").unwrap()
}

fn keys(hash: ScramHash) -> ScramKeys {
    ScramKeys::derive(hash, &pencil(), b"some salt", ITERATIONS_MIN).unwrap()
}

fn said(message: &[u8]) -> &str {
    std::str::from_utf8(message).unwrap()
}

fn check_example(example: &Example) {
    let Example {
        hash,
        client_nonce,
        server_nonce,
        salt,
        proof,
        verifier,
    } = *example;
    let secret = Secret::new(pencil());
    let keys = ScramKeys::derive(hash, &pencil(), &BASE64.decode(salt).unwrap(), 4096).unwrap();

    let (first, client) =
        client::Introduced::with_nonce(hash, "user", ClientBinding::Unsupported, client_nonce.to_owned());
    assert_eq!(said(&first), format!("n,,n=user,r={client_nonce}"));

    let server = server::Introduced::with_nonce(hash, false, &ChannelBindings::none(), &first, server_nonce).unwrap();
    assert_eq!(server.username, "user");
    let (challenge, server) = server.challenge(keys, true);
    assert_eq!(
        said(&challenge),
        format!("r={client_nonce}{server_nonce},s={salt},i=4096")
    );

    let (response, client) = client
        .answer(&challenge, &secret)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        said(&response),
        format!("c=biws,r={client_nonce}{server_nonce},p={proof}")
    );

    let last = server.verify(&response).unwrap();
    assert_eq!(said(&last), format!("v={verifier}"));
    assert!(client.verify(&last).is_ok());
}

#[test]
fn example_of_rfc_5802() {
    check_example(&SHA_1);
}

#[test]
fn example_of_rfc_7677() {
    check_example(&SHA_256);
}

#[test]
fn example_for_sha_512() {
    check_example(&SHA_512);
}

/// The server challenges a client that said `first`, and judges what `last` makes of the challenge.
fn judge(
    keys: ScramKeys,
    known: bool,
    password: &str,
    last: impl FnOnce(String) -> String,
) -> Result<Vec<u8>, Condition> {
    let hash = keys.hash();
    let random = &mut Seeded(1);
    let (first, client) = client::Introduced::new(hash, "user", ClientBinding::Unsupported, random);
    let server = server::Introduced::new(hash, false, &ChannelBindings::none(), &first, random)
        .map_err(|failure| failure.condition)?;
    let (challenge, server) = server.challenge(keys, known);
    let secret = Secret::new(Password::new(password).unwrap());
    let (response, _) = client
        .answer(&challenge, &secret)
        .unwrap_or_else(|error| panic!("{error}"));
    server
        .verify(last(said(&response).to_owned()).as_bytes())
        .map_err(|failure| failure.condition)
}

#[test]
fn the_wrong_password_is_refused() {
    for hash in ScramHash::ALL {
        assert!(judge(keys(hash), true, "pencil", |last| last).is_ok());
        assert_eq!(
            judge(keys(hash), true, "pencils", |last| last),
            Err(Condition::NotAuthorized)
        );
    }
}

#[test]
fn an_unknown_user_is_refused_even_with_fitting_keys() {
    assert_eq!(
        judge(keys(ScramHash::Sha256), false, "pencil", |last| last),
        Err(Condition::NotAuthorized)
    );
}

#[test]
fn the_server_checks_the_whole_final_message() {
    let judged = |last: fn(String) -> String| judge(keys(ScramHash::Sha1), true, "pencil", last).unwrap_err();
    // Another GS2 header than the first message had ("y,,").
    assert_eq!(
        judged(|last| last.replace("c=biws", "c=eSws")),
        Condition::NotAuthorized
    );
    assert_eq!(judged(|last| last.replace(",r=", ",r=x")), Condition::NotAuthorized);
    // The client's own part of the nonce alone.
    assert_eq!(
        judged(|last| last.replacen(&last[last.find(",p=").unwrap() - 24..last.find(",p=").unwrap()], "", 1)),
        Condition::NotAuthorized
    );
    // Something that was not signed.
    assert_eq!(judged(|last| last.replace(",p=", ",x=y,p=")), Condition::NotAuthorized);
    assert_eq!(
        judged(|last| last.replace(",p=", ",m=y,p=")),
        Condition::MalformedRequest
    );
    assert_eq!(
        judged(|last| last[..last.find(",p=").unwrap()].to_owned()),
        Condition::MalformedRequest
    );
    assert_eq!(judged(|last| format!("{last},x=y")), Condition::MalformedRequest);
    assert_eq!(
        judged(|last| format!("{}AA==", &last[..last.find("p=").unwrap() + 2])),
        Condition::NotAuthorized
    );
    assert_eq!(judged(|_| String::new()), Condition::MalformedRequest);
}

#[test]
fn a_first_message_is_parsed_to_the_letter() {
    let parsed = ClientFirst::parse(b"p=tls-exporter,a=romeo@example.net,n=ju=2Cli=3Det,r=abc,x=y").unwrap();
    assert_eq!(
        parsed,
        ClientFirst {
            flag: BindingFlag::Used("tls-exporter"),
            authzid: Some("romeo@example.net".to_owned()),
            username: "ju,li=et".to_owned(),
            nonce: "abc",
            gs2_header: "p=tls-exporter,a=romeo@example.net,",
            bare: "n=ju=2Cli=3Det,r=abc,x=y",
        }
    );
    assert_eq!(
        ClientFirst::parse(b"y,,n=user,r=n").unwrap().flag,
        BindingFlag::NotOffered
    );
}

#[test]
fn a_first_message_against_the_grammar_is_malformed() {
    for message in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,n=,r=nonce",
        "n,,r=nonce,n=user",
        "n,,m=ext,n=user,r=nonce",
        "n,,n=user,r=nonce,m=ext",
        "n,,n=user,r=nonce,x",
        "n,,n=user,r=nonce,x=",
        "n,,n=user,r=nonce,",
        "n,,n=user,r=nonce,r=other",
        "n,,n=user,r=non ce",
        "n,,n=user,r=nonceé",
        "n,,n=us=er,r=nonce",
        "n,,n=us=2cer,r=nonce",
        "n,,n=user=,r=nonce",
        "n,romeo,n=user,r=nonce",
        "n,a=,n=user,r=nonce",
        "N,,n=user,r=nonce",
        "x,,n=user,r=nonce",
        "p,,n=user,r=nonce",
        "p=,,n=user,r=nonce",
        "p=tls unique,,n=user,r=nonce",
        "F,n,,n=user,r=nonce",
        "n,,n=us\0er,r=nonce",
    ] {
        assert!(ClientFirst::parse(message.as_bytes()).is_err(), "{message:?}");
    }
    assert!(ClientFirst::parse(b"n,,n=\xff,r=nonce").is_err());
}

#[test]
fn a_servers_first_message_against_the_grammar_is_malformed() {
    assert!(ServerFirst::parse(b"r=nonce,s=c2FsdA==,i=4096").is_ok());
    assert!(ServerFirst::parse(b"r=nonce,s=c2FsdA==,i=4096,x=y").is_ok());
    for message in [
        "r=nonce,s=c2FsdA==",
        "r=nonce,s=,i=4096",
        "r=nonce,s=c2FsdA,i=4096",
        "r=nonce,s=c2FsdB==,i=4096",
        "r=nonce,s=c2FsdA==,i=0",
        "r=nonce,s=c2FsdA==,i=04096",
        "r=nonce,s=c2FsdA==,i=+4096",
        "r=nonce,s=c2FsdA==,i=-1",
        "r=nonce,s=c2FsdA==,i=",
        "r=nonce,s=c2FsdA==,i=4294967296",
        "m=ext,r=nonce,s=c2FsdA==,i=4096",
        "r=,s=c2FsdA==,i=4096",
        "s=c2FsdA==,r=nonce,i=4096",
        "e=other-error",
    ] {
        assert!(ServerFirst::parse(message.as_bytes()).is_err(), "{message:?}");
    }
}

/// What the client says to a server that answers its first message with `challenge` (where `{}` stands for the client's nonce).
fn challenged(challenge: &str) -> ClientError {
    let (_, client) =
        client::Introduced::with_nonce(ScramHash::Sha1, "user", ClientBinding::Unsupported, "mine".to_owned());
    client
        .answer(challenge.as_bytes(), &Secret::new(pencil()))
        .err()
        .unwrap()
}

#[test]
fn the_client_refuses_nonces_that_do_not_continue_its_own() {
    assert_eq!(challenged("r=mine,s=c2FsdA==,i=4096"), ClientError::Nonce);
    assert_eq!(challenged("r=yours,s=c2FsdA==,i=4096"), ClientError::Nonce);
    assert_eq!(challenged("r=Mine123,s=c2FsdA==,i=4096"), ClientError::Nonce);
}

#[test]
fn the_client_refuses_counts_that_protect_nothing_or_keep_it_busy() {
    let keys = |iterations| ClientError::Keys(KeysError::Iterations { iterations });
    assert_eq!(challenged("r=mine123,s=c2FsdA==,i=4095"), keys(4095));
    assert_eq!(challenged("r=mine123,s=c2FsdA==,i=2000001"), keys(2_000_001));
    assert_eq!(challenged("r=mine123,s=c2FsdA==,i=4294967295"), keys(u32::MAX));
}

#[test]
fn the_client_refuses_a_server_that_does_not_know_the_password() {
    let hash = ScramHash::Sha256;
    let told = |last: &str| {
        let random = &mut Seeded(2);
        let (first, client) = client::Introduced::new(hash, "user", ClientBinding::Unsupported, random);
        let server = server::Introduced::new(hash, false, &ChannelBindings::none(), &first, random).unwrap();
        let (challenge, _) = server.challenge(keys(hash), true);
        let (_, client) = client
            .answer(&challenge, &Secret::new(pencil()))
            .unwrap_or_else(|error| panic!("{error}"));
        client.verify(last.as_bytes()).err().unwrap()
    };
    assert_eq!(
        told(&format!("v={}", BASE64.encode([0; 32]))),
        ClientError::ServerSignature
    );
    assert_eq!(told("v=AA=="), ClientError::ServerSignature);
    assert_eq!(told("e=invalid-proof"), ClientError::Server("invalid-proof".to_owned()));
    assert!(matches!(told(""), ClientError::Malformed(_)));
    assert!(matches!(told("e="), ClientError::Malformed(_)));
}

#[test]
fn kept_keys_are_used_only_when_they_fit() {
    let keys = ClientKeys::derive(ScramHash::Sha1, &pencil(), b"salt", 4096).unwrap();
    assert!(keys.fit(ScramHash::Sha1, b"salt", 4096));
    assert!(!keys.fit(ScramHash::Sha256, b"salt", 4096));
    assert!(!keys.fit(ScramHash::Sha1, b"salz", 4096));
    assert!(!keys.fit(ScramHash::Sha1, b"salt", 4097));
    // Keys of another password in the right place: they are taken, nothing is derived.
    let other = ClientKeys::derive(ScramHash::Sha1, &Password::new("other").unwrap(), b"salt", 4096).unwrap();
    let (_, client) =
        client::Introduced::with_nonce(ScramHash::Sha1, "user", ClientBinding::Unsupported, "mine".to_owned());
    let (with_kept, _) = client
        .answer(b"r=mine123,s=c2FsdA==,i=4096", &Secret::new(pencil()).with_keys(other))
        .unwrap_or_else(|error| panic!("{error}"));
    let (_, client) =
        client::Introduced::with_nonce(ScramHash::Sha1, "user", ClientBinding::Unsupported, "mine".to_owned());
    let (derived, _) = client
        .answer(b"r=mine123,s=c2FsdA==,i=4096", &Secret::new(pencil()).with_keys(keys))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(with_kept, derived);
}

/// One exchange over a channel, seen by each side as it is for it.
fn bound(plus: bool, client_says: ClientBinding<'_>, server_has: &ChannelBindings) -> Result<(), Condition> {
    let hash = ScramHash::Sha256;
    let random = &mut Seeded(3);
    let (first, client) = client::Introduced::new(hash, "user", client_says, random);
    let server =
        server::Introduced::new(hash, plus, server_has, &first, random).map_err(|failure| failure.condition)?;
    let (challenge, server) = server.challenge(keys(hash), true);
    let (response, client) = client
        .answer(&challenge, &Secret::new(pencil()))
        .unwrap_or_else(|error| panic!("{error}"));
    let last = server.verify(&response).map_err(|failure| failure.condition)?;
    assert!(client.verify(&last).is_ok());
    Ok(())
}

/// RFC 5802 §6, and lesson 12 of what other servers went through.
#[test]
fn channel_binding_is_negotiated_as_rfc_5802_says() {
    let none = &ChannelBindings::none();
    let channel = &ChannelBindings::none().with_exporter([7; 32]);
    let exporter = |value| ClientBinding::Bound(BindingType::TlsExporter, value);

    assert_eq!(bound(true, exporter(&[7; 32]), channel), Ok(()));
    assert_eq!(bound(false, ClientBinding::Unsupported, channel), Ok(()));
    assert_eq!(bound(false, ClientBinding::NotOffered, none), Ok(()));
    // Someone sits between the two: each sees another channel.
    assert_eq!(bound(true, exporter(&[8; 32]), channel), Err(Condition::NotAuthorized));
    // Someone cut -PLUS from our list.
    assert_eq!(
        bound(false, ClientBinding::NotOffered, channel),
        Err(Condition::NotAuthorized)
    );
    // A type that this channel does not have.
    assert_eq!(bound(true, exporter(&[7; 32]), none), Err(Condition::NotAuthorized));
    let end_point = ClientBinding::Bound(BindingType::TlsServerEndPoint, b"hash");
    assert_eq!(bound(true, end_point, channel), Err(Condition::NotAuthorized));
    // The flag contradicts the mechanism.
    assert_eq!(
        bound(true, ClientBinding::Unsupported, channel),
        Err(Condition::MalformedRequest)
    );
    assert_eq!(
        bound(true, ClientBinding::NotOffered, none),
        Err(Condition::MalformedRequest)
    );
    assert_eq!(
        bound(false, exporter(&[7; 32]), channel),
        Err(Condition::MalformedRequest)
    );
}

#[test]
fn keys_that_protect_too_little_are_refused() {
    let new = |salt: &[u8], iterations, length| {
        ScramKeys::new(ScramHash::Sha1, salt, iterations, &vec![1; length], &[2; 20]).err()
    };
    assert_eq!(new(b"salt", ITERATIONS_MIN, 20), None);
    assert_eq!(new(b"", ITERATIONS_MIN, 20), Some(KeysError::Salt));
    assert_eq!(new(&[0; 257], ITERATIONS_MIN, 20), Some(KeysError::Salt));
    assert_eq!(new(b"salt", 4095, 20), Some(KeysError::Iterations { iterations: 4095 }));
    assert_eq!(
        new(b"salt", ITERATIONS_MAX + 1, 20),
        Some(KeysError::Iterations {
            iterations: ITERATIONS_MAX + 1
        })
    );
    assert_eq!(
        new(b"salt", ITERATIONS_MIN, 32),
        Some(KeysError::KeyLength { hash: ScramHash::Sha1 })
    );
}

#[test]
fn stored_keys_verify_their_password_alone() {
    let made = ScramKeys::generate(ScramHash::Sha512, &pencil(), &mut Seeded(4));
    assert_eq!(made.iterations(), ITERATIONS_DEFAULT);
    let read = ScramKeys::new(
        made.hash(),
        made.salt(),
        made.iterations(),
        made.stored_key(),
        made.server_key(),
    )
    .unwrap();
    assert!(read.verify(&pencil()));
    assert!(!read.verify(&Password::new("Pencil").unwrap()));
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
        let _ = (ClientFirst::parse(&bytes), ServerFirst::parse(&bytes));
        let _ = (ClientFinal::parse(&bytes), ServerFinal::parse(&bytes));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "[npyamcrsiev=,x€ 0-9]{0,40}") {
        let bytes = text.as_bytes();
        let _ = (ClientFirst::parse(bytes), ServerFirst::parse(bytes));
        let _ = (ClientFinal::parse(bytes), ServerFinal::parse(bytes));
    }

    /// A name arrives as it was, whatever is in it.
    #[test]
    fn quoting_is_undone(username in "[^\0]{1,20}") {
        let (first, _) = client::Introduced::new(
            ScramHash::Sha1, &username, ClientBinding::Unsupported, &mut Seeded(5));
        prop_assert_eq!(ClientFirst::parse(&first).unwrap().username, username);
    }
}
