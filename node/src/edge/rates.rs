//! How often strangers may do something: a bucket of permits for each block of addresses, filled at a steady rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a table that is full is looked through for entries that say nothing any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Addresses that are counted as one: an IPv4 address, or the 2^64 addresses that an IPv6 network gives each of its members
/// (RFC 4291 §2.5.4). `::ffff:a.b.c.d` is `a.b.c.d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Block(IpAddr);

impl Block {
    /// The block that those share for whom there is no room in a table.
    const OTHERS: Self = Self(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));

    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
            v4 => v4,
        })
    }
}

/// So many in so much time, all at once if need be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// How many.
    pub(crate) permits: u32,
    /// In how much time a bucket that is empty is full again.
    pub(crate) period: Duration,
}

impl Rate {
    /// The time that one permit takes to come back.
    fn interval(self) -> Duration {
        self.period / self.permits.max(1)
    }
}

/// The buckets of all blocks, by when each is full again (the generic cell rate algorithm): one number each.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Without a rate nothing is refused.
    rate: Option<Rate>,
    /// Blocks that are told apart. Full: those that are not in the table share a bucket.
    blocks_max: usize,
    full_at: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    blocks: HashMap<Block, Duration>,
    swept: Duration,
}

impl Buckets {
    pub(super) fn new(rate: Option<Rate>, blocks_max: usize) -> Self {
        Self {
            rate,
            blocks_max,
            full_at: Mutex::default(),
        }
    }

    /// Takes a permit of this block, if it has one.
    pub(super) fn take(&self, block: Block, now: Duration) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut table = self.table();
        let block = table.place(block, self.blocks_max, now);
        let full_at = table.blocks.get(&block).copied().unwrap_or_default().max(now);
        let taken = full_at + rate.interval();
        let permitted = rate.permits > 0 && taken - now <= rate.period;
        if permitted {
            table.blocks.insert(block, taken);
        }
        permitted
    }

    /// Whether this block has no permit now.
    pub(super) fn is_empty(&self, block: Block, now: Duration) -> bool {
        let Some(rate) = self.rate else { return false };
        let table = self.table();
        let full_at = table.blocks.get(&block).or_else(|| table.blocks.get(&Block::OTHERS));
        full_at.is_some_and(|full_at| (*full_at + rate.interval()).saturating_sub(now) > rate.period)
    }

    /// A permit was not used.
    pub(super) fn give_back(&self, block: Block) {
        let Some(rate) = self.rate else { return };
        if let Some(full_at) = self.table().blocks.get_mut(&block) {
            *full_at = full_at.saturating_sub(rate.interval());
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Where the bucket of `block` is.
    fn place(&mut self, block: Block, blocks_max: usize, now: Duration) -> Block {
        let full = |table: &Self| !table.blocks.contains_key(&block) && table.blocks.len() >= blocks_max;
        if full(self) && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.blocks.retain(|_, full_at| *full_at > now);
        }
        if full(self) { Block::OTHERS } else { block }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn block(text: &str) -> Block {
        Block::of(text.parse().unwrap())
    }

    fn three_a_minute(blocks_max: usize) -> Buckets {
        let rate = Rate {
            permits: 3,
            period: MINUTE,
        };
        Buckets::new(Some(rate), blocks_max)
    }

    #[test]
    fn a_block_has_so_many_permits_at_once_and_gets_them_back_one_by_one() {
        let (buckets, one, now) = (three_a_minute(10), block("192.0.2.1"), Duration::from_secs(1000));
        let takes = |now| (0..5).filter(|_| buckets.take(one, now)).count();
        assert_eq!(takes(now), 3);
        assert!(buckets.is_empty(one, now));
        assert!(!buckets.is_empty(block("192.0.2.2"), now));
        assert_eq!(takes(now + MINUTE / 3), 1);
        assert_eq!(takes(now + 10 * MINUTE), 3);
        buckets.give_back(one);
        assert_eq!(takes(now + 10 * MINUTE), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_block_and_a_mapped_address_is_an_ipv4_one() {
        assert_eq!(block("2001:db8::1"), block("2001:db8::2:3:4:5"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
    }

    #[test]
    fn whoever_finds_the_table_full_shares_a_bucket_with_the_others() {
        let (buckets, now) = (three_a_minute(2), Duration::from_secs(1000));
        for known in ["192.0.2.1", "192.0.2.2"] {
            assert!(buckets.take(block(known), now));
        }
        let strangers = (3..20).filter(|n| buckets.take(block(&format!("192.0.2.{n}")), now));
        assert_eq!(strangers.count(), 3);
        assert!(buckets.take(block("192.0.2.1"), now), "whoever is known has a bucket");
        // Entries that say nothing make room.
        let later = now + 2 * MINUTE;
        assert!((0..3).all(|_| buckets.take(block("192.0.2.30"), later)));
        assert!((0..3).all(|_| buckets.take(block("192.0.2.31"), later)));
    }

    #[test]
    fn without_a_rate_nothing_is_refused_and_a_rate_of_none_refuses_everything() {
        let free = Buckets::new(None, 1);
        assert!((0..1000).all(|_| free.take(block("192.0.2.1"), Duration::ZERO)));
        assert!(!free.is_empty(block("192.0.2.1"), Duration::ZERO));
        let nothing = Rate {
            permits: 0,
            period: MINUTE,
        };
        assert!(!Buckets::new(Some(nothing), 1).take(block("192.0.2.1"), Duration::ZERO));
    }
}
