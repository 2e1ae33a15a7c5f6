//! Service records in the order in which they are to be tried (RFC 2782, XEP-0368 §3).

use super::place::Encryption;

/// One service record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) target: String,
    pub(super) port: u16,
    /// What the service's name says: `_xmpps-client` is direct TLS.
    pub(super) encryption: Encryption,
}

/// Lowest priority first; among equals at random, as often first as the weights say. `random` gives a number from 0 to the
/// one it is given, both included.
pub(super) fn in_order(mut records: Vec<Record>, mut random: impl FnMut(u32) -> u32) -> Vec<Record> {
    // RFC 2782, "Weight": records of weight 0 stand at the beginning of their priority, so that they have a small chance.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let equals = records.iter().take_while(|record| record.priority == priority);
        let sum: u32 = equals.map(|record| u32::from(record.weight)).sum();
        let chosen = random(sum);
        let mut running = 0;
        let position = records.iter().position(|record| {
            running += u32::from(record.weight);
            running >= chosen
        });
        ordered.push(records.remove(position.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Record {
        Record {
            priority,
            weight,
            target: target.to_owned(),
            port: 5222,
            encryption: Encryption::StartTls,
        }
    }

    /// Any generator will do that is the same every time.
    fn numbers() -> impl FnMut(u32) -> u32 {
        let mut state = 1_u64;
        move |max| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % (u64::from(max) + 1)) as u32
        }
    }

    #[test]
    fn lower_priorities_come_first_whatever_the_weights() {
        let mut random = numbers();
        for _ in 0..100 {
            let records = vec![
                record(20, 60_000, "c"),
                record(10, 0, "a"),
                record(10, 5, "b"),
                record(5, 0, "first"),
            ];
            let order: Vec<_> = in_order(records, &mut random)
                .into_iter()
                .map(|record| record.target)
                .collect();
            assert_eq!((&*order[0], &*order[3]), ("first", "c"));
        }
    }

    #[test]
    fn weights_are_shares() {
        let mut random = numbers();
        let mut first = HashMap::<String, u32>::new();
        for _ in 0..10_000 {
            let records = vec![
                record(1, 75, "three quarters"),
                record(1, 25, "one quarter"),
                record(1, 0, "hardly ever"),
            ];
            let order = in_order(records, &mut random);
            assert_eq!(order.len(), 3);
            *first.entry(order[0].target.clone()).or_default() += 1;
        }
        let share = |target: &str| first.get(target).copied().unwrap_or_default();
        assert!((7_000..8_000).contains(&share("three quarters")), "{first:?}");
        assert!((2_000..3_000).contains(&share("one quarter")), "{first:?}");
        assert!((1..500).contains(&share("hardly ever")), "{first:?}");
    }

    #[test]
    fn the_largest_number_of_the_largest_weights_is_no_overflow() {
        let records = vec![record(1, u16::MAX, "x"); 60];
        assert_eq!(in_order(records, |max| max).len(), 60);
    }
}
