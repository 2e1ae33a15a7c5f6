//! A lamp that obeys its owner and nobody else: `cargo run -p heronry-client --example lamp -- LAMP@DOMAIN PASSWORD OWNER@DOMAIN`
//!
//! Its owner says `on` or `off`, gets an answer, and may see whether it shines: that is the lamp's presence.

use std::{env, error::Error, time::Duration};

use heronry_client::{
    Client, Delay, Event, Options, Password, Presence, PresenceChange, Reconnect, jid::BareJid, message,
    stanza::Stanza, xml::CLIENT,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [account, password, owner] = &arguments[..] else {
        return Err("usage: lamp ACCOUNT PASSWORD OWNER".into());
    };
    let options = Options::new(BareJid::parse(account)?, Password::new(password)?)
        .resource("lamp")
        .reconnect(Reconnect::Automatic {
            first: Duration::from_secs(1),
            max: Duration::from_secs(120),
        });
    shine(options, BareJid::parse(owner)?).await
}

/// Obeys until the connection is lost for good.
pub async fn shine(options: Options, owner: BareJid) -> Result<(), Box<dyn Error>> {
    let (client, mut events) = Client::connect(options).await?;
    let mut presences = client.presence();
    say(&client, "off").await?;

    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Message(message)) if is_from(&message, &owner) => obey(&client, &message).await?,
                Some(Event::ReconnectFailed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Ok(()),
            },
            // Only the owner may see whether the lamp shines.
            change = presences.next() => match change {
                Some(PresenceChange::Asked { by, .. }) if by == owner => client.approve(&by).await?,
                Some(PresenceChange::Asked { by, .. }) => client.deny(&by).await?,
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

/// The server has stamped the sender's address: nobody else can write it.
fn is_from(message: &Stanza, owner: &BareJid) -> bool {
    message
        .from
        .as_ref()
        .is_some_and(|from| from.bare_str() == owner.as_str())
}

async fn obey(client: &Client, order: &Stanza) -> Result<(), Box<dyn Error>> {
    let text = order.root_element()?.child("body", CLIENT).map(|body| body.text());
    let answer = match text.as_deref().map(str::trim) {
        // An order that waited while the lamp was away is not what its owner wants now.
        Some("on" | "off") if Delay::of(order).is_some() => "too late",
        Some(state @ ("on" | "off")) => {
            say(client, state).await?;
            state
        }
        Some(_) => "on or off?",
        // Not an order at all, such as somebody who is typing.
        None => return Ok(()),
    };
    if let Some(from) = order.from.clone() {
        client.send(message(from, answer)).await?;
    }
    Ok(())
}

/// In new sessions the SDK says it again.
async fn say(client: &Client, state: &str) -> Result<(), Box<dyn Error>> {
    client.set_presence(&Presence::available().status(state)).await?;
    Ok(())
}
