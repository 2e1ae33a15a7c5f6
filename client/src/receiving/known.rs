//! Those we have sent messages to: they know that we are there.

use std::collections::{HashSet, VecDeque};

/// Kept at most; the first are forgotten first.
const CORRESPONDENTS_MAX: usize = 256;

/// A bounded set of accounts.
#[derive(Debug, Default)]
pub(super) struct Correspondents {
    accounts: HashSet<Box<str>>,
    /// First added first.
    order: VecDeque<Box<str>>,
}

impl Correspondents {
    pub(super) fn add(&mut self, account: &str) {
        if self.accounts.contains(account) {
            return;
        }
        if self.order.len() == CORRESPONDENTS_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.accounts.remove(&first);
        }
        self.order.push_back(account.into());
        self.accounts.insert(account.into());
    }

    pub(super) fn contains(&self, account: &str) -> bool {
        self.accounts.contains(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_forgotten_first() {
        let mut known = Correspondents::default();
        for n in 0..=CORRESPONDENTS_MAX {
            known.add(&n.to_string());
            known.add(&n.to_string());
        }
        assert!(!known.contains("0") && known.contains("1") && known.contains("256"));
        assert_eq!(
            (known.accounts.len(), known.order.len()),
            (CORRESPONDENTS_MAX, CORRESPONDENTS_MAX)
        );
    }
}
