//! Which connections are taken, and what strangers may do: as many connections as the process may have, so many that have not
//! logged in, of all and of one block of addresses, and so often.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics;
use super::rates::{Block, Buckets, Rate};

/// Bounds on strangers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrangerLimits {
    /// Connections. Full: the next is closed at once.
    pub(crate) connections_max: usize,
    /// Connections that have not logged in. Full: the next is closed at once.
    pub(crate) strangers_max: usize,
    /// Of these, those of one block. Full: the next is closed at once.
    pub(crate) strangers_per_block_max: u32,
    /// Blocks that rates tell apart. Full: the others share.
    pub(crate) blocks_max: usize,
    /// Connections of one block. Beyond: closed at once.
    pub(crate) connections: Option<Rate>,
    /// Failed logins of one block. Beyond: the stream ends, and the block's next connections are closed at once.
    pub(crate) failed_logins: Option<Rate>,
    /// Accounts made by one block. Beyond: `resource-constraint`.
    pub(crate) registrations_per_block: Option<Rate>,
    /// Accounts made by all. Beyond: `resource-constraint`.
    pub(crate) registrations: Option<Rate>,
}

/// Counts connections, and what strangers do.
#[derive(Debug)]
pub(super) struct Admission {
    limits: StrangerLimits,
    connections: AtomicUsize,
    strangers: Mutex<Strangers>,
    opened: Buckets,
    failed_logins: Buckets,
    registrations_per_block: Buckets,
    registrations: Buckets,
}

#[derive(Debug, Default)]
struct Strangers {
    all: usize,
    by_block: HashMap<Block, u32>,
}

/// A connection that was taken; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Admission>);

/// A connection that has not logged in; it counts for its block until this is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    admission: Arc<Admission>,
    block: Block,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are as many as there may be.
    Full,
    /// Too many have not logged in.
    Strangers,
    /// Too many of this block have not logged in.
    Address,
    /// This block opens too many in a short time.
    Rate,
    /// Too many logins of this block have failed.
    FailedLogins,
}

impl Refusal {
    /// A name for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Strangers => "strangers",
            Self::Address => "address",
            Self::Rate => "rate",
            Self::FailedLogins => "failed-logins",
        }
    }
}

impl Admission {
    pub(super) fn new(limits: StrangerLimits) -> Arc<Self> {
        let buckets = |rate| Buckets::new(rate, limits.blocks_max);
        Arc::new(Self {
            limits,
            connections: AtomicUsize::new(0),
            strangers: Mutex::default(),
            opened: buckets(limits.connections),
            failed_logins: buckets(limits.failed_logins),
            registrations_per_block: buckets(limits.registrations_per_block),
            registrations: buckets(limits.registrations),
        })
    }

    /// Takes a connection from `address`, or says why not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, now: Duration) -> Result<(Place, Stranger), Refusal> {
        let block = Block::of(address);
        if self.failed_logins.is_empty(block, now) {
            return Err(Refusal::FailedLogins);
        }
        if !self.opened.take(block, now) {
            return Err(Refusal::Rate);
        }
        let place = Place(Arc::clone(self));
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.limits.connections_max {
            return Err(Refusal::Full);
        }
        let mut strangers = self.strangers();
        if strangers.all >= self.limits.strangers_max {
            return Err(Refusal::Strangers);
        }
        let count = strangers.by_block.entry(block).or_default();
        if *count >= self.limits.strangers_per_block_max {
            return Err(Refusal::Address);
        }
        *count += 1;
        strangers.all += 1;
        drop(strangers);
        metrics::strangers(1.0);
        let stranger = Stranger {
            admission: Arc::clone(self),
            block,
        };
        Ok((place, stranger))
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All blocks are one where something is counted for all.
    fn everybody() -> Block {
        Block::of(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }
}

impl Stranger {
    /// A login of this stranger has failed; says whether there may be another.
    pub(super) fn has_failed(&self, now: Duration) -> bool {
        self.admission.failed_logins.take(self.block, now)
    }

    /// So many of its failures were on the way to an account that it has logged in to.
    pub(super) fn is_forgiven(&self, failures: u8) {
        for _ in 0..failures {
            self.admission.failed_logins.give_back(self.block);
        }
    }

    /// Whether this stranger may have an account made. Otherwise a name for metrics of what is used up.
    pub(super) fn registers(&self, now: Duration) -> Result<(), &'static str> {
        let admission = &self.admission;
        if !admission.registrations_per_block.take(self.block, now) {
            return Err("address");
        }
        if !admission.registrations.take(Admission::everybody(), now) {
            admission.registrations_per_block.give_back(self.block);
            return Err("all");
        }
        Ok(())
    }

    /// The account was not made.
    pub(super) fn has_not_registered(&self) {
        self.admission.registrations_per_block.give_back(self.block);
        self.admission.registrations.give_back(Admission::everybody());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        metrics::strangers(-1.0);
        let mut strangers = self.admission.strangers();
        strangers.all -= 1;
        if let Some(count) = strangers.by_block.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                strangers.by_block.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bounds(connections_max: usize, strangers_max: usize, strangers_per_block_max: u32) -> StrangerLimits {
        StrangerLimits {
            connections_max,
            strangers_max,
            strangers_per_block_max,
            blocks_max: 100,
            connections: None,
            failed_logins: None,
            registrations_per_block: None,
            registrations: None,
        }
    }

    fn hourly(permits: u32) -> Option<Rate> {
        Some(Rate { permits, period: HOUR })
    }

    #[test]
    fn one_address_has_so_many_strangers_and_no_more() {
        let admission = Admission::new(bounds(100, 100, 2));
        let one = admission.admit(address("192.0.2.1"), NOW).unwrap();
        let (_place, stranger) = admission.admit(address("::ffff:192.0.2.1"), NOW).unwrap();
        let refused = admission.admit(address("192.0.2.1"), NOW).unwrap_err();
        assert_eq!(refused, Refusal::Address);
        assert!(admission.admit(address("192.0.2.2"), NOW).is_ok());
        // It has logged in.
        drop(stranger);
        assert!(admission.admit(address("192.0.2.1"), NOW).is_ok());
        drop(one);
    }

    #[test]
    fn all_addresses_together_have_so_many_strangers_and_no_more() {
        let admission = Admission::new(bounds(100, 2, 100));
        let _one = admission.admit(address("192.0.2.1"), NOW).unwrap();
        let (_place, stranger) = admission.admit(address("192.0.2.2"), NOW).unwrap();
        let refused = admission.admit(address("192.0.2.3"), NOW).unwrap_err();
        assert_eq!(refused, Refusal::Strangers);
        drop(stranger);
        assert!(admission.admit(address("192.0.2.3"), NOW).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let admission = Admission::new(bounds(100, 100, 1));
        let _one = admission.admit(address("2001:db8::1"), NOW).unwrap();
        let refused = admission.admit(address("2001:db8::2"), NOW).unwrap_err();
        assert_eq!(refused, Refusal::Address);
        assert!(admission.admit(address("2001:db8:0:1::1"), NOW).is_ok());
    }

    #[test]
    fn there_are_so_many_connections_and_no_more() {
        let admission = Admission::new(bounds(2, 100, 100));
        let one = admission.admit(address("192.0.2.1"), NOW).unwrap();
        let _two = admission.admit(address("192.0.2.2"), NOW).unwrap();
        for _ in 0..2 {
            let refused = admission.admit(address("192.0.2.3"), NOW).unwrap_err();
            assert_eq!(refused, Refusal::Full);
        }
        drop(one);
        assert!(admission.admit(address("192.0.2.3"), NOW).is_ok());
    }

    #[test]
    fn an_address_that_fails_to_log_in_too_often_is_not_heard_for_a_while() {
        let limits = StrangerLimits {
            failed_logins: hourly(2),
            ..bounds(100, 100, 100)
        };
        let admission = Admission::new(limits);
        let (_place, stranger) = admission.admit(address("192.0.2.1"), NOW).unwrap();
        assert!(stranger.has_failed(NOW) && stranger.has_failed(NOW));
        stranger.is_forgiven(1);
        assert!(stranger.has_failed(NOW));
        assert!(!stranger.has_failed(NOW));
        let refused = admission.admit(address("192.0.2.1"), NOW).unwrap_err();
        assert_eq!(refused, Refusal::FailedLogins);
        assert!(admission.admit(address("192.0.2.2"), NOW).is_ok());
        assert!(admission.admit(address("192.0.2.1"), NOW + HOUR / 2).is_ok());
    }

    #[test]
    fn accounts_are_made_so_often_by_one_address_and_by_all() {
        let limits = StrangerLimits {
            registrations_per_block: hourly(2),
            registrations: hourly(3),
            ..bounds(100, 100, 100)
        };
        let admission = Admission::new(limits);
        let (_place, one) = admission.admit(address("192.0.2.1"), NOW).unwrap();
        let (_place, two) = admission.admit(address("192.0.2.2"), NOW).unwrap();
        assert_eq!([one.registers(NOW), one.registers(NOW)], [Ok(()), Ok(())]);
        assert_eq!(one.registers(NOW), Err("address"));
        assert_eq!(two.registers(NOW), Ok(()));
        assert_eq!(two.registers(NOW), Err("all"));
        // One was not made.
        one.has_not_registered();
        assert_eq!(two.registers(NOW), Ok(()));
    }
}
