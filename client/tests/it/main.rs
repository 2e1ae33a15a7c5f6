//! The SDK against a server that does what the test tells it.

mod connecting;
mod contacts;
mod delivering;
mod examples;
mod finding;
mod names;
mod real_server;
mod requests;
mod resumption;
mod sending;
mod server;

use std::time::Duration;

use heronry_client::{Client, Event, Events, Options, jid::Jid, message, stanza::Stanza};
use server::{Peer, TestServer};
use tokio::time::timeout;

/// Long enough for everything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client with stream management, and its server's end.
async fn managed(server: &TestServer, options: Options) -> (Client, Events, Peer) {
    let peer = async {
        let mut peer = server.accept().await;
        peer.enable_management().await;
        peer
    };
    let (connected, peer) = tokio::join!(Client::connect(options), peer);
    let (client, events) = connected.expect("a session");
    (client, events, peer)
}

/// A client without stream management, and its server's end.
async fn plain(server: &TestServer, options: Options) -> (Client, Events, Peer) {
    let (connected, peer) = tokio::join!(Client::connect(options.stream_management(false)), server.accept());
    let (client, events) = connected.expect("a session");
    (client, events, peer)
}

async fn next(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("an open client")
}

/// A message to Romeo that can be recognised.
fn note(id: &str) -> Stanza {
    message(Jid::parse("romeo@montague.example").expect("address"), "hello").with_id(id)
}

fn ids(stanzas: &[Stanza]) -> Vec<&str> {
    stanzas.iter().filter_map(|stanza| stanza.id.as_deref()).collect()
}
