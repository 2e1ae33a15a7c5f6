//! Preparation and enforcement of the three parts of an address.
//!
//! Each part has a fast path for what nearly all addresses are (lower-case ASCII), which borrows, and goes through PRECIS or
//! IDNA otherwise.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::precis_core::{IdentifierClass, StringClass};
use precis_profiles::{OpaqueString, UsernameCaseMapped};

/// Longest part of an address in bytes (RFC 7622 §3.1), after mapping.
pub(super) const PART_BYTES_MAX: usize = 1023;

/// No mapping makes a string shorter than a quarter of what it was, so longer input is refused unread.
const INPUT_BYTES_MAX: usize = 4 * PART_BYTES_MAX;

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// There is an `@` with nothing before it, or it is nothing after mapping.
    #[error("localpart is empty")]
    EmptyLocal,
    /// There is no domain.
    #[error("domainpart is empty")]
    EmptyDomain,
    /// There is a `/` with nothing after it.
    #[error("resourcepart is empty")]
    EmptyResource,
    /// A part is longer than 1023 bytes, or the domain longer than the DNS allows.
    #[error("a part of the address is too long")]
    TooLong,
    /// The localpart is not in PRECIS UsernameCaseMapped, or has one of `"&'/:<>@` (RFC 7622 §3.3.1).
    #[error("localpart has a character that is not allowed there")]
    BadLocal,
    /// The domain is no IDNA2008 name and no IP address.
    #[error("domainpart is neither a domain name nor an IP address")]
    BadDomain,
    /// The resource is not in PRECIS OpaqueString.
    #[error("resourcepart has a character that is not allowed there")]
    BadResource,
    /// A full address was expected.
    #[error("address has no resourcepart")]
    NoResource,
    /// A bare address was expected.
    #[error("address has a resourcepart")]
    UnexpectedResource,
}

/// PRECIS UsernameCaseMapped without the characters of RFC 7622 §3.3.1.
pub(super) fn local(text: &str) -> Result<Cow<'_, str>, JidError> {
    let plain = |b: u8| matches!(b, 0x21..=0x7e) && !b.is_ascii_uppercase() && !is_excluded_from_local(b);
    let prepared = if text.bytes().all(plain) {
        Cow::Borrowed(text)
    } else {
        mapped_local(text)?
    };
    within_length(prepared, JidError::EmptyLocal)
}

fn mapped_local(text: &str) -> Result<Cow<'_, str>, JidError> {
    let prepared = stable(text, JidError::BadLocal, |s| UsernameCaseMapped::enforce(s).ok())?;
    // After mapping: U+FF20 FULLWIDTH COMMERCIAL AT becomes '@'.
    if prepared.bytes().any(is_excluded_from_local) {
        Err(JidError::BadLocal)
    } else {
        Ok(prepared)
    }
}

fn is_excluded_from_local(byte: u8) -> bool {
    matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@')
}

/// PRECIS OpaqueString. A leading space is refused as RFC 7622 §3.5 lists it among what is no JID (example 18).
pub(super) fn resource(text: &str) -> Result<Cow<'_, str>, JidError> {
    let prepared = if text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        Cow::Borrowed(text)
    } else {
        stable(text, JidError::BadResource, |s| OpaqueString::enforce(s).ok())?
    };
    if prepared.starts_with(' ') {
        return Err(JidError::BadResource);
    }
    within_length(prepared, JidError::EmptyResource)
}

/// Applies a PRECIS profile until nothing changes (RFC 8264 §7: a few profiles are not idempotent; such strings that keep
/// changing must be refused).
fn stable<'a>(
    text: &'a str,
    error: JidError,
    enforce: impl for<'s> Fn(&'s str) -> Option<Cow<'s, str>>,
) -> Result<Cow<'a, str>, JidError> {
    if text.len() > INPUT_BYTES_MAX {
        return Err(JidError::TooLong);
    }
    if text.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let mut current = text.to_owned();
    for _ in 0..4 {
        let next = enforce(&current).ok_or(error)?.into_owned();
        if next == current {
            return Ok(Cow::Owned(next));
        }
        current = next;
    }
    Err(error)
}

fn within_length(part: Cow<'_, str>, empty: JidError) -> Result<Cow<'_, str>, JidError> {
    match part.len() {
        0 => Err(empty),
        1..=PART_BYTES_MAX => Ok(part),
        _ => Err(JidError::TooLong),
    }
}

/// A domain name with U-labels, an IPv4 address or an IP literal in brackets (RFC 7622 §3.2).
pub(super) fn domain(text: &str) -> Result<Cow<'_, str>, JidError> {
    // The final dot goes before any other step. Only one: "a.." has an empty label.
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(JidError::EmptyDomain);
    }
    if is_plain_domain(text) {
        return Ok(Cow::Borrowed(text));
    }
    if let Some(literal) = text.strip_prefix('[') {
        return ip_literal(literal.strip_suffix(']').ok_or(JidError::BadDomain)?).map(Cow::Owned);
    }
    mapped_domain(text).map(Cow::Owned)
}

/// Lower-case NR-LDH labels within the DNS's lengths: nothing to map.
fn is_plain_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_plain_label)
}

fn is_plain_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    matches!(bytes.len(), 1..=63)
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        // Hyphens in the third and fourth place are reserved (RFC 5890 §2.3.1); "xn--" is an A-label.
        && bytes.get(2..4) != Some(b"--")
}

/// UTS 46 mapping (which performs what RFC 5895 describes), then IDNA2008's own rules, which are stricter.
fn mapped_domain(text: &str) -> Result<String, JidError> {
    if text.len() > INPUT_BYTES_MAX {
        return Err(JidError::TooLong);
    }
    let uts46 = Uts46::new();
    let (unicode, valid) = uts46.to_unicode(text.as_bytes(), AsciiDenyList::STD3, Hyphens::Check);
    valid.map_err(|_| JidError::BadDomain)?;
    // The ideographic full stops are separators too, so a final one may have become a dot only now.
    let unicode = unicode.strip_suffix('.').unwrap_or(&unicode);
    if unicode.is_empty() {
        return Err(JidError::EmptyDomain);
    }
    uts46
        .to_ascii(
            unicode.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::Check,
            DnsLength::Verify,
        )
        .map_err(|_| JidError::BadDomain)?;
    // UTS 46 lets symbols through ("☕.example"); RFC 5892's PVALID is PRECIS's IdentifierClass but for ASCII.
    let identifier = IdentifierClass::default();
    for label in unicode.split('.').filter(|label| !label.is_ascii()) {
        identifier.allows(label).map_err(|_| JidError::BadDomain)?;
    }
    Ok(unicode.to_owned())
}

/// The inside of `[…]`: an IPv6 address, in RFC 5952's spelling, with RFC 6874's zone if there is one.
fn ip_literal(inside: &str) -> Result<String, JidError> {
    let (address, zone) = match inside.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (inside, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| JidError::BadDomain)?;
    let Some(zone) = zone else {
        return Ok(format!("[{address}]"));
    };
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if !matches!(zone.len(), 1..=64) || !zone.bytes().all(unreserved) {
        return Err(JidError::BadDomain);
    }
    Ok(format!("[{address}%25{zone}]"))
}
