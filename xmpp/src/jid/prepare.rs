//! Preparation and enforcement of the three parts of an address.
//!
//! Each part has a fast path for what nearly all addresses are (lower-case ASCII), which borrows, and goes through PRECIS or
//! IDNA otherwise.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::precis_core::{DerivedPropertyValue, FreeformClass, IdentifierClass, StringClass};
use precis_profiles::{OpaqueString, UsernameCaseMapped};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

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

/// Where localpart and domainpart end, when `text` is an address that is prepared already: lower-case ASCII, as nearly all
/// are. `None` says nothing: the parts must be looked at one by one.
pub(super) fn plain(text: &str) -> Option<(u16, u16)> {
    let bytes = text.as_bytes();
    let class = |byte: &u8| PLAIN[usize::from(*byte)];
    let mut local = 0;
    let mut end = bytes
        .iter()
        .position(|byte| class(byte) & IN_LOCAL == 0)
        .unwrap_or(bytes.len());
    if bytes.get(end) == Some(&b'@') {
        (local, end) = (end, memchr::memchr(b'/', bytes).unwrap_or(bytes.len()));
    }
    let domain = text.get(if local > 0 { local + 1 } else { 0 }..end)?;
    let resource = match bytes.get(end) {
        None => None,
        Some(b'/') => Some(&bytes[end + 1..]),
        Some(_) => return None,
    };
    let plain_resource = |resource: &[u8]| {
        matches!(resource.len(), 1..=PART_BYTES_MAX)
            && resource[0] != b' '
            && resource.iter().all(|byte| class(byte) & IN_RESOURCE != 0)
    };
    // An '@' at the very beginning leaves `local` at 0 and itself in the domain, which is then not plain.
    let plain = local <= PART_BYTES_MAX && is_plain_domain(domain) && resource.is_none_or(plain_resource);
    plain.then_some((local as u16, end as u16))
}

/// Class bit: needs no mapping in a localpart.
const IN_LOCAL: u8 = 1;
/// Class bit: needs no mapping in a domain label.
const IN_LABEL: u8 = 1 << 1;
/// Class bit: needs no mapping in a resourcepart.
const IN_RESOURCE: u8 = 1 << 2;

static PLAIN: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0x20;
    while byte < 0x7f {
        let local = byte > 0x20 && !byte.is_ascii_uppercase() && !is_excluded_from_local(byte);
        let label = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        classes[byte as usize] = IN_RESOURCE | if local { IN_LOCAL } else { 0 } | if label { IN_LABEL } else { 0 };
        byte += 1;
    }
    classes
};

/// PRECIS UsernameCaseMapped without the characters of RFC 7622 §3.3.1.
pub(super) fn local(text: &str) -> Result<Cow<'_, str>, JidError> {
    let plain = |byte: u8| PLAIN[usize::from(byte)] & IN_LOCAL != 0;
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

const fn is_excluded_from_local(byte: u8) -> bool {
    matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@')
}

/// [`local`] without its fast path.
#[cfg(test)]
pub(super) fn local_by_precis(text: &str) -> Result<Cow<'_, str>, JidError> {
    within_length(mapped_local(text)?, JidError::EmptyLocal)
}

/// [`resource`] without its fast path.
#[cfg(test)]
pub(super) fn resource_by_precis(text: &str) -> Result<Cow<'_, str>, JidError> {
    let prepared = mapped_resource(text)?;
    if prepared.starts_with(' ') {
        Err(JidError::BadResource)
    } else {
        within_length(prepared, JidError::EmptyResource)
    }
}

/// PRECIS OpaqueString. A leading space is refused as RFC 7622 §3.5 lists it among what is no JID (example 18).
pub(super) fn resource(text: &str) -> Result<Cow<'_, str>, JidError> {
    let prepared = if text.bytes().all(|byte| PLAIN[usize::from(byte)] & IN_RESOURCE != 0) {
        Cow::Borrowed(text)
    } else {
        mapped_resource(text)?
    };
    if prepared.starts_with(' ') {
        return Err(JidError::BadResource);
    }
    within_length(prepared, JidError::EmptyResource)
}

/// What a newer Unicode has assigned is taken as the symbol it most likely is: precis-core knows Unicode 6.3, as the registry
/// of IANA does, and would refuse each emoji since. PRECIS is meant to be applied to newer versions (RFC 8264 §11.1).
fn mapped_resource(text: &str) -> Result<Cow<'_, str>, JidError> {
    if text.len() > INPUT_BYTES_MAX {
        return Err(JidError::TooLong);
    }
    if !text.contains(is_newer_than_precis) {
        return stable(text, JidError::BadResource, |s| OpaqueString::enforce(s).ok());
    }
    const SYMBOL: char = '\u{25A1}';
    let old: String = text
        .chars()
        .map(|c| if is_newer_than_precis(c) { SYMBOL } else { c })
        .collect();
    mapped_resource(&old)?;
    // The profile's own mappings (RFC 8265 §4.2.2): other spaces become spaces, then NFC.
    let is_space = |c: char| c.general_category() == GeneralCategory::SpaceSeparator;
    let mapped = text.chars().map(|c| if is_space(c) { ' ' } else { c }).nfc().collect();
    Ok(Cow::Owned(mapped))
}

/// Whether a character is printable in today's Unicode but was not assigned in the one precis-core knows.
fn is_newer_than_precis(c: char) -> bool {
    let unassigned = FreeformClass::default().get_value_from_char(c) == DerivedPropertyValue::Unassigned;
    let group = || c.general_category_group();
    unassigned && !matches!(group(), GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator)
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
    // The final label separator goes before any other step (RFC 3490 §3.1 lists four). Only one: "a.." has an empty label.
    let text = text
        .strip_suffix(['.', '\u{3002}', '\u{FF0E}', '\u{FF61}'])
        .unwrap_or(text);
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

/// Lower-case NR-LDH labels within the DNS's lengths (RFC 1034 §3.1): nothing to map.
fn is_plain_domain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut label = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if PLAIN[usize::from(*byte)] & IN_LABEL == 0 {
            if *byte != b'.' || !is_plain_label(&bytes[label..at]) {
                return false;
            }
            label = at + 1;
        }
    }
    bytes.len() <= 253 && is_plain_label(&bytes[label..])
}

/// Of letters, digits and hyphens: whether the hyphens are where they may be (RFC 5890 §2.3.1: those in the third and fourth
/// place are reserved, and "xn--" is an A-label).
fn is_plain_label(label: &[u8]) -> bool {
    matches!(label.len(), 1..=63)
        && label[0] != b'-'
        && label[label.len() - 1] != b'-'
        && label.get(2..4) != Some(b"--")
}

/// UTS 46 mapping (which performs what RFC 5895 describes), then IDNA2008's own rules, which are stricter.
fn mapped_domain(text: &str) -> Result<String, JidError> {
    if text.len() > INPUT_BYTES_MAX {
        return Err(JidError::TooLong);
    }
    let uts46 = Uts46::new();
    let (unicode, valid) = uts46.to_unicode(text.as_bytes(), AsciiDenyList::STD3, Hyphens::Check);
    valid.map_err(|_| JidError::BadDomain)?;
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
    Ok(unicode.into_owned())
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
