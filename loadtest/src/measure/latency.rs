//! Latencies in an HDR histogram: three significant digits, from a microsecond to ten minutes.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

const MICROSECONDS_MAX: u64 = 600_000_000;

/// Records latencies; takes some 200 KB whatever the number of records.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// A summary of recorded latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "percentiles, and what their names say")]
pub struct Summary {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MICROSECONDS_MAX, 3).expect("the bounds are constants in order"))
    }
}

impl Latencies {
    /// Records one latency. Longer than ten minutes counts as ten minutes.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(
            u64::try_from(latency.as_micros())
                .unwrap_or(u64::MAX)
                .clamp(1, MICROSECONDS_MAX),
        );
    }

    /// Records a latency of something that was due every `interval`, together with those that could not happen meanwhile:
    /// after a pause of ten intervals, nine more of them were late too.
    pub fn record_periodic(&mut self, latency: Duration, interval: Duration) {
        let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let latency = microseconds(latency).clamp(1, MICROSECONDS_MAX);
        // The value is within the bounds, so this cannot fail.
        let _ = self.0.record_correct(latency, microseconds(interval));
    }

    /// What was recorded so far.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.0.len(),
            mean_us: self.0.mean(),
            p50_us: self.0.value_at_quantile(0.5),
            p90_us: self.0.value_at_quantile(0.9),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
        }
    }

    /// Forgets everything, for instance at the end of the warm-up.
    pub fn clear(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_keep_three_digits() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|n| latencies.record(Duration::from_micros(n * 100)));
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        for (value, expected) in [
            (summary.p50_us, 50_000),
            (summary.p90_us, 90_000),
            (summary.p99_us, 99_000),
            (summary.max_us, 100_000),
        ] {
            assert!(value.abs_diff(expected) <= expected / 1000, "{value} {expected}");
        }
    }

    #[test]
    fn what_is_beyond_the_range_is_kept_at_its_ends() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(86_400));
        let summary = latencies.summary();
        assert_eq!(summary.count, 2);
        assert!(summary.max_us >= MICROSECONDS_MAX, "{summary:?}");
        assert_eq!(summary.p50_us, 1);
    }

    #[test]
    fn a_pause_counts_as_all_that_it_held_up() {
        let mut latencies = Latencies::default();
        (0..10).for_each(|_| latencies.record_periodic(Duration::from_micros(5), Duration::from_millis(5)));
        latencies.record_periodic(Duration::from_millis(100), Duration::from_millis(5));
        let summary = latencies.summary();
        assert_eq!(summary.count, 10 + 20);
        assert!(summary.p50_us > 20_000, "{summary:?}");
    }

    #[test]
    fn nothing_recorded_is_all_zero() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_millis(3));
        latencies.clear();
        assert_eq!(latencies.summary().count, 0);
        assert_eq!(latencies.summary().max_us, 0);
    }
}
