//! A thermometer on a bad network: `cargo run -p heronry-client --example thermometer -- DEVICE@DOMAIN PASSWORD OWNER@DOMAIN`
//!
//! Reports a temperature every five seconds and says what became of each report. It comes back by itself when the connection is
//! lost, and what its owner has not confirmed is sent again.

use std::{env, error::Error, time::Duration};

use heronry_client::{Client, Delivery, Options, Outcome, Password, Reconnect, jid::BareJid, message};
use tokio::time::{MissedTickBehavior, interval};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [account, password, owner] = &arguments[..] else {
        return Err("usage: thermometer ACCOUNT PASSWORD OWNER".into());
    };
    let options = Options::new(BareJid::parse(account)?, Password::new(password)?)
        .resource("thermometer")
        .reconnect(Reconnect::Automatic {
            first: Duration::from_secs(1),
            max: Duration::from_secs(120),
        });
    report(
        options,
        BareJid::parse(owner)?,
        Duration::from_secs(5),
        usize::MAX,
        |outcome| println!("{outcome:?}"),
    )
    .await
}

/// Sends so many reports, one after the other, and tells the outcome of each.
pub async fn report(
    options: Options,
    owner: BareJid,
    every: Duration,
    reports: usize,
    mut tell: impl FnMut(Outcome),
) -> Result<(), Box<dyn Error>> {
    let (client, events) = Client::connect(options).await?;
    // Nobody tells a thermometer anything. What is dropped needs no room.
    drop(events);

    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..reports {
        clock.tick().await;
        let text = format!("{:.1} °C", temperature());
        // An old temperature is of no interest: after a minute the next ones matter.
        let report: Delivery = client
            .deliver(message(owner.clone(), &text), Duration::from_secs(60))
            .await?;
        tell(report.await);
    }
    client.close().await;
    Ok(())
}

fn temperature() -> f32 {
    21.5
}
