//! What operators do with accounts, wherever their shards are led: here it is asked of the shard itself, elsewhere of the node that leads it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use heronry_cluster::{
    Group, Leadership, PeerId, blocking,
    member::{Member, WeakMember},
};
use heronry_xmpp::{
    jid,
    link::{NodeId, ShardId},
    rows::SHARD_SLOTS,
    shard::{Administer, Administered, ShardMap, accounts_of},
};
use tokio::sync::oneshot;

use super::{backup::Exports, middle::Middle};
use crate::{
    admin::{BrokerError, Cursor, UserFilter, UserPage},
    config::Config,
    links::Router,
    shard::{Control, Inboxes},
    wire::administer::{Answer, Ask, Listing, Page, Position, listed_bytes},
};

/// How long a shard may take to carry out what an operator wants.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a batch of an import may take: the disk is busy with those before it.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer a node waits for another's answer than that waits for its shard.
const WAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Accounts that one page of a list looks at, whether or not the filter admits them.
const LOOKED_AT_MAX: usize = 8192;

/// Accounts of all shards, for operators and for other nodes.
pub(super) struct Accounts {
    own: NodeId,
    pub(super) map: ShardMap,
    inboxes: Arc<Inboxes>,
    router: Arc<Router>,
    /// Bytes of one page of a shard: fits with its last account into an answer to another node.
    page_bytes: usize,
    /// Absent while the node starts: nobody asks then.
    member: OnceLock<WeakMember>,
    pub(super) exports: Exports,
    pub(super) domains: Vec<String>,
    /// Bytes of rows that are committed together.
    pub(super) batch_bytes: usize,
}

impl Accounts {
    pub(super) fn new(config: &Config, middle: &Middle) -> Self {
        Self {
            own: middle.router.own().node,
            map: middle.map.clone(),
            inboxes: Arc::clone(&middle.inboxes),
            router: Arc::clone(&middle.router),
            page_bytes: config.limits.link.call_bytes_max / 2,
            member: OnceLock::new(),
            exports: Exports::new(config),
            domains: config.domains.clone(),
            batch_bytes: config.limits.import_batch_bytes,
        }
    }

    /// From now on groups are known, and other nodes may be asked.
    pub(super) fn belong_to(&self, member: WeakMember) {
        let _ = self.member.set(member);
    }

    /// Has a shard do what an operator wants.
    pub(super) async fn administer(&self, shard: ShardId, request: Administer) -> Result<Administered, BrokerError> {
        let timeout = timeout_of(&request);
        let answer = match self.led_elsewhere(shard) {
            Some(node) => {
                let ask = Ask::Administer(shard, request);
                self.ask(node, shard, &ask, timeout + WAY_TIMEOUT).await?
            }
            None => self.carry_out(shard, request, timeout).await,
        };
        match answer {
            Answer::Administered(Administered::Unavailable) => Err(unavailable(shard, "cannot do it at present")),
            Answer::Administered(administered) => Ok(administered),
            answer => Err(refused(shard, answer)),
        }
    }

    /// One page of accounts, slot by slot; of each shard as its leader has them.
    pub(super) async fn list(
        &self,
        filter: UserFilter,
        after: Option<Cursor>,
        count: usize,
    ) -> Result<UserPage, BrokerError> {
        let mut from = after.as_ref().and_then(position).unwrap_or_default();
        let (mut accounts, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = Page {
                from: from.clone(),
                filter: filter.clone(),
                count: count - accounts.len(),
                looked_at_max: LOOKED_AT_MAX - looked_at,
            };
            let listing = self.page(page).await?;
            let broke_off = listing.next.is_some();
            accounts.extend(listing.accounts);
            looked_at += listing.looked_at;
            let Some(next) = listing.next.or_else(|| self.next_shard(from.slot)) else {
                return Ok(UserPage { accounts, next: None });
            };
            if broke_off || accounts.len() >= count || looked_at >= LOOKED_AT_MAX {
                let next = Some(cursor(&next));
                return Ok(UserPage { accounts, next });
            }
            from = next;
        }
    }

    /// A part of the accounts of one shard, from whoever leads it.
    async fn page(&self, page: Page) -> Result<Listing, BrokerError> {
        let shard = self.map.shard_of(page.from.slot);
        let (count, slot) = (page.count, page.from.slot);
        // Whatever another node says, a list comes to its end.
        let goes_on = |listing: &Listing| {
            let next = listing.next.as_ref();
            next.is_none_or(|next| next.slot >= slot && self.map.shard_of(next.slot) == shard)
        };
        let answer = match self.led_elsewhere(shard) {
            Some(node) => {
                self.ask(node, shard, &Ask::Page(page), ANSWER_TIMEOUT + WAY_TIMEOUT)
                    .await?
            }
            None => self.page_here(page).await,
        };
        match answer {
            Answer::Listing(listing) if listing.accounts.len() <= count && goes_on(&listing) => Ok(listing),
            answer => Err(refused(shard, answer)),
        }
    }

    /// Another node asks. An error is a sentence for it.
    pub(super) async fn answer(&self, from: PeerId, request: Bytes) -> Result<Bytes, String> {
        let ask = Ask::decode(request).map_err(|error| {
            tracing::warn!(node = %from.node, %error, "what a node asks makes no sense");
            error.to_string()
        })?;
        let answer = match ask {
            Ask::Administer(shard, request) if self.led_elsewhere(shard).is_none() => {
                let timeout = timeout_of(&request);
                self.carry_out(shard, request, timeout).await
            }
            Ask::Administer(..) => Answer::NotLed { elsewhere: true },
            Ask::Page(page) => self.page_here(page).await,
            Ask::Backup(shard, ticket) => self.send_backup(from, shard, ticket).await,
        };
        Ok(answer.encode())
    }

    /// The other node that leads a shard, as far as is known.
    pub(super) fn led_elsewhere(&self, shard: ShardId) -> Option<NodeId> {
        self.router.leader(shard).filter(|node| *node != self.own)
    }

    pub(super) async fn ask(
        &self,
        node: NodeId,
        shard: ShardId,
        ask: &Ask,
        timeout: Duration,
    ) -> Result<Answer, BrokerError> {
        let member = self.member()?;
        let to = heronry_cluster::NodeId(node.0);
        // It may have been done.
        let answer = member.ask(to, ask.encode(), timeout).await.map_err(|error| {
            BrokerError::Unavailable(format!(
                "shard {} is led by node {to}, and asking it failed: {error}",
                shard.0
            ))
        })?;
        Answer::decode(answer)
            .map_err(|error| BrokerError::Failed(format!("the answer of node {to} makes no sense: {error}")))
    }

    pub(super) fn member(&self) -> Result<Member, BrokerError> {
        let member = self.member.get().and_then(WeakMember::upgrade);
        member.ok_or_else(|| BrokerError::Unavailable("this node is starting or stopping".to_owned()))
    }

    /// Has a shard of this node do it.
    async fn carry_out(&self, shard: ShardId, request: Administer, timeout: Duration) -> Answer {
        let Some(inbox) = self.inboxes.of(shard) else {
            return Answer::NotLed { elsewhere: false };
        };
        if self.group(shard).is_none() {
            return self.not_led(shard);
        }
        let (answer, answered) = oneshot::channel();
        inbox.control(Control::Administer {
            request: Box::new(request),
            answer,
        });
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(Administered::Unavailable)) if self.led_here(shard).is_none() => self.not_led(shard),
            Ok(Ok(administered)) => Answer::Administered(administered),
            Ok(Err(_)) | Err(_) => Answer::Silent,
        }
    }

    /// A page of a shard that this node leads.
    async fn page_here(&self, page: Page) -> Answer {
        let shard = self.map.shard_of(page.from.slot);
        let Some(group) = self.led_here(shard) else {
            return self.not_led(shard);
        };
        let (map, bytes) = (self.map.clone(), self.page_bytes);
        // It reads from the disk.
        let read = blocking(move || read(&group, &map, shard, &page, bytes)).await;
        match read {
            Ok(Ok(listing)) => Answer::Listing(listing),
            Ok(Err(sentence)) => Answer::Failed(sentence),
            Err(error) => Answer::Failed(format!("accounts cannot be listed: {error}")),
        }
    }

    pub(super) fn not_led(&self, shard: ShardId) -> Answer {
        let elsewhere = self.led_elsewhere(shard).is_some();
        Answer::NotLed { elsewhere }
    }

    fn group(&self, shard: ShardId) -> Option<Group> {
        let member = self.member.get().and_then(WeakMember::upgrade)?;
        member.groups().group(heronry_cluster::ShardId(shard.0))
    }

    /// The group of a shard, if this node leads it: then its rows are those of the shard.
    pub(super) fn led_here(&self, shard: ShardId) -> Option<Group> {
        let group = self.group(shard)?;
        let leads = match *group.leadership().borrow() {
            Leadership::Leader { term } => group.has_lease(term),
            Leadership::Follower { .. } | Leadership::Closed => false,
        };
        leads.then_some(group)
    }

    /// The first slot after this one that is another shard's.
    fn next_shard(&self, slot: u16) -> Option<Position> {
        let shard = self.map.shard_of(slot);
        let slot = (slot..SHARD_SLOTS).find(|slot| self.map.shard_of(*slot) != shard)?;
        Some(Position { slot, after: None })
    }
}

const fn timeout_of(request: &Administer) -> Duration {
    match request {
        Administer::Import { .. } | Administer::Restore(_) => IMPORT_TIMEOUT,
        Administer::Add(_) | Administer::SetKeys(_) | Administer::Delete(_) => ANSWER_TIMEOUT,
    }
}

pub(super) fn unavailable(shard: ShardId, why: &str) -> BrokerError {
    BrokerError::Unavailable(format!("shard {} {why}", shard.0))
}

/// Why there is no answer that fits.
pub(super) fn refused(shard: ShardId, answer: Answer) -> BrokerError {
    match answer {
        Answer::NotLed { elsewhere: true } => unavailable(shard, "is led by another node at present"),
        Answer::NotLed { elsewhere: false } => unavailable(shard, "has no leader that is ready"),
        Answer::Silent => unavailable(shard, "does not answer"),
        Answer::Failed(sentence) => BrokerError::Failed(sentence),
        Answer::Administered(_) | Answer::Listing(_) | Answer::Coming => BrokerError::Failed(format!(
            "the leader of shard {} has not answered what it was asked",
            shard.0
        )),
    }
}

/// A part of the accounts of a shard, from its rows.
fn read(group: &Group, map: &ShardMap, shard: ShardId, page: &Page, bytes_max: usize) -> Result<Listing, String> {
    let rows = group.rows();
    let mut listing = Listing::default();
    let mut after = page.from.after.clone();
    let mut bytes = 0;
    let looked_at_max = page.looked_at_max.min(LOOKED_AT_MAX);
    for slot in page.from.slot..SHARD_SLOTS {
        if map.shard_of(slot) != shard {
            break;
        }
        loop {
            let wanted = (page.count - listing.accounts.len()).min(LOOKED_AT_MAX);
            let found = accounts_of(&rows, slot, after.as_ref(), wanted).map_err(|error| error.to_string())?;
            let is_last = found.len() < wanted;
            for account in found {
                listing.looked_at += 1;
                after = Some(account.jid.clone());
                if page.filter.admits(&account.jid) {
                    bytes += listed_bytes(&account);
                    listing.accounts.push(account);
                }
                if bytes >= bytes_max {
                    break;
                }
            }
            let is_full = listing.accounts.len() >= page.count || bytes >= bytes_max;
            if after.is_some() && (is_full || listing.looked_at >= looked_at_max) {
                listing.next = Some(Position { slot, after });
                return Ok(listing);
            }
            if is_last {
                break;
            }
        }
        after = None;
    }
    Ok(listing)
}

/// A place in the list, for whoever asks for the next page: the slot, and the address.
fn cursor(position: &Position) -> Cursor {
    let after = position.after.as_ref().map_or("", |jid| jid.as_str());
    Cursor([&position.slot.to_be_bytes(), after.as_bytes()].concat().into())
}

fn position(cursor: &Cursor) -> Option<Position> {
    let (slot, after) = cursor.0.split_first_chunk()?;
    let after = match after {
        [] => None,
        after => Some(jid::BareJid::parse(std::str::from_utf8(after).ok()?).ok()?),
    };
    let slot = u16::from_be_bytes(*slot);
    Some(Position { slot, after })
}
