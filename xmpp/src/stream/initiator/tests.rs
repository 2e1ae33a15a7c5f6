//! A client of ours against a server of ours, in memory; and against servers that are not as they should be.

use std::sync::Arc;

use super::*;
use crate::random::testing::Seeded;
use crate::sasl::{Credentials, CredentialsRequest, ITERATIONS_MIN, Password, ScramHash, ScramKeys, UnknownUsers};
use crate::stanza::Condition as StanzaCondition;
use crate::stream::{Output, Responder, ResponderConfig, TlsPolicy};
use crate::xml::Framer;

const PASSWORD: &str = "r0m30myr0m30";

fn client(typed: &str) -> InitiatorConfig {
    let account = BareJid::parse("juliet@im.example.com").unwrap();
    InitiatorConfig::new(account, Secret::new(Password::new(typed).unwrap()))
}

fn server() -> ResponderConfig {
    let unknown_users = UnknownUsers::new(b"cluster secret", &[ITERATIONS_MIN]);
    ResponderConfig::new(vec![BareJid::parse("im.example.com").unwrap()], unknown_users)
}

/// The channel as each side sees it; they differ when somebody sits between.
#[derive(Clone, Default)]
struct Channel {
    client: ChannelBindings,
    server: ChannelBindings,
}

/// What stands behind the server.
struct Shard {
    /// juliet's keys are for these.
    hashes: Vec<ScramHash>,
    /// Her session that can be resumed.
    session: Option<(&'static str, sm::Counter)>,
    available: bool,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            hashes: ScramHash::ALL.to_vec(),
            session: None,
            available: true,
        }
    }
}

impl Shard {
    fn credentials(&self, request: &CredentialsRequest) -> Credentials {
        if !self.available {
            return Credentials::Unavailable;
        }
        let hash = request.hash.unwrap_or(self.hashes[0]);
        if request.account.as_str() != "juliet@im.example.com" || !self.hashes.contains(&hash) {
            return Credentials::UnknownUser;
        }
        let keys = ScramKeys::derive(hash, &Password::new(PASSWORD).unwrap(), b"salt", ITERATIONS_MIN).unwrap();
        Credentials::Keys { keys, version: 1 }
    }
}

/// Both machines and the wire between them.
struct Pair {
    client: Initiator,
    server: Option<Box<Responder>>,
    shard: Shard,
    channel: Channel,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    server_framer: Framer,
    client_framer: Framer,
    random: Seeded,
    /// What the client came to.
    outcome: Vec<String>,
    failed: Option<InitiatorError>,
}

impl Pair {
    fn new(client: InitiatorConfig, server: ResponderConfig, shard: Shard, channel: Channel, direct_tls: bool) -> Self {
        let tls = |bindings: &ChannelBindings| direct_tls.then(|| bindings.clone());
        let client = Initiator::new(client, tls(&channel.client));
        Self {
            to_server: client.start(),
            client,
            server: Some(Responder::new(Arc::new(server), tls(&channel.server))),
            shard,
            channel,
            to_client: Vec::new(),
            server_framer: Framer::new(),
            client_framer: Framer::new(),
            random: Seeded(1),
            outcome: Vec::new(),
            failed: None,
        }
    }

    /// Until neither has anything to say. After binding somebody answers `<enable/>`.
    fn run(mut self) -> Result<String, InitiatorError> {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.serve();
            self.listen();
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.outcome.join(" ")),
        }
    }

    fn serve(&mut self) {
        let bytes = std::mem::take(&mut self.to_server);
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            let Some(server) = &mut self.server else {
                assert_eq!(bytes, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
                let enabled = sm::Enabled {
                    id: Some("id".into()),
                    resume: true,
                    ..sm::Enabled::default()
                };
                self.to_client
                    .extend_from_slice(b"<presence from='romeo@example.net'/>");
                self.to_client.extend_from_slice(&Nonza::Enabled(enabled).to_bytes());
                return;
            };
            let Some(frame) = self.server_framer.next(&mut input, server.limits()).unwrap() else {
                return;
            };
            let outputs = server.frame(frame, &mut self.random);
            self.perform(outputs);
        }
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Some(mut server) = self.server.take() else { return };
            let more = match output {
                Output::Send(bytes) => {
                    self.to_client.extend_from_slice(&bytes);
                    Vec::new()
                }
                Output::StartTls => {
                    self.server_framer.restart();
                    server.tls_established(self.channel.server.clone());
                    Vec::new()
                }
                Output::AskCredentials(request) => {
                    server.credentials(self.shard.credentials(&request), &mut self.random)
                }
                Output::VerifyPassword(job) => server.password_verified(job.run(), &mut self.random),
                Output::Register(_) => server.registered(Err(StanzaError::conflict()), &mut self.random),
                Output::Authenticated { .. } | Output::NotAuthenticated(_) | Output::Close(_) => Vec::new(),
                Output::Restart => {
                    self.server_framer.restart();
                    Vec::new()
                }
                Output::Bind(request) if request.jid.resource() == "taken" => {
                    server.bind_refused(&StanzaError::conflict(), &mut self.random)
                }
                Output::Bind(request) => {
                    self.to_client.extend_from_slice(&server.bound(&request.jid).send);
                    return;
                }
                Output::Resume(request) => match self.shard.session {
                    Some((id, h)) if *id == *request.previd => {
                        self.to_client.extend_from_slice(&server.resumed(h).send);
                        return;
                    }
                    _ => server.resume_refused(StanzaCondition::ItemNotFound.into()),
                },
            };
            self.server = Some(server);
            self.perform(more);
        }
    }

    fn listen(&mut self) {
        let bytes = std::mem::take(&mut self.to_client);
        let mut input = bytes.as_slice();
        while let Some(frame) = self.client_framer.next(&mut input, &Limits::after_auth()).unwrap() {
            let outputs = self.client.frame(frame, &mut self.random);
            self.take(outputs);
        }
    }

    fn take(&mut self, outputs: Outputs) {
        for output in outputs {
            match output {
                InitiatorOutput::Send(bytes) => self.to_server.extend_from_slice(&bytes),
                InitiatorOutput::StartTls => {
                    self.outcome.push("tls".to_owned());
                    self.client_framer.restart();
                    let outputs = self.client.tls_established(self.channel.client.clone());
                    self.take(outputs);
                }
                InitiatorOutput::Restart => self.client_framer.restart(),
                InitiatorOutput::Authenticated { mechanism, keys } => {
                    assert_eq!(keys.is_some(), mechanism != Mechanism::Plain);
                    self.outcome.push(mechanism.name().to_owned());
                }
                InitiatorOutput::Features(features) => assert!(features.bind),
                InitiatorOutput::Bound(jid) => self.outcome.push(jid.as_str().to_owned()),
                InitiatorOutput::Resumed(resumed) => self.outcome.push(format!("resumed {}", resumed.h)),
                InitiatorOutput::NotResumed(_) => self.outcome.push("not resumed".to_owned()),
                InitiatorOutput::Enabled(enabled) => {
                    self.outcome.push(format!("enabled {}", enabled.id.unwrap_or_default()));
                }
                InitiatorOutput::NotEnabled(_) => self.outcome.push("not enabled".to_owned()),
                InitiatorOutput::Stanza(_) => self.outcome.push("stanza".to_owned()),
                InitiatorOutput::Established { .. } => self.outcome.push("established".to_owned()),
                InitiatorOutput::Failed(error) => self.failed = Some(error),
            }
        }
    }
}

/// A client that wants this against a server that is thus, behind STARTTLS without channel bindings.
fn meet(
    want: impl FnOnce(&mut InitiatorConfig),
    thus: impl FnOnce(&mut ResponderConfig),
) -> Result<String, InitiatorError> {
    let (mut client, mut server) = (client(PASSWORD), server());
    client.resource = Some("balcony".to_owned());
    want(&mut client);
    thus(&mut server);
    Pair::new(client, server, Shard::default(), Channel::default(), false).run()
}

fn one(mechanism: Mechanism) -> impl FnOnce(&mut ResponderConfig) {
    move |config| config.mechanisms = vec![mechanism]
}

const IN: &str = "juliet@im.example.com/balcony stanza enabled id established";

#[test]
fn every_mechanism_gets_its_owner_in() {
    let bindings = ChannelBindings::none().with_exporter([7; 32]);
    for mechanism in Mechanism::ALL {
        for direct_tls in [true, false] {
            let mut client = client(PASSWORD);
            client.resource = Some("balcony".to_owned());
            let mut server = server();
            server.mechanisms = vec![mechanism];
            let channel = Channel {
                client: bindings.clone(),
                server: bindings.clone(),
            };
            let tls = if direct_tls { "" } else { "tls " };
            // A client that has a channel binding and sees no -PLUS says so, and this server does not have it either.
            let outcome = Pair::new(client, server, Shard::default(), channel, direct_tls).run();
            assert_eq!(outcome, Ok(format!("{tls}{} {IN}", mechanism.name())));
        }
    }
}

#[test]
fn the_strongest_is_chosen() {
    assert_eq!(meet(|_| {}, |_| {}), Ok(format!("tls SCRAM-SHA-512 {IN}")));
    let only = [
        Mechanism::Plain,
        Mechanism::scram(ScramHash::Sha256),
        Mechanism::scram(ScramHash::Sha1),
    ];
    assert_eq!(
        meet(|client| client.mechanisms = only.to_vec(), |_| {}),
        Ok(format!("tls SCRAM-SHA-256 {IN}"))
    );
    let bindings = ChannelBindings::none().with_exporter([7; 32]);
    let channel = Channel {
        client: bindings.clone(),
        server: bindings,
    };
    let outcome = Pair::new(client(PASSWORD), server(), Shard::default(), channel, true)
        .run()
        .unwrap();
    assert!(outcome.starts_with("SCRAM-SHA-512-PLUS "), "{outcome}");
}

#[test]
fn the_wrong_password_is_refused_by_every_mechanism() {
    let bindings = ChannelBindings::none().with_exporter([7; 32]);
    for mechanism in Mechanism::ALL {
        let mut server = server();
        server.mechanisms = vec![mechanism];
        let channel = Channel {
            client: bindings.clone(),
            server: bindings.clone(),
        };
        let outcome = Pair::new(client("paris"), server, Shard::default(), channel, true).run();
        let failure = Condition::NotAuthorized.into();
        assert_eq!(outcome, Err(InitiatorError::Authentication { mechanism, failure }));
    }
}

#[test]
fn somebody_in_the_middle_is_found_out_by_channel_binding() {
    let channel = Channel {
        client: ChannelBindings::none().with_exporter([1; 32]),
        server: ChannelBindings::none().with_exporter([2; 32]),
    };
    let outcome = Pair::new(client(PASSWORD), server(), Shard::default(), channel, true).run();
    assert!(
        matches!(outcome, Err(InitiatorError::Authentication { .. })),
        "{outcome:?}"
    );
}

#[test]
fn an_account_with_keys_for_one_hash_gets_in_on_the_second_or_third_try() {
    for (hash, mechanism) in [(ScramHash::Sha1, "SCRAM-SHA-1"), (ScramHash::Sha256, "SCRAM-SHA-256")] {
        let shard = Shard {
            hashes: vec![hash],
            ..Shard::default()
        };
        let outcome = Pair::new(client(PASSWORD), server(), shard, Channel::default(), false)
            .run()
            .unwrap();
        assert!(outcome.starts_with(&format!("tls {mechanism} ")), "{outcome}");
    }
}

#[test]
fn a_shard_without_leader_is_a_temporary_failure_and_nothing_else_is_tried() {
    let shard = Shard {
        available: false,
        ..Shard::default()
    };
    let outcome = Pair::new(client(PASSWORD), server(), shard, Channel::default(), false).run();
    let mechanism = Mechanism::scram(ScramHash::Sha512);
    let failure = Condition::TemporaryAuthFailure.into();
    assert_eq!(outcome, Err(InitiatorError::Authentication { mechanism, failure }));
}

#[test]
fn tls_is_a_matter_of_both_sides() {
    let never = |client: &mut InitiatorConfig| client.tls = TlsDemand::Never;
    let if_offered = |client: &mut InitiatorConfig| client.tls = TlsDemand::IfOffered;
    let off = |server: &mut ResponderConfig| server.tls = TlsPolicy::Off;
    let optional = |server: &mut ResponderConfig| server.tls = TlsPolicy::Optional;
    assert_eq!(meet(|_| {}, off), Err(InitiatorError::TlsNotOffered));
    assert_eq!(meet(never, |_| {}), Err(InitiatorError::TlsRequired));
    assert_eq!(meet(never, optional), Ok(format!("SCRAM-SHA-512 {IN}")));
    assert_eq!(meet(if_offered, off), Ok(format!("SCRAM-SHA-512 {IN}")));
    assert_eq!(meet(if_offered, optional), Ok(format!("tls SCRAM-SHA-512 {IN}")));
    assert_eq!(meet(|_| {}, optional), Ok(format!("tls SCRAM-SHA-512 {IN}")));
}

#[test]
fn plain_is_not_said_in_the_clear_even_where_the_server_would_take_it() {
    let outcome = meet(
        |client| client.tls = TlsDemand::Never,
        |server| {
            server.tls = TlsPolicy::Off;
            server.plain_without_tls = true;
            server.mechanisms = vec![Mechanism::Plain];
        },
    );
    assert_eq!(
        outcome,
        Err(InitiatorError::NoMechanism {
            offered: vec!["PLAIN".to_owned()]
        })
    );
    assert_eq!(meet(|_| {}, one(Mechanism::Plain)), Ok(format!("tls PLAIN {IN}")));
}

#[test]
fn another_host_is_an_error_of_the_stream() {
    let outcome = meet(
        |client| client.account = BareJid::parse("juliet@example.net").unwrap(),
        |_| {},
    );
    assert_eq!(outcome, Err(InitiatorError::Stream(StreamError::host_unknown())));
}

#[test]
fn a_resource_can_be_refused() {
    let outcome = meet(|client| client.resource = Some("taken".to_owned()), |_| {});
    assert_eq!(outcome, Err(InitiatorError::Bind(StanzaError::conflict())));
}

#[test]
fn a_session_is_resumed_or_a_new_one_bound() {
    let resume = |previd: &str| {
        Some(sm::Resume {
            previd: previd.into(),
            h: sm::Counter(3),
        })
    };
    let outcome = |previd| {
        let shard = Shard {
            session: Some(("earlier", sm::Counter(5))),
            ..Shard::default()
        };
        let mut client = client(PASSWORD);
        client.resource = Some("balcony".to_owned());
        client.resume = resume(previd);
        Pair::new(client, server(), shard, Channel::default(), false).run()
    };
    assert_eq!(
        outcome("earlier"),
        Ok("tls SCRAM-SHA-512 resumed 5 established".to_owned())
    );
    assert_eq!(outcome("forgotten"), Ok(format!("tls SCRAM-SHA-512 not resumed {IN}")));
    // Nobody asks a server that does not offer it.
    let without = meet(
        |client| client.resume = resume("earlier"),
        |server| server.management = false,
    );
    assert_eq!(
        without,
        Ok("tls SCRAM-SHA-512 juliet@im.example.com/balcony established".to_owned())
    );
}

#[test]
fn kept_keys_get_in_as_the_password_does() {
    let salt = b"salt";
    let hash = ScramHash::Sha512;
    let keys = ClientKeys::derive(hash, &Password::new(PASSWORD).unwrap(), salt, ITERATIONS_MIN).unwrap();
    // The password beside them is wrong: had it been used, it would show.
    let outcome = meet(
        |client| client.secret = Secret::new(Password::new("paris").unwrap()).with_keys(keys),
        |_| {},
    );
    assert_eq!(outcome, Ok(format!("tls SCRAM-SHA-512 {IN}")));
}

/// A server that is read from a script.
struct Scripted {
    client: Initiator,
    framer: Framer,
}

const HEADER: &str = "<stream:stream from='im.example.com' id='x' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
const BIND_FEATURE: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";

impl Scripted {
    /// TLS is there.
    fn new() -> Self {
        let mut config = client(PASSWORD);
        config.management = None;
        Self {
            client: Initiator::new(config, Some(ChannelBindings::none())),
            framer: Framer::new(),
        }
    }

    /// Authenticated with PLAIN.
    fn authenticated(features: &str) -> (Self, String) {
        let mut script = Self::new();
        let auth = script.hear(&format!("{HEADER}{}", mechanisms("PLAIN")));
        assert!(
            auth.starts_with("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"),
            "{auth}"
        );
        let success = script.hear("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        assert!(
            success.contains(" from='juliet@im.example.com' to='im.example.com' version='1.0'"),
            "{success}"
        );
        let next = script.hear(&format!("{HEADER}<stream:features>{features}</stream:features>"));
        (script, next)
    }

    /// The server says this; what does the client say and come to?
    fn hear(&mut self, xml: &str) -> String {
        let mut input = xml.as_bytes();
        let mut said = String::new();
        loop {
            let outputs = match self.framer.next(&mut input, &Limits::after_auth()) {
                Ok(Some(frame)) => self.client.frame(frame, &mut Seeded(1)),
                Ok(None) => return said,
                Err(error) => {
                    let outputs = self.client.broken(error);
                    input = &[];
                    self.framer.restart();
                    outputs
                }
            };
            for output in outputs {
                match output {
                    InitiatorOutput::Send(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
                    InitiatorOutput::Restart => self.framer.restart(),
                    InitiatorOutput::Features(_) | InitiatorOutput::Authenticated { .. } => {}
                    InitiatorOutput::Bound(jid) => said.push_str(&format!("[{}]", jid.as_str())),
                    InitiatorOutput::Established { .. } => said.push_str("[established]"),
                    InitiatorOutput::Failed(error) => said.push_str(&format!("[{error}]")),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn mechanisms(name: &str) -> String {
    format!(
        "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>{name}</mechanism>\
         </mechanisms></stream:features>"
    )
}

#[test]
fn an_impostor_is_found_out_before_anything_is_sent_to_it() {
    let mut script = Scripted::new();
    assert!(
        script
            .hear(&format!("{HEADER}{}", mechanisms("SCRAM-SHA-1")))
            .starts_with("<auth ")
    );
    let said = script.hear("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(said, "</stream:stream>[the server does not know the password]");

    let mut script = Scripted::new();
    script.hear(&format!("{HEADER}{}", mechanisms("SCRAM-SHA-1")));
    // r=x,s=AA==,i=4096
    let said = script.hear("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>cj14LHM9QUE9PSxpPTQwOTY=</challenge>");
    assert_eq!(said, "</stream:stream>[the server's nonce does not continue ours]");
}

#[test]
fn a_server_from_before_xmpp_1_0_is_left() {
    let said = Scripted::new().hear(&HEADER.replace(" version='1.0'", ""));
    assert!(said.contains("<unsupported-version "), "{said}");
}

#[test]
fn an_old_server_gets_its_session_request() {
    let features = format!("{BIND_FEATURE}<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>");
    let (mut script, said) = Scripted::authenticated(&features);
    assert_eq!(
        said,
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
    );
    let said = script.hear(
        "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@im.example.com/x</jid>\
         </bind></iq>",
    );
    assert_eq!(
        said,
        "[juliet@im.example.com/x]<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>"
    );
    assert_eq!(script.hear("<iq type='result' id='session'/>"), "[established]");
}

#[test]
fn a_newer_server_does_not() {
    let features = format!("{BIND_FEATURE}<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>");
    let (mut script, _) = Scripted::authenticated(&features);
    let said = script.hear(
        "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@im.example.com/x</jid>\
         </bind></iq>",
    );
    assert_eq!(said, "[juliet@im.example.com/x][established]");
}

#[test]
fn what_is_not_due_ends_the_stream() {
    let (mut script, _) = Scripted::authenticated(BIND_FEATURE);
    assert!(
        script
            .hear("<enabled xmlns='urn:xmpp:sm:3'/>")
            .contains("<unsupported-stanza-type ")
    );
    let (mut script, _) = Scripted::authenticated(BIND_FEATURE);
    assert!(
        script
            .hear("<iq type='result' id='bind'/>")
            .ends_with("[the server sent a bind result without an address]")
    );
    assert_eq!(
        Scripted::authenticated("").1,
        "</stream:stream>[the server does not offer resource binding]"
    );
    let said = Scripted::new().hear(&format!("{HEADER}</stream:stream>"));
    assert_eq!(said, "</stream:stream>[the server closed the stream]");
    let said = Scripted::new().hear("HTTP/1.1 400 Bad Request");
    assert!(said.contains("<not-well-formed "), "{said}");
}

#[test]
fn a_redirection_says_where() {
    let said = Scripted::new().hear(&format!(
        "{HEADER}<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>a.example:5222\
         </see-other-host></stream:error></stream:stream>"
    ));
    assert_eq!(
        said,
        "</stream:stream>[the server ended the stream: see-other-host a.example:5222]"
    );
}

#[test]
fn the_caller_gives_up_once() {
    let mut client = Initiator::new(client(PASSWORD), None);
    let outputs = client.abort(StreamError::connection_timeout());
    assert!(matches!(
        outputs[..],
        [
            InitiatorOutput::Send(_),
            InitiatorOutput::Failed(InitiatorError::Aborted(_))
        ]
    ));
    assert!(client.abort(StreamError::connection_timeout()).is_empty());
    assert!(client.frame(Frame::Close, &mut Seeded(1)).is_empty());
}

#[test]
fn nobody_is_named_in_the_clear() {
    let header = |tls| String::from_utf8(Initiator::new(client(PASSWORD), tls).start()).unwrap();
    assert!(!header(None).contains("juliet"));
    assert!(header(Some(ChannelBindings::none())).contains(" from='juliet@im.example.com' "));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_an_initiator_panic(
        heard in proptest::collection::vec(proptest::prelude::prop_oneof![
            proptest::prelude::Just(HEADER.to_owned()),
            proptest::prelude::Just(mechanisms("SCRAM-SHA-1")),
            proptest::prelude::Just(format!("<stream:features>{BIND_FEATURE}</stream:features>")),
            proptest::prelude::Just("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AAAA</challenge>".to_owned()),
            proptest::prelude::Just("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AAAA</success>".to_owned()),
            proptest::prelude::Just("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned()),
            "[a-z<>/='\" :!?&;]{0,30}",
        ], 0..8),
    ) {
        let mut script = Scripted::new();
        let mut ends = 0;
        for xml in heard {
            ends += script.hear(&xml).matches("</stream:stream>").count();
        }
        proptest::prop_assert!(ends <= 1);
    }
}
