//! ANONYMOUS (RFC 4505, XEP-0175): a temporary account that nobody had before, and nobody has after.
//!
//! Such an account has no row. What it is shows in its address: localparts of this form are given to nobody else, so every part
//! of the broker knows one when it sees it, also after a failover.

use super::Failure;
use crate::jid::BareJid;
use crate::random::Random;

/// How such localparts begin.
const PREFIX: &str = "anonymous-";

/// Random bytes in a localpart.
const BYTES: usize = 16;

/// The longest trace in bytes (RFC 4505 §2: 255 characters).
const TRACE_BYTES_MAX: usize = 1020;

/// The version of credentials that there are none of. No account has it.
pub const NO_CREDENTIALS: u64 = 0;

/// A temporary account of `domain`. The localpart is as random as a UUID (XEP-0175 §3) and says nothing else.
pub(super) fn account(domain: &str, random: &mut dyn Random) -> Result<BareJid, Failure> {
    let mut bytes = [0; BYTES];
    random.fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    BareJid::new(Some(&format!("{PREFIX}{hex}")), domain).map_err(|_| Failure::malformed("no such domain"))
}

/// Whether an address is one of a temporary account.
pub fn is_anonymous(account: &BareJid) -> bool {
    account.local().is_some_and(is_reserved)
}

/// Whether nobody may choose this localpart.
pub fn is_reserved(local: &str) -> bool {
    let digits = |hex: &str| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let hex = local.strip_prefix(PREFIX);
    hex.is_some_and(|hex| hex.len() == 2 * BYTES && digits(hex))
}

/// Checks the trace that a client may leave; it is used for nothing (XEP-0175 §3).
pub(super) fn check_trace(message: &[u8]) -> Result<(), Failure> {
    let trace = std::str::from_utf8(message).map_err(|_| Failure::malformed("not UTF-8"))?;
    if trace.len() > TRACE_BYTES_MAX || trace.chars().any(char::is_control) {
        return Err(Failure::malformed("not a trace"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::testing::Seeded;

    #[test]
    fn a_temporary_account_is_known_by_its_address_and_no_two_are_alike() {
        let random = &mut Seeded(1);
        let one = account("example.org", random).unwrap();
        let two = account("example.org", random).unwrap();
        assert_ne!(one, two);
        assert!(is_anonymous(&one) && is_anonymous(&two));
        for other in ["anonymous", "anonymous-", "anonymous-0123", "juliet"] {
            assert!(!is_reserved(other), "{other}");
        }
        assert!(!is_reserved(&format!("anonymous-{}", "g".repeat(32))));
    }

    #[test]
    fn a_trace_is_text_of_a_bounded_length() {
        assert!(check_trace(b"").is_ok());
        assert!(check_trace("juliet@example.org".as_bytes()).is_ok());
        assert!(check_trace(b"\xff").is_err());
        assert!(check_trace(b"a\0b").is_err());
        assert!(check_trace(&[b'x'; 1021]).is_err());
    }
}
