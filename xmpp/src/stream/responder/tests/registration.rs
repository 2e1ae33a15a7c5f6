//! XEP-0077 before authentication.

use super::*;

const REGISTER: &str = "<register xmlns='http://jabber.org/features/iq-register'/>";

fn on(config: &mut ResponderConfig) {
    config.registration = Some([ScramHash::Sha256].into());
}

/// TLS is there, and accounts can be made.
fn secure() -> Talk {
    let mut talk = Talk::new(Some(ChannelBindings::none()), on);
    assert!(talk.say(OPEN).contains(REGISTER));
    talk
}

fn set(query: &str) -> String {
    format!("<iq type='set' id='reg2'><query xmlns='jabber:iq:register'>{query}</query></iq>")
}

fn register(username: &str, password: &str) -> String {
    set(&format!(
        "<username>{username}</username><password>{password}</password>"
    ))
}

fn refused(condition: &str) -> String {
    format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>")
}

#[test]
fn it_is_offered_without_tls_only_where_tls_is_not_required() {
    let offered = |tls: Option<ChannelBindings>, policy| {
        let mut talk = Talk::new(tls, |config| {
            on(config);
            config.tls = policy;
        });
        let features = talk.say(OPEN);
        let served = talk.say("<iq type='get' id='reg1'><query xmlns='jabber:iq:register'/></iq>");
        assert_eq!(
            features.contains(REGISTER),
            served.contains("type='result'"),
            "{served}"
        );
        features.contains(REGISTER)
    };
    assert!(!offered(None, TlsPolicy::Required));
    assert!(offered(None, TlsPolicy::Optional));
    assert!(offered(Some(ChannelBindings::none()), TlsPolicy::Required));
    let mut without = Talk::secure();
    assert!(!without.say(OPEN).contains("iq-register"));
    assert!(without.say(&register("bill", "Calliope")).contains("<not-authorized"));
}

/// Examples 1 and 2.
#[test]
fn the_fields_are_a_username_and_a_password() {
    let heard = secure().say("<iq type='get' id='reg1' to='im.example.com'><query xmlns='jabber:iq:register'/></iq>");
    assert_eq!(
        heard,
        "<iq type='result' id='reg1' from='im.example.com'><query xmlns='jabber:iq:register'>\
         <instructions>Choose a username and a password.</instructions><username/><password/></query></iq>"
    );
}

/// Examples 4 to 6.
#[test]
fn an_account_is_made_and_a_name_in_use_is_a_conflict() {
    let mut talk = secure();
    assert!(talk.say(&register("Juliet", "Calliope")).contains(&refused("conflict")));
    assert_eq!(
        talk.say(&register("Bill", "Calliope")),
        "[Register bill@im.example.com]<iq type='result' id='reg2'/>"
    );
    // §3.1.1
    assert!(
        talk.say(&register("bob", "Calliope"))
            .contains(&refused("not-acceptable"))
    );
    // And the stream goes on.
    assert!(talk.say(&plain("juliet", "r0m30myr0m30")).starts_with(SUCCESS));
}

/// Example 7, and names and passwords that cannot be.
#[test]
fn what_is_missing_or_cannot_be_is_not_acceptable() {
    let reserved = format!("anonymous-{}", "0".repeat(32));
    let bad = [
        set("<username>bill</username>"),
        set("<password>Calliope</password>"),
        register("bill", ""),
        register("", "Calliope"),
        register("b@d", "Calliope"),
        register("a b", "Calliope"),
        register(&reserved, "Calliope"),
        register("bill", "tab&#9;here"),
        register("bill", &"x".repeat(2000)),
    ];
    for iq in bad {
        let heard = secure().say(&iq);
        assert!(heard.contains(&refused("not-acceptable")), "{iq}: {heard}");
        assert!(!heard.contains("Calliope"), "the password is not repeated: {heard}");
    }
}

/// §3.2: nobody in particular cannot be removed.
#[test]
fn a_removal_is_unexpected_here() {
    assert!(secure().say(&set("<remove/>")).contains(&refused("unexpected-request")));
}

#[test]
fn an_iq_for_somebody_else_or_about_something_else_is_not_served() {
    let to = "<iq type='get' id='1' to='other.example'><query xmlns='jabber:iq:register'/></iq>";
    assert!(secure().say(to).contains(&refused("service-unavailable")));
    let other = "<iq type='get' id='1'><query xmlns='jabber:iq:version'/></iq>";
    assert!(secure().say(other).contains("<not-authorized"));
}

#[test]
fn refused_registrations_count_as_failed_attempts() {
    let mut talk = secure();
    let heard: Vec<String> = (0..4).map(|_| talk.say(&register("juliet", "Calliope"))).collect();
    assert!(heard[3].contains("<policy-violation"), "{heard:?}");
    assert!(heard[3].ends_with("[Close]"));
}

/// Lesson 14: what is said in the middle of an authentication is not mistaken for something else.
#[test]
fn nothing_is_registered_in_the_middle_of_an_authentication() {
    let mut talk = secure();
    talk.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
    assert!(talk.say(&register("bill", "Calliope")).contains("<not-authorized"));
}
