//! Addresses (RFC 7622): `[local "@"] domain ["/" resource]`.
//!
//! A value of one of these types is *prepared*: PRECIS and IDNA mapping are done when it is made, so two addresses are
//! equal exactly when their bytes are. One address is one shared allocation; a clone, and the bare part of a full address,
//! cost a reference count.

mod prepare;
mod slot;
#[cfg(test)]
mod tests;

pub use prepare::JidError;
pub use slot::{SLOTS, slot};

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// What all three types hold: the text of an address and where its parts end. `text` may go on after `end`.
#[derive(Clone)]
struct Address {
    text: Arc<str>,
    /// Bytes of the localpart; 0 when there is none, as a localpart is never empty.
    local: u16,
    /// Where the domainpart ends.
    domain: u16,
    /// Where this address ends: equal to `domain` when there is no resource.
    end: u16,
}

impl Address {
    fn parse(text: &str) -> Result<Self, JidError> {
        if let Some((local, domain)) = prepare::plain(text) {
            return Ok(Self {
                local,
                domain,
                end: text.len() as u16,
                text: text.into(),
            });
        }
        // RFC 7622 §3.2: the first '/' ends the domainpart, then the first '@' starts it; both before any mapping.
        let (rest, resource) = match text.split_once('/') {
            Some((rest, resource)) => (rest, Some(resource)),
            None => (text, None),
        };
        let (local, domain) = match rest.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, rest),
        };
        Self::from_parts(local, domain, resource)
    }

    fn from_parts(local: Option<&str>, domain: &str, resource: Option<&str>) -> Result<Self, JidError> {
        let local = local.map(prepare::local).transpose()?;
        let domain = prepare::domain(domain)?;
        let resource = resource.map(prepare::resource).transpose()?;
        Ok(Self::join(local.as_deref(), &domain, resource.as_deref()))
    }

    /// Puts prepared parts together; each is at most [`prepare::PART_BYTES_MAX`] long, so every offset fits.
    fn join(local: Option<&str>, domain: &str, resource: Option<&str>) -> Self {
        let mut text = String::with_capacity(
            local.map_or(0, |l| l.len() + 1) + domain.len() + resource.map_or(0, |r| r.len() + 1),
        );
        if let Some(local) = local {
            text.push_str(local);
            text.push('@');
        }
        text.push_str(domain);
        let domain = text.len() as u16;
        if let Some(resource) = resource {
            text.push('/');
            text.push_str(resource);
        }
        Self {
            local: local.map_or(0, |l| l.len() as u16),
            domain,
            end: text.len() as u16,
            text: text.into(),
        }
    }

    fn as_str(&self) -> &str {
        &self.text[..usize::from(self.end)]
    }

    fn bare_str(&self) -> &str {
        &self.text[..usize::from(self.domain)]
    }

    fn local(&self) -> Option<&str> {
        (self.local > 0).then(|| &self.text[..usize::from(self.local)])
    }

    fn domain(&self) -> &str {
        let start = if self.local > 0 { usize::from(self.local) + 1 } else { 0 };
        &self.text[start..usize::from(self.domain)]
    }

    fn resource(&self) -> Option<&str> {
        (self.end > self.domain).then(|| &self.text[usize::from(self.domain) + 1..usize::from(self.end)])
    }

    fn bare(&self) -> Self {
        Self {
            end: self.domain,
            ..self.clone()
        }
    }
}

/// An address without a resource: an account (`juliet@example.com`) or a service (`example.com`).
#[derive(Clone)]
pub struct BareJid(Address);

/// An address with a resource: one connected device of an account.
#[derive(Clone)]
pub struct FullJid(Address);

/// An address with or without a resource, as stanzas carry it.
#[derive(Clone)]
pub struct Jid(Address);

impl Jid {
    /// Reads and prepares an address.
    ///
    /// # Errors
    /// When a part is empty, too long or contains what RFC 7622 does not allow; to the sender of a stanza this is
    /// `jid-malformed` (RFC 6120 §8.3.3.8).
    pub fn parse(text: &str) -> Result<Self, JidError> {
        Address::parse(text).map(Self)
    }

    /// The part before `@`.
    pub fn local(&self) -> Option<&str> {
        self.0.local()
    }

    /// The domain, without a final dot, labels as U-labels.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The part after the first `/`.
    pub fn resource(&self) -> Option<&str> {
        self.0.resource()
    }

    /// The address without its resource; no allocation.
    pub fn to_bare(&self) -> BareJid {
        BareJid(self.0.bare())
    }

    /// The text of the address without its resource.
    pub fn bare_str(&self) -> &str {
        self.0.bare_str()
    }

    /// The prepared text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether there is no resource.
    pub fn is_bare(&self) -> bool {
        self.0.resource().is_none()
    }

    /// This address as a full one, if it has a resource.
    pub fn to_full(&self) -> Option<FullJid> {
        self.0.resource().map(|_| FullJid(self.0.clone()))
    }

    /// This address as a full one.
    ///
    /// # Errors
    /// Gives the bare address back when there is no resource.
    pub fn try_into_full(self) -> Result<FullJid, BareJid> {
        if self.is_bare() {
            Err(BareJid(self.0))
        } else {
            Ok(FullJid(self.0))
        }
    }
}

impl BareJid {
    /// Prepares and joins the parts.
    ///
    /// # Errors
    /// When a part violates RFC 7622.
    pub fn new(local: Option<&str>, domain: &str) -> Result<Self, JidError> {
        Address::from_parts(local, domain, None).map(Self)
    }

    /// Reads an address that must not have a resource.
    ///
    /// # Errors
    /// When the text has a resource or a part violates RFC 7622.
    pub fn parse(text: &str) -> Result<Self, JidError> {
        Jid::parse(text)?
            .try_into_full()
            .map_or_else(Ok, |_| Err(JidError::UnexpectedResource))
    }

    /// This address with a resource, which is prepared.
    ///
    /// # Errors
    /// When the resource violates RFC 7622 §3.4.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        let resource = prepare::resource(resource)?;
        Ok(FullJid(Address::join(self.local(), self.domain(), Some(&resource))))
    }

    /// The part before `@`; a service has none.
    pub fn local(&self) -> Option<&str> {
        self.0.local()
    }

    /// The domain, without a final dot, labels as U-labels.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The address of the domain itself: this one without its localpart.
    pub fn to_domain(&self) -> Self {
        Self(Address::join(None, self.domain(), None))
    }

    /// The prepared text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FullJid {
    /// Reads an address that must have a resource.
    ///
    /// # Errors
    /// When the text has no resource or a part violates RFC 7622.
    pub fn parse(text: &str) -> Result<Self, JidError> {
        Jid::parse(text)?.try_into_full().map_err(|_| JidError::NoResource)
    }

    /// The address without its resource; no allocation.
    pub fn bare(&self) -> BareJid {
        BareJid(self.0.bare())
    }

    /// The text of the address without its resource.
    pub fn bare_str(&self) -> &str {
        self.0.bare_str()
    }

    /// The part before `@`; a service has none.
    pub fn local(&self) -> Option<&str> {
        self.0.local()
    }

    /// The domain, without a final dot, labels as U-labels.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The part after the first `/`.
    pub fn resource(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }

    /// The prepared text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Everything about an address is about its prepared text (RFC 7622 §3: comparison octet for octet).
macro_rules! compares_as_text {
    ($($name:ident),*) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = JidError;
            fn from_str(text: &str) -> Result<Self, JidError> {
                Self::parse(text)
            }
        }
        impl TryFrom<&str> for $name {
            type Error = JidError;
            fn try_from(text: &str) -> Result<Self, JidError> {
                Self::parse(text)
            }
        }
    )*};
}

compares_as_text!(Jid, BareJid, FullJid);

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Self {
        Self(jid.0)
    }
}

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Self {
        Self(jid.0)
    }
}

impl From<&FullJid> for Jid {
    fn from(jid: &FullJid) -> Self {
        Self(jid.0.clone())
    }
}

impl From<&BareJid> for Jid {
    fn from(jid: &BareJid) -> Self {
        Self(jid.0.clone())
    }
}
