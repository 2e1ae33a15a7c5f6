//! A broker that keeps accounts in memory, for tests of what is in front of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use heronry_node::admin::{BackupRows, Broker, BrokerError, BrokerStatus, Cursor, UserFilter, UserPage};
use heronry_proto::admin::{
    BackupReply, ClusterDrainReply, ClusterEvictReply, ClusterInitReply, ClusterStatusReply, ClusterUpgradeReply,
    RestoreAdvanceRequest, RestoreBeginRequest, RestorePhase, RestoreRowsRequest,
};
use heronry_xmpp::{
    jid::BareJid,
    rows::Timestamp,
    sasl::ScramKeys,
    shard::{Account, Existing, Imported, Listed},
};

#[derive(Default)]
pub(crate) struct FakeBroker {
    pub(crate) accounts: Mutex<BTreeMap<String, Vec<ScramKeys>>>,
    pub(crate) ready: AtomicBool,
    pub(crate) problems: Mutex<Vec<String>>,
    /// How many batches of imports find it unavailable before one does not.
    pub(crate) unavailable: AtomicU32,
    /// Batches of imports that it took.
    pub(crate) batches: AtomicU32,
}

impl Broker for FakeBroker {
    fn not_ready(&self) -> Vec<String> {
        match self.ready.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => vec!["shard 3 has no leader".to_owned()],
        }
    }

    fn measure(&self) {}

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
        filter: UserFilter,
        after: Option<Cursor>,
        count: usize,
    ) -> Result<UserPage, BrokerError> {
        let accounts = self.accounts.lock().unwrap();
        let listed = |(jid, keys): (&String, &Vec<ScramKeys>)| Listed {
            jid: BareJid::parse(jid).unwrap(),
            created: Timestamp(1_000_000),
            keys: keys.clone(),
        };
        let wanted = |account: &Listed| {
            after
                .as_ref()
                .is_none_or(|after| account.jid.as_str().as_bytes() > &after.0[..])
                && filter.admits(&account.jid)
        };
        let page: Vec<_> = accounts.iter().map(listed).filter(wanted).take(count).collect();
        let next = (page.len() == count).then(|| Cursor(page[count - 1].jid.as_str().to_owned().into()));
        Ok(UserPage { accounts: page, next })
    }

    /// Two lanes, so that batches of different lanes are mixed.
    fn import_lane(&self, account: &BareJid) -> usize {
        account.as_str().len() % 2
    }

    async fn user_import(
        &self,
        lane: usize,
        wanted: Arc<[Account]>,
        existing: Existing,
    ) -> Result<Vec<Imported>, BrokerError> {
        if self
            .unavailable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1))
            .is_ok()
        {
            return Err(BrokerError::Unavailable("not now".to_owned()));
        }
        let mut accounts = self.accounts.lock().unwrap();
        let import = |account: &Account| {
            assert_eq!(self.import_lane(&account.jid), lane);
            let jid = account.jid.as_str().to_owned();
            match (accounts.contains_key(&jid), existing) {
                (true, Existing::Keep) => return Imported::Kept,
                (true, Existing::Refuse) => return Imported::Exists,
                _ => {}
            }
            match accounts.insert(jid, account.keys.clone()) {
                None => Imported::Created,
                Some(_) => Imported::Replaced,
            }
        };
        let results = wanted.iter().map(import).collect();
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(results)
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

    async fn backup(&self) -> Result<BackupReply, BrokerError> {
        Err(no_cluster())
    }

    async fn backup_shard(&self, _: u16) -> Result<BackupRows, BrokerError> {
        Err(no_cluster())
    }

    async fn restore_begin(&self, _: RestoreBeginRequest) -> Result<RestorePhase, BrokerError> {
        Err(no_cluster())
    }

    async fn restore_rows(&self, _: RestoreRowsRequest) -> Result<(), BrokerError> {
        Err(no_cluster())
    }

    async fn restore_advance(&self, _: RestoreAdvanceRequest) -> Result<(), BrokerError> {
        Err(no_cluster())
    }

    async fn cluster_status(&self) -> Result<ClusterStatusReply, BrokerError> {
        Ok(ClusterStatusReply {
            node_id: 7,
            waits_for: "waiting for nobody".to_owned(),
            ..ClusterStatusReply::default()
        })
    }

    async fn cluster_init(&self, _: bool) -> Result<ClusterInitReply, BrokerError> {
        Err(no_cluster())
    }

    async fn cluster_drain(&self, _: String) -> Result<ClusterDrainReply, BrokerError> {
        Err(no_cluster())
    }

    async fn cluster_evict(&self, _: String, _: bool) -> Result<ClusterEvictReply, BrokerError> {
        Err(no_cluster())
    }

    async fn cluster_upgrade(&self) -> Result<ClusterUpgradeReply, BrokerError> {
        Err(no_cluster())
    }

    async fn cluster_rebalance(&self) -> Result<(), BrokerError> {
        Err(no_cluster())
    }
}

fn no_cluster() -> BrokerError {
    BrokerError::Refused("there is no cluster behind this broker".to_owned())
}
