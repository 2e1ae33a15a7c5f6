//! Conversations: what a client says, and what it hears.

mod authentication;
mod binding;
mod registration;
mod starttls;
mod stream_management;

use std::sync::Arc;

use super::*;
use crate::random::testing::Seeded;
use crate::sasl::{ITERATIONS_MIN, Password, ScramHash, ScramKeys, UnknownUsers};
use crate::stanza::StanzaError;
use crate::xml::Framer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='im.example.com' version='1.0' xml:lang='en' \
                    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const HEADER: &str = "<?xml version='1.0'?><stream:stream from='im.example.com' id='ID' version='1.0' xml:lang='en' \
                      xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>[StartTls]";
const BIND: &str = "<iq id='tn281v37' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
const BOUND_FEATURES: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><session \
     xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
     <ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/><csi xmlns='urn:xmpp:csi:0'/>\
     <sm xmlns='urn:xmpp:sm:3'/></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";

/// One client and what stands behind the responder: juliet's account, a nurse whose shard is not there, nobody else.
struct Talk {
    responder: Option<Box<Responder>>,
    framer: Framer,
    random: Seeded,
    /// What the caller answers when asked to bind.
    refuse_bind: Option<StanzaError>,
    /// What the caller answers when asked to resume.
    session: Option<sm::Counter>,
}

impl Talk {
    fn new(tls: Option<ChannelBindings>, configure: impl FnOnce(&mut ResponderConfig)) -> Self {
        let domains = ["im.example.com", "other.example"].map(|domain| BareJid::parse(domain).unwrap());
        let unknown_users = UnknownUsers::new(b"cluster secret", &[ITERATIONS_MIN]);
        let mut config = ResponderConfig::new(domains.to_vec(), unknown_users);
        config.mechanisms = vec![Mechanism::scram(ScramHash::Sha1), Mechanism::Plain];
        configure(&mut config);
        Self {
            responder: Some(Responder::new(Arc::new(config), tls)),
            framer: Framer::new(),
            random: Seeded(1),
            refuse_bind: None,
            session: None,
        }
    }

    /// TLS is required and not there yet.
    fn clear() -> Self {
        Self::new(None, |_| {})
    }

    /// TLS is optional and not there.
    fn optional() -> Self {
        Self::new(None, |config| config.tls = TlsPolicy::Optional)
    }

    /// TLS is there.
    fn secure() -> Self {
        Self::new(Some(ChannelBindings::none()), |_| {})
    }

    /// TLS is there and juliet has authenticated.
    fn authenticated() -> Self {
        let mut talk = Self::secure();
        talk.say(OPEN);
        assert_eq!(
            talk.say(&plain("juliet", "r0m30myr0m30")),
            format!("{SUCCESS}[juliet@im.example.com][Restart]")
        );
        assert_eq!(talk.say(OPEN), format!("{HEADER}{BOUND_FEATURES}"));
        talk
    }

    /// The client says this; what does it hear? Things done without a word are in brackets.
    fn say(&mut self, xml: &str) -> String {
        let mut heard = String::new();
        let mut input = xml.as_bytes();
        loop {
            let Some(responder) = &mut self.responder else {
                return heard;
            };
            match self.framer.next(&mut input, responder.limits()) {
                Ok(Some(frame)) => {
                    let outputs = responder.frame(frame, &mut self.random);
                    self.perform(outputs, &mut heard);
                }
                Ok(None) => return heard,
                Err(error) => {
                    let outputs = responder.error(error.into(), &mut self.random);
                    self.perform(outputs, &mut heard);
                    return heard;
                }
            }
        }
    }

    fn perform(&mut self, outputs: Vec<Output>, heard: &mut String) {
        for output in outputs {
            let Some(mut responder) = self.responder.take() else {
                panic!("nothing comes after the end")
            };
            let more = match output {
                Output::Send(bytes) => {
                    heard.push_str(&without_id(std::str::from_utf8(&bytes).unwrap()));
                    Vec::new()
                }
                Output::StartTls => {
                    heard.push_str("[StartTls]");
                    self.framer.restart();
                    responder.tls_established(ChannelBindings::none());
                    Vec::new()
                }
                Output::AskCredentials(request) => responder.credentials(shard(&request), &mut self.random),
                Output::VerifyPassword(job) => responder.password_verified(job.run(), &mut self.random),
                Output::Register(request) => {
                    heard.push_str(&format!("[Register {}]", request.account));
                    let result = match shard(&CredentialsRequest {
                        account: request.account,
                        hash: None,
                    }) {
                        Credentials::UnknownUser => Ok(()),
                        Credentials::Keys { .. } => Err(StanzaError::conflict()),
                        Credentials::Unavailable => Err(StanzaError::resource_constraint()),
                    };
                    responder.registered(result, &mut self.random)
                }
                Output::NotAuthenticated(_) => Vec::new(),
                Output::Authenticated { account, .. } => {
                    heard.push_str(&format!("[{}]", account.as_str()));
                    Vec::new()
                }
                Output::Restart => {
                    heard.push_str("[Restart]");
                    self.framer.restart();
                    Vec::new()
                }
                Output::Bind(request) => match &self.refuse_bind {
                    Some(error) => responder.bind_refused(error, &mut self.random),
                    None => {
                        assert_eq!(request.version, 7);
                        heard.push_str(std::str::from_utf8(&responder.bound(&request.jid).send).unwrap());
                        return;
                    }
                },
                Output::Resume(request) => {
                    assert_eq!(
                        (request.account.as_str(), request.version),
                        ("juliet@im.example.com", 7)
                    );
                    match self.session {
                        Some(h) => {
                            heard.push_str(std::str::from_utf8(&responder.resumed(h).send).unwrap());
                            return;
                        }
                        None => responder.resume_refused(Condition::ItemNotFound.into()),
                    }
                }
                Output::Close(_) => {
                    heard.push_str("[Close]");
                    Vec::new()
                }
            };
            self.responder = Some(responder);
            self.perform(more, heard);
        }
    }
}

fn shard(request: &CredentialsRequest) -> Credentials {
    match request.account.as_str() {
        "juliet@im.example.com" => {
            let hash = request.hash.unwrap_or(ScramHash::Sha1);
            let password = Password::new("r0m30myr0m30").unwrap();
            let keys = ScramKeys::derive(hash, &password, b"salt", ITERATIONS_MIN).unwrap();
            Credentials::Keys { keys, version: 7 }
        }
        "nurse@im.example.com" => Credentials::Unavailable,
        _ => Credentials::UnknownUser,
    }
}

/// Stream ids are random: each becomes "ID".
fn without_id(xml: &str) -> String {
    match xml
        .split_once("<stream:stream")
        .and_then(|(before, rest)| Some((before, rest.split_once(" id='")?)))
    {
        Some((before, (attributes, rest))) => {
            let (id, rest) = rest.split_once('\'').unwrap();
            assert!(id.len() >= 22, "128 bits at least: {id}");
            format!("{before}<stream:stream{attributes} id='ID'{rest}")
        }
        None => xml.to_owned(),
    }
}

fn auth(mechanism: &str, initial: &str) -> String {
    format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
        BASE64.encode(initial)
    )
}

fn plain(username: &str, password: &str) -> String {
    auth("PLAIN", &format!("\0{username}\0{password}"))
}

fn sasl_failure(condition: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>")
}

fn stream_error(condition: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>[Close]"
    )
}

fn stream_error_text(condition: &str, text: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text \
         xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>{text}</text></stream:error></stream:stream>[Close]"
    )
}

fn management_failed(condition: &str) -> String {
    format!("<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
}

/// RFC 6120 §9.1, with PLAIN in place of SCRAM.
#[test]
fn the_whole_way_from_starttls_to_a_resource() {
    let mut talk = Talk::clear();
    assert_eq!(
        talk.say(OPEN),
        format!(
            "{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
             </stream:features>"
        )
    );
    assert_eq!(talk.say(STARTTLS), PROCEED);
    assert_eq!(
        talk.say(OPEN),
        format!(
            "{HEADER}<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1\
             </mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
        )
    );
    assert_eq!(
        talk.say(&plain("juliet", "r0m30myr0m30")),
        format!("{SUCCESS}[juliet@im.example.com][Restart]")
    );
    assert_eq!(talk.say(OPEN), format!("{HEADER}{BOUND_FEATURES}"));
    assert_eq!(
        talk.say(
            "<iq id='yhc13a95' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource>\
             </bind></iq>"
        ),
        "<iq type='result' id='yhc13a95'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <jid>juliet@im.example.com/balcony</jid></bind></iq>"
    );
    assert!(
        talk.responder.is_none(),
        "the responder is dropped when its work is done"
    );
}

#[test]
fn scram_shows_the_servers_proof_with_its_success() {
    let mut talk = Talk::optional();
    assert_eq!(
        talk.say(OPEN),
        format!(
            "{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><mechanisms \
             xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism></mechanisms></stream:features>"
        )
    );
    let heard = talk.say(&auth("SCRAM-SHA-1", "n,,n=juliet,r=oMsTAAwAAAAMAAAANP0TAAAAAABPU0AA"));
    let challenge = heard
        .strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
        .and_then(|rest| rest.strip_suffix("</challenge>"))
        .unwrap();
    let challenge = String::from_utf8(BASE64.decode(challenge).unwrap()).unwrap();
    assert!(
        challenge.starts_with("r=oMsTAAwAAAAMAAAANP0TAAAAAABPU0AA"),
        "{challenge}"
    );
    assert!(challenge.ends_with(",s=c2FsdA==,i=4096"), "{challenge}");
}

/// RFC 6120 §6.3.10
#[test]
fn a_client_may_keep_its_initial_response_until_it_is_asked() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let challenge = talk.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
    assert_eq!(challenge, "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    let response = BASE64.encode("\0juliet\0r0m30myr0m30");
    assert_eq!(
        talk.say(&format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>"
        )),
        format!("{SUCCESS}[juliet@im.example.com][Restart]")
    );
}

#[test]
fn a_stream_header_is_judged() {
    let open = |attributes: &str| {
        Talk::secure().say(&format!(
            "<stream:stream {attributes} xmlns:stream='http://etherx.jabber.org/streams'>"
        ))
    };
    let answered = |error: String| format!("{HEADER}{error}");
    // RFC 6120 §4.9.1.3, §4.9.3.6
    assert_eq!(
        open("xmlns='jabber:client' version='1.0' to='unknown.example.com'"),
        answered(stream_error("host-unknown"))
    );
    assert_eq!(
        open("xmlns='jabber:client' version='1.0'"),
        answered(stream_error_text("host-unknown", "'to' is missing"))
    );
    assert_eq!(
        open("xmlns='jabber:client' version='1.0' to='juliet@im.example.com'"),
        answered(stream_error("host-unknown"))
    );
    assert_eq!(
        open("xmlns='jabber:client' version='1.0' to='@'"),
        answered(stream_error_text("improper-addressing", "'to' is not an address"))
    );
    assert_eq!(
        open("xmlns='jabber:client' version='1.0' to='im.example.com' from='@'"),
        answered(stream_error_text("invalid-from", "'from' is not an address"))
    );
    // §4.8.3
    assert_eq!(
        open("xmlns='jabber:server' version='1.0' to='im.example.com'"),
        answered(stream_error_text(
            "invalid-namespace",
            "only jabber:client is served here"
        ))
    );
    // §4.7.5: no version in, no version out
    assert_eq!(
        open("xmlns='jabber:client' to='im.example.com'"),
        answered(stream_error("unsupported-version")).replace(" version='1.0' xml", " xml")
    );
    assert_eq!(
        open("xmlns='jabber:client' version='0.9' to='im.example.com'"),
        answered(stream_error("unsupported-version"))
    );
    assert!(open("xmlns='jabber:client' version='one' to='im.example.com'").contains("<unsupported-version "));
    // A newer client gets our version.
    assert!(open("xmlns='jabber:client' version='11.0' to='im.example.com'").contains("<stream:features>"));
    assert!(open("xmlns='jabber:client' version='1.01' to='IM.Example.Com'").contains("<stream:features>"));
    // §4.7.2: who we are talking to, when it says so
    assert!(
        open("xmlns='jabber:client' version='1.0' to='im.example.com' from='juliet@im.example.com/x'")
            .contains(" from='im.example.com' to='juliet@im.example.com' id=")
    );
    assert!(open("xmlns='jabber:client' version='1.0' to='other.example'").contains(" from='other.example' "));
}

/// RFC 6120 §4.9.1.2: whatever is wrong, a header comes first.
#[test]
fn an_error_before_our_header_comes_after_one() {
    let answered = |text: &str| {
        let heard = Talk::secure().say(text);
        assert!(
            heard.starts_with("<?xml version='1.0'?><stream:stream from='im.example.com' id='ID' "),
            "{heard}"
        );
        assert!(heard.ends_with("</stream:error></stream:stream>[Close]"), "{heard}");
        heard
    };
    let stream = "xmlns:stream='http://etherx.jabber.org/streams'";
    assert!(answered("GET / HTTP/1.1\r\n\r\n").contains("<not-well-formed "));
    assert!(answered("<!DOCTYPE x>").contains("<restricted-xml "));
    assert!(answered("<?xml version='1.0' encoding='UTF-16'?><stream:stream>").contains("<unsupported-encoding "));
    assert!(
        answered("<stream:stream xmlns:stream='http://wrong.namespace.example.org/'>").contains("<invalid-namespace ")
    );
    assert!(
        answered("<foobar:stream xmlns:foobar='http://etherx.jabber.org/streams'>").contains("<bad-namespace-prefix ")
    );
    assert!(answered(&format!("<stream:features {stream}>")).contains("<bad-format "));
    assert!(answered(&format!("<stream:stream {stream} x='{}'>", "y".repeat(10_000))).contains("<policy-violation "));
}

/// RFC 6120 §4.8.2
#[test]
fn a_stream_without_prefix_is_as_good() {
    let mut talk = Talk::secure();
    let heard = talk.say("<stream to='im.example.com' version='1.0' xmlns='http://etherx.jabber.org/streams'>");
    assert!(heard.contains("<mechanism>PLAIN</mechanism>"), "{heard}");
    assert!(talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS));
    talk.say("<stream to='im.example.com' version='1.0' xmlns='http://etherx.jabber.org/streams'>");
    assert!(
        talk.say(&BIND.replacen("<iq ", "<iq xmlns='jabber:client' ", 1))
            .contains("<jid>juliet@im.example.com/")
    );
}

/// RFC 6120 §4.3.5, §4.9.3.12
#[test]
fn stanzas_come_after_authentication_and_binding() {
    for stanza in [
        "<message to='romeo@example.net'><body>x</body></message>",
        "<presence/>",
        BIND,
    ] {
        let mut talk = Talk::secure();
        talk.say(OPEN);
        assert_eq!(talk.say(stanza), stream_error("not-authorized"));
    }
    for stanza in [
        "<message to='romeo@example.net'><body>x</body></message>",
        "<presence/>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='result' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    ] {
        assert_eq!(
            Talk::authenticated().say(stanza),
            stream_error_text("not-authorized", "bind a resource first")
        );
    }
}

#[test]
fn what_means_nothing_here_ends_the_stream() {
    let said = |xml: &str| {
        let mut talk = Talk::secure();
        talk.say(OPEN);
        talk.say(xml)
    };
    for xml in [
        "<pubsub xmlns='jabber:client'/>",
        "<query xmlns='jabber:iq:auth'/>",
        "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
        "<stream:features/>",
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<enabled xmlns='urn:xmpp:sm:3'/>",
    ] {
        assert_eq!(said(xml), stream_error("unsupported-stanza-type"), "{xml}");
    }
    assert_eq!(
        said("<message xmlns='jabber:server'/>"),
        stream_error("invalid-namespace")
    );
    assert!(said("<!-- -->").contains("<restricted-xml "));
}

#[test]
fn both_sides_close() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    assert_eq!(
        talk.say(" \n "),
        "",
        "white space keeps the connection alive and says nothing"
    );
    assert_eq!(talk.say("</stream:stream>"), "</stream:stream>[Close]");
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let error = "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    assert_eq!(talk.say(error), "</stream:stream>[Close]");
}

/// Ten thousands of clients may be negotiating at once.
#[test]
fn a_negotiation_is_small_and_goes_where_its_connection_goes() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Talk::secure().responder);
    assert!(size_of::<Responder>() <= 384, "{}", size_of::<Responder>());
}

#[test]
fn the_caller_ends_a_stream_with_a_reason() {
    let mut talk = Talk::secure();
    talk.say(OPEN);
    let mut heard = String::new();
    let outputs = talk
        .responder
        .as_mut()
        .unwrap()
        .error(StreamError::connection_timeout(), &mut Seeded(1));
    talk.perform(outputs, &mut heard);
    assert_eq!(heard, stream_error("connection-timeout"));
    let again = talk
        .responder
        .as_mut()
        .unwrap()
        .error(StreamError::system_shutdown(), &mut Seeded(1));
    assert!(again.is_empty(), "a stream ends once");
}

proptest::proptest! {
    /// Whatever a client says, it gets one well-formed answer at most once, and the responder does not panic.
    #[test]
    fn no_bytes_make_a_responder_panic(
        said in proptest::collection::vec(proptest::prelude::prop_oneof![
            proptest::prelude::Just(OPEN.to_owned()),
            proptest::prelude::Just(STARTTLS.to_owned()),
            proptest::prelude::Just(BIND.to_owned()),
            proptest::prelude::Just(plain("juliet", "r0m30myr0m30")),
            proptest::prelude::Just(auth("SCRAM-SHA-1", "n,,n=juliet,r=abc")),
            proptest::prelude::Just("<resume xmlns='urn:xmpp:sm:3' h='3' previd='x'/>".to_owned()),
            proptest::prelude::Just("</stream:stream>".to_owned()),
            "[a-z<>/='\" :!?&;]{0,30}",
        ], 0..8),
        tls: bool,
    ) {
        let mut talk = Talk::new(tls.then(ChannelBindings::none), |config| config.tls = TlsPolicy::Optional);
        let mut closes = 0;
        for xml in said {
            closes += talk.say(&xml).matches("[Close]").count();
        }
        proptest::prop_assert!(closes <= 1);
    }
}
