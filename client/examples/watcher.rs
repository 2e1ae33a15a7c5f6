//! Watches who is there: `cargo run -p heronry-client --example watcher -- ME@DOMAIN PASSWORD DEVICE@DOMAIN…`
//!
//! Asks to see the presence of the devices it does not see yet, and prints every change.

use std::{env, error::Error, time::Duration};

use heronry_client::{Client, Options, Password, Presence, PresenceChange, Reconnect, jid::BareJid};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [account, password, devices @ ..] = &arguments[..] else {
        return Err("usage: watcher ACCOUNT PASSWORD DEVICE…".into());
    };
    let devices = devices
        .iter()
        .map(|device| BareJid::parse(device))
        .collect::<Result<Vec<_>, _>>()?;
    let options = Options::new(BareJid::parse(account)?, Password::new(password)?).reconnect(Reconnect::Automatic {
        first: Duration::from_secs(1),
        max: Duration::from_secs(120),
    });
    watch(options, &devices, |line| println!("{line}")).await
}

/// Watches until the connection is lost for good.
pub async fn watch(options: Options, devices: &[BareJid], mut print: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    let (client, events) = Client::connect(options).await?;
    // Changes of presence are all that is wanted, and they come by another way.
    drop(events);
    // First those who want to know, then the question: the server answers our presence with everybody's.
    let mut presences = client.presence();
    let roster = client.roster().await?;
    client.set_presence(&Presence::available()).await?;
    for device in devices {
        if !roster
            .contact(device)
            .is_some_and(|contact| contact.subscription.sees() || contact.asked)
        {
            client.subscribe(device).await?;
        }
    }

    while let Some(change) = presences.next().await {
        match change {
            PresenceChange::Available { jid, presence } => {
                print(format!("{jid} is there: {}", presence.status.unwrap_or_default()));
            }
            PresenceChange::Unavailable { jid, .. } => print(format!("{jid} is gone")),
            PresenceChange::Approved { by } => print(format!("{by} lets us watch")),
            PresenceChange::Denied { by } => print(format!("{by} does not let us watch")),
            PresenceChange::Reset => print("nothing is known".to_owned()),
            PresenceChange::Asked { .. } | PresenceChange::Left { .. } | PresenceChange::Error { .. } => {}
        }
    }
    Ok(())
}
