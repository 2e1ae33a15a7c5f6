//! Roster, presence and blocking.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use heronry_client::{
    BlockListChange, CachedRoster, Client, Contact, Event, Presence, PresenceChange, Reconnect, RequestError, Roster,
    RosterCache, RosterChange, Show, Subscription,
    jid::{BareJid, Jid},
    stanza::Condition,
    xml::{CLIENT, Element},
};
use tokio::time::timeout;

use crate::{
    PATIENCE, managed, next,
    server::{Peer, TestServer},
};

const ROSTER: &str = "jabber:iq:roster";
const BLOCKING: &str = "urn:xmpp:blocking";
const AT_ONCE: Reconnect = Reconnect::Automatic {
    first: Duration::from_millis(1),
    max: Duration::from_millis(5),
};

fn bare(text: &str) -> BareJid {
    BareJid::parse(text).expect("address")
}

/// The next request, answered with a payload.
async fn answer(peer: &mut Peer, payload: &str) -> Element {
    let request = peer.stanza().await;
    let id = request.attr("id").expect("id");
    peer.say(&format!("<iq type='result' id='{id}'>{payload}</iq>")).await;
    request
}

async fn load(client: &Client, peer: &mut Peer, items: &str) -> Roster {
    let items = format!("<query xmlns='{ROSTER}' ver='v1'>{items}</query>");
    let (roster, request) = tokio::join!(client.roster(), answer(peer, &items));
    assert!(request.child("query", ROSTER).is_some());
    let mut roster = roster.expect("a roster");
    // It was read before the reader was there.
    assert!(timeout(Duration::from_millis(20), roster.next()).await.is_err());
    roster
}

async fn change(roster: &mut Roster) -> RosterChange {
    timeout(PATIENCE, roster.next()).await.expect("in time").expect("open")
}

async fn push(peer: &mut Peer, from: &str, item: &str) -> Element {
    peer.say(&format!(
        "<iq type='set' id='push' {from}><query xmlns='{ROSTER}' ver='v2'>{item}</query></iq>"
    ))
    .await;
    loop {
        let answer = peer.stanza().await;
        if answer.attr("id") == Some("push") {
            return answer;
        }
    }
}

#[tokio::test]
async fn the_roster_is_read_once_and_pushes_keep_it_up_to_date() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let mut roster = load(
        &client,
        &mut peer,
        "<item jid='romeo@montague.example' subscription='both'/>",
    )
    .await;
    assert_eq!(roster.contacts()[0].subscription, Subscription::Both);
    let again = client.roster().await.expect("there without being asked for");
    let answer = push(
        &mut peer,
        "from='juliet@capulet.example'",
        "<item jid='nurse@capulet.example' name='Nurse'/>",
    )
    .await;
    assert_eq!(answer.attr("type"), Some("result"));
    match change(&mut roster).await {
        RosterChange::Set(contact) => assert_eq!(
            (contact.jid.as_str(), contact.name.as_deref()),
            ("nurse@capulet.example", Some("Nurse"))
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(again.contacts().len(), 2);
    push(
        &mut peer,
        "",
        "<item jid='romeo@montague.example' subscription='remove'/>",
    )
    .await;
    assert_eq!(
        change(&mut roster).await,
        RosterChange::Removed(bare("romeo@montague.example"))
    );
    assert_eq!(again.contact(&bare("romeo@montague.example")), None);
}

#[tokio::test]
async fn nobody_else_changes_the_roster() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let roster = load(&client, &mut peer, "").await;
    for from in [
        "tybalt@capulet.example",
        "tybalt@capulet.example/x",
        "capulet.example",
        "juliet@capulet.example/other",
    ] {
        let answer = push(
            &mut peer,
            &format!("from='{from}'"),
            "<item jid='tybalt@capulet.example' subscription='from'/>",
        )
        .await;
        assert_eq!(answer.attr("type"), Some("error"), "{from}");
    }
    let answer = push(&mut peer, "", "").await;
    assert_eq!(answer.attr("type"), Some("error"), "a push has one item");
    assert!(roster.contacts().is_empty());
}

#[tokio::test]
async fn contacts_are_set_and_removed_by_requests() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let romeo = bare("romeo@montague.example");
    let (set, request) = tokio::join!(
        client.set_contact(&romeo, Some("Romeo"), &["Friends"]),
        answer(&mut peer, "")
    );
    set.expect("set");
    let item = request
        .child("query", ROSTER)
        .and_then(|query| query.child("item", ROSTER))
        .expect("an item");
    assert_eq!(
        (item.attr("jid"), item.attr("name")),
        (Some(romeo.as_str()), Some("Romeo"))
    );
    assert_eq!(
        item.child("group", ROSTER).map(|group| group.text()).as_deref(),
        Some("Friends")
    );
    let refuse = async {
        let request = peer.stanza().await;
        let item = request
            .child("query", ROSTER)
            .and_then(|query| query.child("item", ROSTER))
            .expect("an item");
        assert_eq!(item.attr("subscription"), Some("remove"));
        let id = request.attr("id").expect("id");
        peer.say(&format!(
            "<iq type='error' id='{id}'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ))
        .await;
    };
    let (removed, ()) = tokio::join!(client.remove_contact(&romeo), refuse);
    match removed {
        Err(RequestError::Refused(error)) => assert_eq!(error.condition, Condition::ItemNotFound),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_roster_that_is_refused_is_an_error_and_can_be_asked_for_again() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let refuse = async {
        let id = peer.stanza().await.attr("id").expect("id").to_owned();
        // Somebody else's answer is none.
        peer.say(&format!("<iq type='result' id='{id}x' from='tybalt@capulet.example'/>"))
            .await;
        peer.say(&format!("<iq type='error' id='{id}'><error type='wait'/></iq>"))
            .await;
    };
    let (roster, ()) = tokio::join!(client.roster(), refuse);
    assert!(matches!(roster, Err(RequestError::Refused(_))));
    load(&client, &mut peer, "").await;
}

#[derive(Default)]
struct Kept(Mutex<CachedRoster>);

impl RosterCache for Kept {
    fn load(&self, _: &BareJid) -> Option<CachedRoster> {
        let kept = self.0.lock().expect("no panic").clone();
        (!kept.version.is_empty()).then_some(kept)
    }

    fn replace(&self, _: &BareJid, roster: &CachedRoster) {
        *self.0.lock().expect("no panic") = roster.clone();
    }

    fn change(&self, _: &BareJid, version: &str, change: &RosterChange) {
        let mut kept = self.0.lock().expect("no panic");
        kept.version = version.to_owned();
        let of = |change: &RosterChange| match change {
            RosterChange::Set(contact) => contact.jid.clone(),
            RosterChange::Removed(jid) => jid.clone(),
            RosterChange::Reloaded => panic!("no change"),
        };
        let jid = of(change);
        kept.contacts.retain(|contact| contact.jid != jid);
        if let RosterChange::Set(contact) = change {
            kept.contacts.push(Contact::clone(contact));
        }
    }
}

#[tokio::test]
async fn the_cache_is_filled_and_survives_the_client() {
    let server = TestServer::start(None).await;
    let kept = Arc::new(Kept::default());
    let options = server.options().roster_cache(kept.clone());
    let (client, _events, mut peer) = managed(&server, options.clone()).await;
    load(&client, &mut peer, "<item jid='romeo@montague.example'/>").await;
    push(&mut peer, "", "<item jid='nurse@capulet.example'/>").await;
    {
        let kept = kept.0.lock().expect("no panic");
        assert_eq!((&*kept.version, kept.contacts.len()), ("v2", 2));
    }
    let (client, _events, mut peer) = managed(&server, options).await;
    // An empty result: what is kept is as good (RFC 6121 §2.6.3).
    let (roster, _) = tokio::join!(client.roster(), answer(&mut peer, ""));
    assert_eq!(roster.expect("a roster").contacts().len(), 2);
}

#[tokio::test]
async fn roster_and_presence_are_said_again_in_a_new_session() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    let mut roster = load(&client, &mut peer, "").await;
    client
        .set_presence(&Presence::available().show(Show::Away).status("asleep").priority(5))
        .await
        .expect("connected");
    let check = |presence: &Element| {
        let text = |name| presence.child(name, CLIENT).map(|child| child.text());
        assert_eq!(text("show").as_deref(), Some("away"));
        assert_eq!(text("status").as_deref(), Some("asleep"));
        assert_eq!(text("priority").as_deref(), Some("5"));
    };
    check(&peer.stanza().await);
    drop(peer);
    let mut peer = server.accept().await;
    peer.enable_management().await;
    let request = answer(
        &mut peer,
        &format!("<query xmlns='{ROSTER}'><item jid='romeo@montague.example'/></query>"),
    )
    .await;
    assert!(request.child("query", ROSTER).is_some());
    check(&peer.stanza().await);
    assert_eq!(change(&mut roster).await, RosterChange::Reloaded);
    assert_eq!(roster.contacts().len(), 1);
    // Nothing of it comes back as unacknowledged.
    while !matches!(next(&mut events).await, Event::Disconnected(_)) {}
    match next(&mut events).await {
        Event::Reconnected(heronry_client::Resumption::NewSession { unacknowledged, .. }) => {
            assert!(unacknowledged.is_empty());
        }
        other => panic!("{other:?}"),
    }
    client.set_unavailable(Some("gone")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("type"), Some("unavailable"));
    drop(peer);
    let mut peer = server.accept().await;
    peer.enable_management().await;
    answer(&mut peer, &format!("<query xmlns='{ROSTER}'/>")).await;
    client
        .subscribe(&bare("romeo@montague.example"))
        .await
        .expect("connected");
    assert_eq!(
        peer.stanza().await.attr("type"),
        Some("subscribe"),
        "no presence in between"
    );
}

#[tokio::test]
async fn the_presence_of_contacts_is_told_as_it_changes() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options().reconnect(AT_ONCE)).await;
    let mut presences = client.presence();
    let romeo = bare("romeo@montague.example");
    peer.say(
        "<presence from='romeo@montague.example/o'><show>dnd</show></presence>\
         <presence type='subscribe' from='romeo@montague.example'><status>please</status></presence>",
    )
    .await;
    match presences.next().await {
        Some(PresenceChange::Available { jid, presence }) => {
            assert_eq!((jid.resource(), presence.show), (Some("o"), Show::DoNotDisturb));
        }
        other => panic!("{other:?}"),
    }
    assert!(presences.is_available(&romeo));
    let asked = PresenceChange::Asked {
        by: romeo.clone(),
        status: Some("please".to_owned()),
    };
    assert_eq!(presences.next().await, Some(asked));
    assert!(
        matches!(next(&mut events).await, Event::Presence(_)),
        "applications get them as they are, too"
    );
    drop(peer);
    let mut peer = server.accept().await;
    peer.enable_management().await;
    assert_eq!(presences.next().await, Some(PresenceChange::Reset));
    assert!(presences.of(&romeo).is_empty());
    tokio::join!(client.close(), async {
        while peer.next().await.is_some() {}
        peer.say("</stream:stream>").await;
    });
    assert_eq!(presences.next().await, None);
    assert_eq!(client.presence().next().await, None, "there is nothing to wait for");
}

#[tokio::test]
async fn subscriptions_are_asked_for_answered_and_ended() {
    let server = TestServer::start(None).await;
    let (client, _events, mut peer) = managed(&server, server.options()).await;
    let romeo = bare("romeo@montague.example");
    client.subscribe(&romeo).await.expect("connected");
    client.approve(&romeo).await.expect("connected");
    client.deny(&romeo).await.expect("connected");
    client.cancel(&romeo).await.expect("connected");
    client.unsubscribe(&romeo).await.expect("connected");
    for expected in ["subscribe", "subscribed", "unsubscribed", "unsubscribed", "unsubscribe"] {
        let presence = peer.stanza().await;
        assert_eq!(
            (presence.attr("type"), presence.attr("to")),
            (Some(expected), Some(romeo.as_str()))
        );
    }
}

#[tokio::test]
async fn blocking_is_asked_for_and_told() {
    let server = TestServer::start(None).await;
    let (client, mut events, mut peer) = managed(&server, server.options()).await;
    let tybalt = Jid::parse("tybalt@capulet.example").expect("address");
    let list = format!("<blocklist xmlns='{BLOCKING}'><item jid='paris@verona.example'/></blocklist>");
    let (blocked, _) = tokio::join!(client.blocked(), answer(&mut peer, &list));
    assert_eq!(
        blocked.expect("a list"),
        [Jid::parse("paris@verona.example").expect("address")]
    );
    let (blocked, request) = tokio::join!(client.block([tybalt.clone()]), answer(&mut peer, ""));
    blocked.expect("blocked");
    let item = request
        .child("block", BLOCKING)
        .and_then(|block| block.child("item", BLOCKING));
    assert_eq!(item.and_then(|item| item.attr("jid")), Some(tybalt.as_str()));
    client.unblock([]).await.expect("nobody is unblocked by an empty list");
    let (unblocked, request) = tokio::join!(client.unblock_all(), answer(&mut peer, ""));
    unblocked.expect("unblocked");
    let unblock = request.child("unblock", BLOCKING).expect("unblock");
    assert_eq!(unblock.children().count(), 0);

    for (from, believed) in [("from='tybalt@capulet.example'", false), ("", true)] {
        peer.say(&format!(
            "<iq type='set' id='p' {from}><block xmlns='{BLOCKING}'><item jid='tybalt@capulet.example'/></block></iq>"
        ))
        .await;
        let answer = peer.stanza().await;
        assert_eq!(answer.attr("type"), Some(if believed { "result" } else { "error" }));
    }
    match next(&mut events).await {
        Event::BlockList(change) => assert_eq!(change, BlockListChange::Blocked(vec![tybalt])),
        other => panic!("{other:?}"),
    }
}
