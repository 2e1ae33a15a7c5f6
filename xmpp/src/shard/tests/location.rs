//! XEP-0198 §5: where a device is asked to come back to.

use super::*;
use crate::jid::BareJid;
use crate::sasl::{Password, ScramHash, ScramKeys};
use crate::shard::Account;

const PLACE: &str = "[2001:41d0:1:a49b::1]:9222";

/// What a device is answered that enables stream management like this.
fn enabled(location: Option<&str>, enable: &str) -> String {
    let mut broker = Lone::new(|_, _, _| {});
    let keys = ScramKeys::derive(ScramHash::Sha1, &Password::new("r0m30").unwrap(), b"salt", 4096).unwrap();
    broker.add(Account {
        jid: BareJid::parse("juliet@example.org").unwrap(),
        keys: vec![keys],
    });
    if let Some(location) = location {
        broker.be_at(location);
    }
    let (conn, _) = session(&mut broker, &plain("juliet", "r0m30"));
    broker.say(conn, &format!("<enable xmlns='urn:xmpp:sm:3'{enable}/>"))
}

#[test]
fn who_may_resume_is_told_where() {
    let heard = enabled(Some(PLACE), " resume='true'");
    assert!(heard.contains(&format!("location='{PLACE}'")), "{heard}");
    for heard in [enabled(None, " resume='true'"), enabled(Some(PLACE), "")] {
        assert!(heard.contains("<enabled ") && !heard.contains("location"), "{heard}");
    }
}
