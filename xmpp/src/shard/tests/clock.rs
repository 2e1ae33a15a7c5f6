//! A shard's clock.

use std::sync::Arc;
use std::time::Duration;

use crate::link::ShardId;
use crate::rows::{Key, Rows, RowsError, Timestamp, Value};
use crate::shard::{Config, Io, Shard};
use crate::testkit::Seed;

pub(super) struct Empty;

impl Rows for Empty {
    fn row(&self, _: &[u8]) -> Result<Option<Value>, RowsError> {
        Ok(None)
    }

    fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        Ok(Vec::new())
    }

    fn scan_back(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Key, Value)>, RowsError> {
        Ok(Vec::new())
    }
}

/// DESIGN §4.8.
#[test]
fn time_does_not_go_back_when_the_clock_does() {
    let mut shard = Shard::new(ShardId(0), Arc::new(Config::alone("example.org", 1)));
    let mut stamp = |clock: u64| {
        let io = Io {
            rows: &Empty,
            now: Timestamp(clock),
            elapsed: Duration::ZERO,
            random: &mut Seed::new(1),
            out: &mut Vec::new(),
        };
        shard.stamp(&io).0
    };
    let stamps = [1000, 1000, 10, 1001, 2000].map(&mut stamp);
    assert_eq!(stamps, [1000, 1001, 1002, 1003, 2000]);
}
