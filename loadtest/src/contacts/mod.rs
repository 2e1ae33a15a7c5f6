//! Contacts of simulated accounts: who they are, how they become contacts, and what a login with them is.
//!
//! Accounts that log in and accounts that stay are two halves of the fleet: account n of the first half has the next contacts
//! of the second from n on, and so each of the second has as many of the first. Those who stay are there all the time, so that
//! every login gets the presence of all of its contacts.

pub mod arrival;
pub mod setup;
pub mod standing;

use heronry_client::jid::BareJid;

use crate::options::ServerOptions;

/// Who is whose contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circle {
    /// Accounts that log in, numbers from 0; as many stay, numbers from there on.
    pub users: usize,
    /// Contacts of each.
    pub contacts: usize,
}

impl Circle {
    /// All accounts.
    pub fn accounts(self) -> std::ops::Range<usize> {
        0..2 * self.users
    }

    /// Accounts that stay.
    pub fn standing(self) -> std::ops::Range<usize> {
        self.users..2 * self.users
    }

    /// The contacts of an account, by their numbers.
    pub fn of(self, account: usize) -> impl Iterator<Item = usize> {
        let Self { users, contacts } = self;
        let logs_in = account < users;
        (0..contacts).map(move |distance| match logs_in {
            true => users + (account + distance) % users,
            false => (account + users - distance) % users,
        })
    }

    /// The same as addresses.
    ///
    /// # Errors
    /// When prefix or domain make none.
    pub fn addresses(self, account: usize, server: &ServerOptions) -> anyhow::Result<Vec<BareJid>> {
        let address = |number: usize| Ok(BareJid::new(Some(&server.user(number)), &server.domain)?);
        self.of(account).map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_mutual_and_everybody_has_as_many() {
        for (users, contacts) in [(5, 3), (3, 3), (1, 1), (4, 1)] {
            let circle = Circle { users, contacts };
            for account in circle.accounts() {
                let mut of: Vec<_> = circle.of(account).collect();
                for contact in &of {
                    assert!(
                        circle.of(*contact).any(|other| other == account),
                        "{account} and {contact}"
                    );
                    assert_ne!(
                        circle.standing().contains(contact),
                        circle.standing().contains(&account)
                    );
                }
                of.sort_unstable();
                of.dedup();
                assert_eq!(of.len(), contacts);
            }
        }
    }
}
