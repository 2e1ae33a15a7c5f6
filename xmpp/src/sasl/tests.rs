//! Whole exchanges: a client against a server whose accounts are written beside them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::jid::BareJid;
use crate::random::testing::Seeded;

const DOMAIN: &str = "im.example.com";

/// juliet is known, the shard of `nurse` has no leader, nobody else exists.
fn shard(request: &CredentialsRequest) -> Credentials {
    match request.account.as_str() {
        "juliet@im.example.com" => Credentials::Keys {
            keys: juliets(request.hash),
            version: 7,
        },
        // Imported with keys for one hash function.
        "romeo@im.example.com" if request.hash.is_none_or(|hash| hash == ScramHash::Sha1) => Credentials::Keys {
            keys: juliets(Some(ScramHash::Sha1)),
            version: 1,
        },
        "nurse@im.example.com" => Credentials::Unavailable,
        _ => Credentials::UnknownUser,
    }
}

fn juliets(hash: Option<ScramHash>) -> ScramKeys {
    let hash = hash.unwrap_or(ScramHash::Sha256);
    ScramKeys::derive(hash, &password("r0m30myr0m30"), b"juliet's salt", ITERATIONS_MIN).unwrap()
}

fn password(typed: &str) -> Password {
    Password::new(typed).unwrap()
}

fn unknown_users() -> UnknownUsers {
    UnknownUsers::new(b"the cluster's secret", &[ITERATIONS_MIN])
}

/// What came of an exchange: the account and version, or the condition.
type Outcome = Result<(String, u64), Condition>;

/// Goes on from `step` with what the client says to each challenge.
fn settle(
    server: &mut ServerExchange,
    mut step: ServerStep,
    mut respond: impl FnMut(&[u8]) -> Vec<u8>,
) -> (Outcome, Option<Vec<u8>>) {
    loop {
        step = match step {
            ServerStep::AskCredentials(request) => server.credentials(shard(&request), &unknown_users()),
            ServerStep::VerifyPassword(job) => server.password_verified(job.run()),
            ServerStep::Challenge(challenge) => server.receive(&respond(&challenge), &mut Seeded(9)),
            ServerStep::Success {
                account,
                version,
                additional,
            } => {
                return (Ok((account.as_str().to_owned(), version)), additional);
            }
            ServerStep::Failure(failure) => return (Err(failure.condition), None),
        }
    }
}

/// An exchange of a client of ours with the server.
fn exchange(mechanism: Mechanism, username: &str, typed: &str) -> Outcome {
    let bindings = ChannelBindings::none().with_exporter([7; 32]);
    let binding = match mechanism {
        Mechanism::Scram { plus: true, .. } => ClientBinding::Bound(BindingType::TlsExporter, &[7; 32]),
        _ => ClientBinding::Unsupported,
    };
    let secret = Secret::new(password(typed));
    let (mut client, initial) =
        ClientExchange::start(mechanism, username, secret, binding, &mut Seeded(1)).unwrap_or_else(|e| panic!("{e}"));
    let mut server = ServerExchange::new(mechanism, DOMAIN, bindings);
    let step = server.receive(&initial, &mut Seeded(2));
    let (outcome, additional) = settle(&mut server, step, |challenge| {
        client.challenge(challenge).unwrap_or_else(|e| panic!("{e}"))
    });
    if outcome.is_ok() {
        let kept = client.success(additional.as_deref()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(kept.is_some(), mechanism != Mechanism::Plain);
    }
    outcome
}

/// An exchange of PLAIN with a message made by hand.
fn plain(message: &str) -> Outcome {
    let mut server = ServerExchange::new(Mechanism::Plain, DOMAIN, ChannelBindings::none());
    let step = server.receive(message.as_bytes(), &mut Seeded(2));
    settle(&mut server, step, |_| unreachable!("PLAIN has no challenges")).0
}

/// How SCRAM's first message is received.
fn scram_first(message: &str) -> Result<String, Condition> {
    let mut server = ServerExchange::new(Mechanism::scram(ScramHash::Sha1), DOMAIN, ChannelBindings::none());
    match server.receive(message.as_bytes(), &mut Seeded(2)) {
        ServerStep::AskCredentials(request) => Ok(request.account.as_str().to_owned()),
        ServerStep::Failure(failure) => Err(failure.condition),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_mechanism_lets_the_owner_in() {
    for mechanism in Mechanism::ALL {
        let juliet = Ok(("juliet@im.example.com".to_owned(), 7));
        assert_eq!(exchange(mechanism, "juliet", "r0m30myr0m30"), juliet, "{mechanism}");
    }
}

#[test]
fn every_mechanism_refuses_the_wrong_password_and_the_unknown_user_alike() {
    for mechanism in Mechanism::ALL {
        assert_eq!(
            exchange(mechanism, "juliet", "paris"),
            Err(Condition::NotAuthorized),
            "{mechanism}"
        );
        assert_eq!(
            exchange(mechanism, "tybalt", "r0m30myr0m30"),
            Err(Condition::NotAuthorized),
            "{mechanism}"
        );
    }
}

#[test]
fn while_nobody_knows_the_failure_is_temporary() {
    for mechanism in Mechanism::ALL {
        assert_eq!(
            exchange(mechanism, "nurse", "angelica"),
            Err(Condition::TemporaryAuthFailure),
            "{mechanism}"
        );
    }
}

#[test]
fn an_account_with_keys_for_one_hash_gets_in_with_that_one_and_with_plain() {
    let romeo = Ok(("romeo@im.example.com".to_owned(), 1));
    assert_eq!(
        exchange(Mechanism::scram(ScramHash::Sha1), "romeo", "r0m30myr0m30"),
        romeo
    );
    assert_eq!(exchange(Mechanism::Plain, "romeo", "r0m30myr0m30"), romeo);
    let other = exchange(Mechanism::scram(ScramHash::Sha512), "romeo", "r0m30myr0m30");
    assert_eq!(other, Err(Condition::NotAuthorized));
}

#[test]
fn the_name_is_prepared_as_a_localpart() {
    assert_eq!(scram_first("n,,n=Juliet,r=x").as_deref(), Ok("juliet@im.example.com"));
    assert_eq!(
        scram_first("n,,n=juliet@im.example.com,r=x"),
        Err(Condition::NotAuthorized)
    );
    assert_eq!(scram_first("n,,n=a b,r=x"), Err(Condition::NotAuthorized));
    assert_eq!(plain("\0juliet/x\0r0m30myr0m30"), Err(Condition::NotAuthorized));
}

/// Lesson 8 of what other servers went through: log in as one, get the session of another.
#[test]
fn an_authorization_identity_must_be_the_very_same_account() {
    let juliet = Ok(("juliet@im.example.com".to_owned(), 7));
    assert_eq!(plain("juliet@im.example.com\0juliet\0r0m30myr0m30"), juliet);
    assert_eq!(plain("Juliet@IM.example.com\0juliet\0r0m30myr0m30"), juliet);
    for authzid in [
        "romeo@im.example.com",
        "juliet@im.example.com/balcony",
        "juliet@example.com",
        "juliet",
        "im.example.com",
        "@im.example.com",
        " ",
    ] {
        assert_eq!(
            plain(&format!("{authzid}\0juliet\0r0m30myr0m30")),
            Err(Condition::InvalidAuthzid),
            "{authzid:?}"
        );
        assert_eq!(
            scram_first(&format!("n,a={authzid},n=juliet,r=x")),
            Err(Condition::InvalidAuthzid),
            "{authzid:?}"
        );
    }
    assert!(scram_first("n,a=juliet@im.example.com,n=juliet,r=x").is_ok());
}

#[test]
fn the_domain_is_the_streams_whatever_the_client_says() {
    let mut server = ServerExchange::new(Mechanism::Plain, "other.example", ChannelBindings::none());
    let ServerStep::AskCredentials(request) = server.receive(b"\0juliet\0r0m30myr0m30", &mut Seeded(2)) else {
        panic!("credentials are needed");
    };
    assert_eq!(request.account.as_str(), "juliet@other.example");
}

#[test]
fn nothing_goes_on_after_the_end_or_out_of_turn() {
    let mut server = ServerExchange::new(Mechanism::Plain, DOMAIN, ChannelBindings::none());
    let keys = || Credentials::Keys {
        keys: juliets(None),
        version: 7,
    };
    assert!(matches!(
        server.credentials(keys(), &unknown_users()),
        ServerStep::Failure(_)
    ));
    let step = server.receive(b"\0juliet\0r0m30myr0m30", &mut Seeded(2));
    assert!(matches!(step, ServerStep::Failure(_)), "the exchange was over");

    let mut server = ServerExchange::new(Mechanism::scram(ScramHash::Sha1), DOMAIN, ChannelBindings::none());
    assert!(matches!(
        server.receive(b"n,,n=juliet,r=x", &mut Seeded(2)),
        ServerStep::AskCredentials(_)
    ));
    assert!(matches!(
        server.receive(b"n,,n=juliet,r=x", &mut Seeded(2)),
        ServerStep::Failure(_)
    ));
    assert!(matches!(
        server.credentials(keys(), &unknown_users()),
        ServerStep::Failure(_)
    ));
}

#[test]
fn a_client_does_not_believe_a_success_without_proof() {
    let start = |mechanism| {
        let secret = Secret::new(password("r0m30myr0m30"));
        ClientExchange::start(mechanism, "juliet", secret, ClientBinding::Unsupported, &mut Seeded(1))
            .unwrap_or_else(|e| panic!("{e}"))
            .0
    };
    let scram = Mechanism::scram(ScramHash::Sha256);
    assert_eq!(start(scram).success(None).err(), Some(ClientError::ServerSignature));
    assert_eq!(
        start(scram).success(Some(b"v=AAAA")).err(),
        Some(ClientError::ServerSignature)
    );
    assert_eq!(
        start(Mechanism::Plain).challenge(b"").err(),
        Some(ClientError::OutOfOrder)
    );
    assert!(start(Mechanism::Plain).success(None).is_ok());
}

#[test]
fn a_plus_mechanism_and_a_binding_go_together() {
    let start = |mechanism, binding| {
        ClientExchange::start(mechanism, "juliet", Secret::new(password("x")), binding, &mut Seeded(1)).err()
    };
    let hash = ScramHash::Sha1;
    assert_eq!(
        start(Mechanism::scram_plus(hash), ClientBinding::Unsupported),
        Some(ClientError::Binding)
    );
    let bound = ClientBinding::Bound(BindingType::TlsExporter, &[1; 32]);
    assert_eq!(start(Mechanism::scram(hash), bound), Some(ClientError::Binding));
}

/// Lesson 18: a password in a log.
#[test]
fn secrets_show_nothing_of_themselves() {
    let password = password("r0m30myr0m30");
    let client_keys = ClientKeys::derive(ScramHash::Sha1, &password, b"salt", ITERATIONS_MIN).unwrap();
    let keys = client_keys.server_side();
    let secret = Secret::new(password.clone()).with_keys(client_keys);
    assert_eq!(format!("{keys:?}"), "ScramKeys { hash: Sha1, .. }");
    assert_eq!(format!("{password:?}"), "Password { .. }");
    assert_eq!(
        format!("{secret:?}"),
        "Secret { password: Password { .. }, kept: Some(ClientKeys { .. }) }"
    );
}

#[test]
fn the_same_stranger_always_gets_the_same_salt() {
    let tybalt = BareJid::new(Some("tybalt"), DOMAIN).unwrap();
    let (one, two) = (
        unknown_users().keys(&tybalt, ScramHash::Sha1),
        unknown_users().keys(&tybalt, ScramHash::Sha1),
    );
    assert_eq!((one.salt(), one.iterations()), (two.salt(), two.iterations()));
    assert_eq!(one.salt().len(), scram::SALT_BYTES);
}

#[test]
fn nodes_that_have_agreed_on_a_secret_say_the_same_of_whoever_does_not_exist() {
    let tybalt = BareJid::new(Some("tybalt"), DOMAIN).unwrap();
    let nodes = [b"the one's", b"another's"].map(|secret| UnknownUsers::new(secret, &[]));
    let salts = || {
        nodes
            .each_ref()
            .map(|node| node.keys(&tybalt, ScramHash::Sha256).salt().to_vec())
    };
    assert_ne!(salts()[0], salts()[1]);
    for node in &nodes {
        node.agree(b"the cluster's");
    }
    assert_eq!(salts()[0], salts()[1]);
    let agreed = salts();
    nodes[0].agree(b"a later one");
    assert_eq!(salts(), agreed);
}

#[test]
fn another_name_hash_or_cluster_gives_another_salt() {
    let tybalt = BareJid::new(Some("tybalt"), DOMAIN).unwrap();
    let mercutio = BareJid::new(Some("mercutio"), DOMAIN).unwrap();
    let salt = |users: UnknownUsers, account: &BareJid, hash| users.keys(account, hash).salt().to_vec();
    let salts = [
        salt(unknown_users(), &tybalt, ScramHash::Sha1),
        salt(unknown_users(), &tybalt, ScramHash::Sha256),
        salt(unknown_users(), &mercutio, ScramHash::Sha1),
        salt(
            UnknownUsers::new(b"another cluster's secret", &[]),
            &tybalt,
            ScramHash::Sha1,
        ),
    ];
    for (at, one) in salts.iter().enumerate() {
        assert!(salts[at + 1..].iter().all(|other| other != one));
    }
}

#[test]
fn counts_of_strangers_are_those_of_real_accounts() {
    let users = UnknownUsers::new(b"secret", &[4096, 10_000]);
    let count = |name: String| {
        users
            .keys(&BareJid::new(Some(&name), DOMAIN).unwrap(), ScramHash::Sha1)
            .iterations()
    };
    let counts: Vec<_> = (0..64).map(|number| count(format!("user{number}"))).collect();
    assert!(counts.contains(&4096) && counts.contains(&10_000));
    assert!(counts.iter().all(|count| [4096, 10_000].contains(count)));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_an_exchange_panic(messages: Vec<Vec<u8>>, at in 0..7_usize) {
        let mut server = ServerExchange::new(Mechanism::ALL[at], DOMAIN, ChannelBindings::none());
        for message in messages {
            if let ServerStep::AskCredentials(_) = server.receive(&message, &mut Seeded(1)) {
                let _ = server.credentials(Credentials::UnknownUser, &unknown_users());
            }
        }
    }
}

/// Lesson 11: who has an account cannot be told from the work that is done for it.
#[test]
fn a_password_costs_the_same_whether_or_not_there_is_such_a_user() {
    let strongest = |request: &CredentialsRequest| match request.account.local() {
        Some("juliet") => Credentials::Keys {
            keys: juliets(Some(ScramHash::Sha512)),
            version: 7,
        },
        _ => Credentials::UnknownUser,
    };
    let unknown_users = unknown_users().with_plain_hash(ScramHash::Sha512);
    let cost = |user: &str| {
        let mut server = ServerExchange::new(Mechanism::Plain, DOMAIN, ChannelBindings::none());
        let message = format!("\0{user}\0r0m30myr0m30");
        let ServerStep::AskCredentials(request) = server.receive(message.as_bytes(), &mut Seeded(2)) else {
            panic!("nobody is asked");
        };
        match server.credentials(strongest(&request), &unknown_users) {
            ServerStep::VerifyPassword(job) => job.cost(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(cost("juliet"), (ScramHash::Sha512, ITERATIONS_MIN));
    assert_eq!(cost("tybalt"), cost("juliet"));
}

/// Lesson 11: nor from the questions that are asked. What differs is random for both.
#[test]
fn an_exchange_with_an_unknown_user_has_the_same_steps_and_looks_the_same() {
    for hash in ScramHash::ALL {
        let transcript = |user: &str| {
            let mut server = ServerExchange::new(Mechanism::scram(hash), DOMAIN, ChannelBindings::none());
            let first = format!("n,,n={user},r=nonce");
            let mut seen = Vec::new();
            let mut step = server.receive(first.as_bytes(), &mut Seeded(2));
            loop {
                step = match step {
                    ServerStep::AskCredentials(request) => {
                        seen.push("credentials".to_owned());
                        server.credentials(shard(&request), &unknown_users())
                    }
                    ServerStep::Challenge(challenge) => {
                        let challenge = String::from_utf8(challenge).unwrap();
                        let parts: Vec<&str> = challenge.split(',').collect();
                        assert!(parts[1].starts_with("s="), "{challenge}");
                        seen.push(format!("{} {}", parts[0], parts[2]));
                        let proof = BASE64.encode(vec![0; hash.output_bytes()]);
                        let last = format!("c=biws,{},p={proof}", parts[0]);
                        server.receive(last.as_bytes(), &mut Seeded(9))
                    }
                    ServerStep::Failure(failure) => {
                        seen.push(failure.to_string());
                        return seen;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let known = transcript("juliet");
        assert_eq!(known.len(), 3, "{known:?}");
        assert_eq!(transcript("tybalt"), known);
    }
}

/// Lesson 11: the salt of somebody who does not exist is the same whoever is asked and however often.
#[test]
fn a_fake_salt_is_stable_and_different_for_each_name() {
    let keys = |secret: &[u8], user: &str| {
        let account = BareJid::new(Some(user), DOMAIN).unwrap();
        UnknownUsers::new(secret, &[]).keys(&account, ScramHash::Sha256)
    };
    let tybalt = keys(b"the cluster's secret", "tybalt");
    assert_eq!(tybalt.salt(), keys(b"the cluster's secret", "TYBALT").salt());
    assert_eq!(tybalt.iterations(), ITERATIONS_DEFAULT);
    assert_eq!(tybalt.salt().len(), super::scram::SALT_BYTES);
    assert_ne!(tybalt.salt(), keys(b"the cluster's secret", "mercutio").salt());
    assert_ne!(tybalt.salt(), keys(b"another secret", "tybalt").salt());
}
