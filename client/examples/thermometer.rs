//! A device on a bad network: `cargo run -p heronry-client --example thermometer -- DEVICE@DOMAIN PASSWORD OWNER@DOMAIN`
//!
//! Reports a temperature every five seconds, comes back by itself when the connection is lost, and decides what to do with
//! what may be lost when even the session is.

use std::{env, error::Error, time::Duration};

use heronry_client::{
    Client, Event, Options, Password, Reconnect, Request, RequestError, Resumption, jid::BareJid, jid::Jid, message,
    xml::Element,
};
use tokio::time::interval;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [account, password, owner] = &arguments[..] else {
        return Err("usage: thermometer ACCOUNT PASSWORD OWNER".into());
    };
    let owner = Jid::parse(owner)?;
    let patience = Reconnect::Automatic {
        first: Duration::from_secs(1),
        max: Duration::from_secs(120),
    };
    let options = Options::new(BareJid::parse(account)?, Password::new(password)?)
        .resource("sensor")
        .reconnect(patience);
    let (client, mut events) = Client::connect(options).await?;

    // Is the owner's server alive? A question with a deadline.
    let ping = Request::get(Element::new("ping", "urn:xmpp:ping")).within(Duration::from_secs(10));
    match client.request(ping).await {
        Ok(_) => println!("the server answers"),
        Err(RequestError::Refused(error)) => println!("the server answers: {error}"),
        Err(error) => return Err(error.into()),
    }

    let mut clock = interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = clock.tick() => client.send(message(owner.clone(), &format!("{:.1} °C", temperature()))).await?,
            event = events.next() => match event {
                None => return Ok(()),
                Some(Event::Disconnected(reason)) => println!("{reason}; coming back"),
                // The session went on, and with it everything that had been sent.
                Some(Event::Reconnected(Resumption::Resumed { resent })) => println!("resumed, {resent} sent again"),
                // Nobody knows whether these arrived. Old temperatures are of no interest, so they are let go.
                Some(Event::Reconnected(Resumption::NewSession { unacknowledged, .. })) => {
                    println!("a new session; {} reports may be lost", unacknowledged.len());
                }
                Some(Event::ReconnectFailed(error)) => return Err(error.into()),
                Some(_) => {}
            },
        }
    }
}

fn temperature() -> f32 {
    21.5
}
