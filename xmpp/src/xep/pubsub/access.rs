//! Who may do what at a node: affiliations (XEP-0060 §4.1), access models (§4.5, §6.5.1) and publish models.

use super::config::{AccessModel, PublishModel};
use super::errors;
use super::evaluation::{Evaluation, Node, Refusal};
use super::rows::{Affiliation, SubscriptionRow, subscriber_of, subscription_key, subscriptions_prefix};
use crate::jid::{BareJid, Jid};
use crate::stanza::StanzaError;

/// What comes of a wish to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The subscription is in force.
    Subscribed,
    /// An owner has to approve it.
    Pending,
}

/// A subscription with its address and SubID.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) jid: Jid,
    pub(crate) subid: String,
    pub(crate) row: SubscriptionRow,
}

impl Evaluation<'_> {
    /// Whether who asks may subscribe (§6.1.3).
    pub(crate) fn may_subscribe(&self, node: &Node) -> Result<Entry, Refusal> {
        let affiliation = self.affiliation(node, &self.origin.to_bare())?;
        match affiliation {
            Affiliation::Outcast | Affiliation::PublishOnly => return Err(StanzaError::forbidden().into()),
            _ if !node.config.subscribe => return Err(errors::unsupported("subscribe").into()),
            Affiliation::Owner | Affiliation::Publisher | Affiliation::Member => return Ok(Entry::Subscribed),
            Affiliation::None => {}
        }
        match node.config.access_model() {
            AccessModel::Open => Ok(Entry::Subscribed),
            AccessModel::Authorize => Ok(Entry::Pending),
            AccessModel::Whitelist => Err(errors::closed_node().into()),
            AccessModel::Presence | AccessModel::Roster => self.stands_well(node).map(|()| Entry::Subscribed),
        }
    }

    /// Whether who asks may have items (§6.5.1, §6.5.9); `subid` is the subscription it names.
    pub(crate) fn may_retrieve(&self, node: &Node, subid: Option<&str>) -> Result<(), Refusal> {
        let entity = self.origin.to_bare();
        let affiliation = self.affiliation(node, &entity)?;
        if matches!(affiliation, Affiliation::Outcast | Affiliation::PublishOnly) {
            return Err(StanzaError::forbidden().into());
        }
        let found = self.subscriptions_of(node, &entity)?;
        let own: Vec<&Found> = found
            .iter()
            .filter(|found| found.jid == *self.origin || found.jid.is_bare())
            .filter(|found| !found.row.pending)
            .collect();
        match subid {
            Some(subid) if !own.is_empty() && !own.iter().any(|found| found.subid == subid) => {
                return Err(errors::invalid_subid().into());
            }
            None if own
                .iter()
                .any(|one| own.iter().any(|other| one.jid == other.jid && one.subid != other.subid)) =>
            {
                return Err(errors::subid_required().into());
            }
            _ => {}
        }
        if matches!(
            affiliation,
            Affiliation::Owner | Affiliation::Publisher | Affiliation::Member
        ) {
            return Ok(());
        }
        match node.config.access_model() {
            AccessModel::Open => Ok(()),
            AccessModel::Authorize if own.is_empty() => Err(errors::only_for_subscribers().into()),
            AccessModel::Authorize => Ok(()),
            AccessModel::Whitelist => Err(errors::closed_node().into()),
            AccessModel::Presence | AccessModel::Roster => self.stands_well(node),
        }
    }

    /// Whether who asks may publish; says its affiliation.
    pub(crate) fn may_publish(&self, node: &Node) -> Result<Affiliation, StanzaError> {
        let entity = self.origin.to_bare();
        let affiliation = self.affiliation(node, &entity)?;
        match affiliation {
            Affiliation::Owner | Affiliation::Publisher | Affiliation::PublishOnly => return Ok(affiliation),
            Affiliation::Outcast => return Err(StanzaError::forbidden()),
            Affiliation::Member | Affiliation::None => {}
        }
        let may = match node.config.publish_model() {
            PublishModel::Publishers => false,
            PublishModel::Open => true,
            PublishModel::Subscribers => {
                let found = self.subscriptions_of(node, &entity)?;
                found.iter().any(|found| !found.row.pending)
            }
        };
        if may {
            Ok(affiliation)
        } else {
            Err(StanzaError::forbidden())
        }
    }

    /// Whether an owner's roster lets who asks in. For `presence` it must be subscribed to the owner's presence; for `roster` it must be in
    /// one of the groups besides.
    fn stands_well(&self, node: &Node) -> Result<(), Refusal> {
        let wants_group = node.config.access_model() == AccessModel::Roster;
        let groups = &node.config.roster_groups_allowed;
        let owners = node.row.owners.iter().filter_map(|owner| BareJid::parse(owner).ok());
        for owner in owners.filter(|owner| self.config.is_account(&Jid::from(owner))) {
            let standing = self.standings.get(&owner).ok_or_else(|| Refusal::Ask(owner.clone()))?;
            let in_group = || standing.groups.iter().any(|group| groups.contains(group));
            if standing.subscribed && (!wants_group || in_group()) {
                return Ok(());
            }
        }
        Err(if wants_group {
            errors::not_in_roster_group()
        } else {
            errors::presence_subscription_required()
        }
        .into())
    }

    /// The subscriptions of an account and of its resources, pending ones too.
    pub(crate) fn subscriptions_of(&self, node: &Node, entity: &BareJid) -> Result<Vec<Found>, StanzaError> {
        let prefix = subscriptions_prefix(self.address, node.incarnation());
        let mut found = Vec::new();
        // Of the account itself, and of its resources. An account may have as many resources as it likes, one after the other.
        let max = self.limits().subscriptions_per_jid_max * RESOURCES_MAX;
        let bare = subscription_key(self.address, node.incarnation(), entity.as_str(), "");
        let resources = [&prefix[..], entity.as_str().as_bytes(), b"/"].concat();
        for of in [&bare[..], &resources] {
            for (key, value) in self.scan(of, of, max)? {
                let subscriber = key.get(prefix.len()..).and_then(subscriber_of);
                let (jid, subid) = subscriber.ok_or_else(StanzaError::internal_server_error)?;
                let row = super::evaluation::decode(value)?;
                found.push(Found { jid, subid, row });
            }
        }
        Ok(found)
    }

    /// The subscriptions of exactly this address.
    pub(crate) fn subscriptions_at(&self, node: &Node, jid: &Jid) -> Result<Vec<Found>, StanzaError> {
        let prefix = subscription_key(self.address, node.incarnation(), jid.as_str(), "");
        let rows = self.scan(&prefix, &prefix, self.limits().subscriptions_per_jid_max)?;
        let found = rows.into_iter().map(|(key, value)| {
            let subid = key
                .get(prefix.len()..)
                .and_then(|subid| std::str::from_utf8(subid).ok());
            Ok(Found {
                jid: jid.clone(),
                subid: subid.unwrap_or_default().to_owned(),
                row: super::evaluation::decode(value)?,
            })
        });
        found.collect()
    }

    /// The one subscription of `jid` that is meant.
    ///
    /// # Errors
    /// `missing` when there is none; that a SubID is needed, or is not one of them.
    pub(crate) fn subscription(
        &self,
        node: &Node,
        jid: &Jid,
        subid: Option<&str>,
        missing: fn() -> StanzaError,
    ) -> Result<Found, StanzaError> {
        let mut found = self.subscriptions_at(node, jid)?;
        match subid {
            _ if found.is_empty() => Err(missing()),
            Some(subid) => found
                .into_iter()
                .find(|found| found.subid == subid)
                .ok_or_else(errors::invalid_subid),
            None if found.len() > 1 => Err(errors::subid_required()),
            None => found.pop().ok_or_else(missing),
        }
    }
}

/// Resources of one account that are looked at.
const RESOURCES_MAX: usize = 64;
