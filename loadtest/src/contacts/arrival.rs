//! What a login with contacts is: the roster is asked for, presence is said, and everybody's presence comes (RFC 6121 §2.2, §4.2,
//! §4.3).

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use heronry_client::{
    connection::OpenSession,
    jid::BareJid,
    stanza::{IqType, Kind, Parsed, PresenceType, Stanza},
    xml::{Frame, Limits, StreamPrefixes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// How long a server may take to tell who is there.
const PATIENCE: Duration = Duration::from_secs(30);
const ROSTER: &str = "jabber:iq:roster";

/// Does everything up to the presence of the last contact.
///
/// # Errors
/// When the roster has other contacts, or one's presence does not come.
pub async fn arrive(session: &mut OpenSession, contacts: &[BareJid]) -> anyhow::Result<()> {
    let mut missing: HashSet<&str> = contacts.iter().map(BareJid::as_str).collect();
    let arriving = arrive_among(session, &mut missing, contacts.len());
    match timeout(PATIENCE, arriving).await {
        Ok(arrived) => arrived,
        Err(_) => bail!("{} of {} contacts do not show", missing.len(), contacts.len()),
    }
}

async fn arrive_among(session: &mut OpenSession, missing: &mut HashSet<&str>, contacts: usize) -> anyhow::Result<()> {
    let mut unread = BytesMut::from(&session.unread[..]);
    session.unread.clear();
    say(
        session,
        b"<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>",
    )
    .await?;
    loop {
        let stanza = next(session, &mut unread).await?;
        if stanza.kind != Kind::Iq(IqType::Result) || stanza.id.as_deref() != Some("roster") {
            continue;
        }
        let items = stanza
            .payload_element()?
            .children()
            .filter(|item| item.is("item", ROSTER))
            .count();
        if items != contacts {
            bail!("the roster has {items} contacts and not {contacts}");
        }
        break;
    }
    say(session, b"<presence/>").await?;
    while !missing.is_empty() {
        let stanza = next(session, &mut unread).await?;
        if stanza.kind == Kind::Presence(PresenceType::Available)
            && let Some(from) = &stanza.from
        {
            missing.remove(from.bare_str());
        }
    }
    Ok(())
}

async fn say(session: &mut OpenSession, words: &[u8]) -> anyhow::Result<()> {
    session.transport.write_all(words).await?;
    session.transport.flush().await.context("the server does not listen")
}

/// The next stanza; an error that ends the stream is one here.
async fn next(session: &mut OpenSession, unread: &mut BytesMut) -> anyhow::Result<Stanza> {
    loop {
        let mut input = &unread[..];
        let frame = session.framer.next(&mut input, &Limits::after_auth())?;
        let left = input.len();
        unread.advance(unread.len() - left);
        match frame {
            Some(Frame::Element(bytes)) => {
                match Stanza::parse(bytes, &Limits::after_auth(), &StreamPrefixes::client())? {
                    Parsed::Stanza(stanza) if stanza.kind.is_error() => {
                        bail!("{:?}", stanza.stanza_error().map(|error| error.to_string()))
                    }
                    Parsed::Stanza(stanza) => return Ok(stanza),
                    Parsed::Refused { .. } | Parsed::Other(_) => {}
                }
            }
            Some(_) => bail!("the server has closed the stream"),
            None if session.transport.read_buf(unread).await? == 0 => bail!("the server has closed the connection"),
            None => {}
        }
    }
}
