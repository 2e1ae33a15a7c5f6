//! A broker that keeps accounts in memory, for tests of what is in front of it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use heronry_node::admin::{Broker, BrokerError, BrokerStatus, Cursor, UserPage};
use heronry_xmpp::{jid::BareJid, sasl::ScramKeys};

#[derive(Default)]
pub(crate) struct FakeBroker {
    pub(crate) accounts: Mutex<BTreeMap<String, Vec<ScramKeys>>>,
    pub(crate) ready: AtomicBool,
    pub(crate) problems: Mutex<Vec<String>>,
}

impl Broker for FakeBroker {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    async fn status(&self) -> BrokerStatus {
        BrokerStatus {
            node_id: 7,
            problems: self.problems.lock().unwrap().clone(),
            ..BrokerStatus::default()
        }
    }

    async fn user_add(&self, account: BareJid, keys: Vec<ScramKeys>) -> Result<(), BrokerError> {
        let mut accounts = self.accounts.lock().unwrap();
        if accounts.contains_key(account.as_str()) {
            return Err(BrokerError::AlreadyExists(account));
        }
        accounts.insert(account.as_str().to_owned(), keys);
        Ok(())
    }

    async fn user_list(
        &self,
        domain: Option<String>,
        after: Option<Cursor>,
        count: usize,
    ) -> Result<UserPage, BrokerError> {
        let accounts = self.accounts.lock().unwrap();
        let wanted = |jid: &&String| {
            after.as_ref().is_none_or(|after| jid.as_bytes() > &after.0[..])
                && domain
                    .as_ref()
                    .is_none_or(|domain| jid.ends_with(&format!("@{domain}")))
        };
        let page: Vec<_> = accounts
            .keys()
            .filter(wanted)
            .take(count)
            .map(|jid| BareJid::parse(jid).unwrap())
            .collect();
        let next = (page.len() == count).then(|| Cursor(page[count - 1].as_str().to_owned().into()));
        Ok(UserPage { accounts: page, next })
    }

    async fn user_delete(&self, account: BareJid) -> Result<(), BrokerError> {
        match self.accounts.lock().unwrap().remove(account.as_str()) {
            Some(_) => Ok(()),
            None => Err(BrokerError::NotFound(account)),
        }
    }

    async fn user_passwd(&self, account: BareJid, keys: Vec<ScramKeys>) -> Result<(), BrokerError> {
        match self.accounts.lock().unwrap().get_mut(account.as_str()) {
            Some(old) => *old = keys,
            None => return Err(BrokerError::NotFound(account)),
        }
        Ok(())
    }
}
