//! Which cluster this is.

use std::{fmt, str::FromStr};

/// A cluster, for ever: a random number, drawn when it was founded. Another cluster of the same name has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// A text is not a [`ClusterId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits")]
pub struct NoClusterId;

impl ClusterId {
    /// As messages and stores have it.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// What [`to_bytes`](Self::to_bytes) made; `None` for another number of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u128::from_be_bytes).map(Self)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = NoClusterId;

    fn from_str(text: &str) -> Result<Self, NoClusterId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoClusterId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NoClusterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_read_as_it_is_written() {
        let id = ClusterId(0x00ab_cdef_0123_4567_89ab_cdef_0123_4567);
        assert_eq!(id.to_string(), "00abcdef0123456789abcdef01234567");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ClusterId::from_bytes(&id.to_bytes()), Some(id));
    }

    #[test]
    fn anything_else_is_no_cluster_id() {
        for text in [
            "",
            "abc",
            "+0abcdef0123456789abcdef01234567",
            "00abcdef0123456789abcdef0123456g",
        ] {
            assert_eq!(text.parse::<ClusterId>(), Err(NoClusterId), "{text}");
        }
        assert_eq!(ClusterId::from_bytes(&[0; 15]), None);
    }
}
