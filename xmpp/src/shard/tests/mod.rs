//! Conversations with a lone broker: what strangers and owners of accounts hear.

mod anonymous;
mod clock;
mod location;
mod patience;
mod pubsub;
mod registration;
mod restore;
mod strangers;
mod terms;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::link::Conn;
use crate::testkit::Lone;

const OPEN: &str = "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
const BIND: &str = "<iq id='bind' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

fn auth(mechanism: &str, initial: &str) -> String {
    let initial = BASE64.encode(initial);
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{initial}</auth>")
}

fn plain(user: &str, password: &str) -> String {
    auth("PLAIN", &format!("\0{user}\0{password}"))
}

/// Somebody who has authenticated so and bound a resource, and its address.
fn session(broker: &mut Lone, auth: &str) -> (Conn, String) {
    let (conn, _) = broker.connect(OPEN);
    let heard = broker.say(conn, &format!("{auth}{OPEN}{BIND}"));
    let address = heard
        .split_once("<jid>")
        .and_then(|(_, rest)| rest.split_once("</jid>"));
    let (address, _) = address.unwrap_or_else(|| panic!("no session: {heard}"));
    (conn, address.to_owned())
}

/// Whether this password is the account's.
fn logs_in(broker: &mut Lone, user: &str, password: &str) -> bool {
    let (conn, _) = broker.connect(OPEN);
    let heard = broker.say(conn, &plain(user, password));
    let (success, failure) = (heard.contains("<success"), heard.contains("<not-authorized/>"));
    assert!(success != failure, "{heard}");
    success
}
