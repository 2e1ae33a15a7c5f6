//! Address → slot: the fixed hash by which accounts, sessions and nodes are spread (`DESIGN.md` §1).

/// How many slots there are. Row keys start with a slot, so this number and [`slot`] can never change.
pub const SLOTS: u16 = 4096;

/// The slot of an address, `0..SLOTS`. Callers pass the prepared text of a *bare* JID (or another string that names the
/// entity), so that an account and all its sessions share a slot.
///
/// The function is the upper 12 bits of `fnv1a64(address) * 0x9E37_79B9_7F4A_7C15 (mod 2^64)`, with FNV-1a's standard
/// offset basis and prime. It is part of the format on disk.
pub fn slot(address: &str) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in address.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV's upper bits mix poorly for short inputs; the multiplication (Fibonacci hashing) brings the lower ones up.
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_change() {
        let known = [
            ("", 3979),
            ("localhost", 2046),
            ("juliet@example.com", 2078),
            ("ρωμαῖος@example.com", 544),
        ];
        assert_eq!(known.map(|(address, _)| (address, slot(address))), known);
    }

    #[test]
    fn addresses_that_differ_in_a_number_spread_evenly() {
        let mut counts = vec![0u32; usize::from(SLOTS)];
        for n in 0..409_600 {
            counts[usize::from(slot(&format!("sensor-{n}@plant.example")))] += 1;
        }
        // 100 expected per slot; a Poisson spread stays within ±6 standard deviations.
        let (min, max) = (counts.iter().min(), counts.iter().max());
        assert!(min >= Some(&40) && max <= Some(&160), "{min:?} {max:?}");
    }
}
