//! Which connections are taken: as many as the process may have, and of one address only so many that have not logged in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections.
#[derive(Debug)]
pub(super) struct Admission {
    connections_max: usize,
    newcomers_per_address_max: u32,
    connections: AtomicUsize,
    newcomers: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection that was taken; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Admission>);

/// A connection that has not logged in; it counts for its address until this is dropped.
#[derive(Debug)]
pub(super) struct Newcomer {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are as many as there may be.
    Full,
    /// Too many from this address have not logged in.
    Address,
}

impl Refusal {
    /// A name for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
        }
    }
}

impl Admission {
    pub(super) fn new(connections_max: usize, newcomers_per_address_max: u32) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            newcomers_per_address_max,
            connections: AtomicUsize::new(0),
            newcomers: Mutex::default(),
        })
    }

    /// Takes a connection from `address`, or says why not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<(Place, Newcomer), Refusal> {
        // An IPv6 network gives each of its members 2^64 addresses (RFC 4291 §2.5.4); and ::ffff:a.b.c.d is a.b.c.d.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
            v4 => v4,
        };
        let place = Place(Arc::clone(self));
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.connections_max {
            return Err(Refusal::Full);
        }
        let mut newcomers = self.newcomers();
        let count = newcomers.entry(address).or_default();
        if *count >= self.newcomers_per_address_max {
            return Err(Refusal::Address);
        }
        *count += 1;
        drop(newcomers);
        let newcomer = Newcomer {
            admission: Arc::clone(self),
            address,
        };
        Ok((place, newcomer))
    }

    fn newcomers(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut newcomers = self.admission.newcomers();
        if let Some(count) = newcomers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                newcomers.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_so_many_newcomers_and_no_more() {
        let admission = Admission::new(100, 2);
        let one = admission.admit(address("192.0.2.1")).unwrap();
        let (_place, newcomer) = admission.admit(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), Refusal::Address);
        assert!(admission.admit(address("192.0.2.2")).is_ok());
        // It has logged in.
        drop(newcomer);
        assert!(admission.admit(address("192.0.2.1")).is_ok());
        drop(one);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let admission = Admission::new(100, 1);
        let _one = admission.admit(address("2001:db8::1")).unwrap();
        assert_eq!(admission.admit(address("2001:db8::2")).unwrap_err(), Refusal::Address);
        assert!(admission.admit(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn there_are_so_many_connections_and_no_more() {
        let admission = Admission::new(2, 100);
        let one = admission.admit(address("192.0.2.1")).unwrap();
        let _two = admission.admit(address("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.3")).unwrap_err(), Refusal::Full);
        assert_eq!(admission.admit(address("192.0.2.3")).unwrap_err(), Refusal::Full);
        drop(one);
        assert!(admission.admit(address("192.0.2.3")).is_ok());
    }
}
