//! What an entry depends on: it was evaluated upon the one before it.

/// A place in a chain, as an entry names it; the term is that of the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Which chain of its term: a later one is greater.
    pub(super) round: u32,
    /// From 1; 0: the entry depends on none.
    pub(super) number: u64,
}

/// The last entry of a chain that was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) term: u64,
    pub(super) link: Link,
}

impl Chain {
    /// Whether an entry of `term` is the next; then it is the last from now on. An entry is not when one before it was refused: what it
    /// contains was evaluated upon something that never became true.
    pub(super) fn goes_on(&mut self, term: u64, link: Link) -> bool {
        let Link { round, number } = link;
        let fits = if (term, round) == (self.term, self.link.round) {
            number == self.link.number + 1
        } else {
            (term, round) > (self.term, self.link.round) && number == 1
        };
        if number == 0 {
            return true;
        }
        if fits {
            *self = Self { term, link };
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_whose_predecessor_is_missing_is_passed_over_and_all_after_it() {
        let mut chain = Chain::default();
        let link = |round, number| Link { round, number };
        assert!(chain.goes_on(1, link(0, 1)));
        assert!(chain.goes_on(1, link(0, 2)));
        assert!(!chain.goes_on(1, link(0, 4)));
        assert!(!chain.goes_on(1, link(0, 5)));
        assert!(chain.goes_on(1, link(1, 1)));
        assert!(!chain.goes_on(1, link(0, 3)));
        assert!(!chain.goes_on(2, link(0, 2)));
        assert!(chain.goes_on(2, link(0, 1)));
        assert!(!chain.goes_on(1, link(1, 2)));
        assert!(chain.goes_on(2, link(0, 0)));
        assert!(chain.goes_on(2, link(0, 2)));
    }
}
