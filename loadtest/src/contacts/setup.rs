//! Making accounts each other's contacts as people do it: each asks to see the other's presence, and the other agrees (RFC 6121
//! §3.1). Rosters that are as they should be are left alone, so that a second run begins at once.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, bail};
use heronry_client::{Client, Presence, PresenceChange, RosterChange, Subscription, jid::BareJid};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::Circle;
use crate::{fleet::Fleet, progress};

/// How long an account waits for the next thing to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Logs all accounts in, `concurrency` at a time, and waits until everybody sees everybody they should.
///
/// # Errors
/// When an account cannot log in, its server has no rosters, or nothing happens for a minute.
pub async fn subscribe(fleet: &Fleet, circle: Circle, concurrency: usize) -> anyhow::Result<()> {
    let accounts = circle.accounts().len();
    fleet.check_room(accounts)?;
    let bar = progress::count("contacts", accounts as u64);
    let logins = std::rc::Rc::new(Semaphore::new(concurrency.max(1)));
    let mut running = JoinSet::new();
    for account in circle.accounts() {
        let (fleet, logins) = (fleet.clone(), logins.clone());
        running.spawn_local(async move {
            let wanted: HashSet<_> = circle.addresses(account, fleet.server())?.into_iter().collect();
            let name = fleet.server().user(account);
            let login = logins.acquire().await?;
            let (client, events) = Client::connect(fleet.options(account)?.stream_management(false))
                .await
                .with_context(|| format!("{name} cannot log in"))?;
            drop((login, events));
            let befriended = befriend(&client, wanted).await;
            befriended.with_context(|| format!("the contacts of {name}"))?;
            // The others may need our answers still.
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(done) = running.join_next().await {
        clients.push(done.context("setting up contacts panicked")??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut closing = JoinSet::new();
    for client in clients {
        closing.spawn_local(async move { client.close().await });
    }
    while closing.join_next().await.is_some() {}
    Ok(())
}

/// Waits until every wanted contact and the account see each other. In a circle the last answer that an account owes is to a
/// request that came before its own contact saw it, so who is done owes nobody anything.
async fn befriend(client: &Client, wanted: HashSet<BareJid>) -> anyhow::Result<()> {
    let mut presences = client.presence();
    let mut roster = client.roster().await.context("asking for the roster")?;
    let mut missing = wanted.clone();
    let is_done = |subscription| subscription == Subscription::Both;
    for contact in roster.contacts() {
        if is_done(contact.subscription) {
            missing.remove(&contact.jid);
        } else if contact.subscription == Subscription::To && wanted.contains(&contact.jid) {
            // Asked for and answered on one side in an earlier run.
            client.approve(&contact.jid).await?;
        }
    }
    client.set_presence(&Presence::available()).await?;
    for contact in &missing {
        let sees = roster
            .contact(contact)
            .is_some_and(|contact| contact.subscription.sees());
        if !sees {
            client.subscribe(contact).await?;
        }
    }
    while !missing.is_empty() {
        let happened = async {
            tokio::select! {
                change = presences.next() => match change {
                    Some(PresenceChange::Asked { by, .. }) if wanted.contains(&by) => client.approve(&by).await?,
                    Some(PresenceChange::Denied { by }) if wanted.contains(&by) => bail!("{by} does not agree"),
                    Some(PresenceChange::Error { from, error }) => bail!("{from}: {error}"),
                    Some(_) => {}
                    None => bail!("disconnected"),
                },
                change = roster.next() => match change {
                    Some(RosterChange::Set(contact)) if is_done(contact.subscription) => {
                        missing.remove(&contact.jid);
                    }
                    Some(RosterChange::Reloaded) => {
                        missing.retain(|contact| {
                            !roster.contact(contact).is_some_and(|contact| is_done(contact.subscription))
                        });
                    }
                    Some(_) => {}
                    None => bail!("disconnected"),
                },
            }
            anyhow::Ok(())
        };
        let waited = timeout(PATIENCE, happened).await;
        waited.with_context(|| format!("{} of {} are missing", missing.len(), wanted.len()))??;
    }
    Ok(())
}
