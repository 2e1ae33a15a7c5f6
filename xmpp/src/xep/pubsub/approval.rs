//! XEP-0060 §8.6 and §8.7: owners approve and deny subscriptions.

use super::address::NodeId;
use super::evaluation::{Answer, Evaluation};
use super::event::AUTHORIZATION_FORM_TYPE;
use super::rows::Affiliation;
use crate::jid::Jid;
use crate::stanza::{Stanza, StanzaError};
use crate::xep::data_forms::{self, Form, Kind, boolean};
use crate::xml::CLIENT;

/// What an owner says about a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) node: NodeId,
    subscriber: Jid,
    subid: Option<String>,
    allow: bool,
}

impl Verdict {
    /// Reads a message to the service; `None` when it is something else, or says nothing: a cancelled form leaves things as they are.
    pub(crate) fn of(message: &Stanza) -> Option<Self> {
        let root = message.root_element().ok()?;
        if root.ns() != CLIENT {
            return None;
        }
        let form = Form::parse(root.child("x", data_forms::NS)?).ok()?;
        if form.kind != Kind::Submit || form.form_type() != Some(AUTHORIZATION_FORM_TYPE) {
            return None;
        }
        Some(Self {
            node: NodeId::new(form.value("pubsub#node")?)?,
            subscriber: Jid::parse(form.value("pubsub#subscriber_jid")?).ok()?,
            subid: form.value("pubsub#subid").map(str::to_owned),
            allow: boolean(form.value("pubsub#allow")?)?,
        })
    }
}

impl Verdict {
    /// Whether a message says that its sender will not decide now: the request goes on waiting.
    pub(crate) fn is_cancelled(message: &Stanza) -> bool {
        let root = message.root_element().ok();
        let x = root.as_ref().and_then(|root| root.child("x", data_forms::NS));
        x.and_then(|x| Form::parse(x).ok())
            .is_some_and(|form| form.kind == Kind::Cancel && form.form_type() == Some(AUTHORIZATION_FORM_TYPE))
    }
}

impl Evaluation<'_> {
    /// §8.6. What has been decided already stays as it was: the first owner decides.
    pub(crate) fn judge(&mut self, verdict: &Verdict) -> Answer {
        let mut node = self.owned_node()?;
        let waiting = self
            .subscriptions_at(&node, &verdict.subscriber)?
            .into_iter()
            .find(|found| found.row.pending && verdict.subid.as_ref().is_none_or(|subid| *subid == found.subid));
        let Some(found) = waiting else { return Ok(None) };
        if verdict.allow {
            self.approve(&mut node, found)?;
        } else {
            self.deny(&mut node, &found)?;
        }
        self.keep_state(&node);
        Ok(None)
    }

    /// §8.7.4: who asks is asked again about all that wait.
    pub(crate) fn ask_again(&mut self) -> Answer {
        let node = self.node()?;
        if self.affiliation(&node, &self.origin.to_bare())? != Affiliation::Owner {
            return Err(StanzaError::forbidden().into());
        }
        let owner = Jid::from(self.origin.to_bare());
        let most = self.limits().page_entries_max as u64;
        for found in self.pending(&node, most)? {
            self.ask_owner(&owner, &found.jid, &found.subid);
        }
        Ok(None)
    }
}
