//! How much XML one peer may make us hold or walk through.

/// What no configuration may allow more of: elements are written and dropped recursively, on stacks of 2 MiB.
pub const DEPTH_CEILING: u16 = 256;

/// Bounds on one frame: a stream header or one top-level element. What goes beyond is `policy-violation`.
///
/// Bytes and depth are counted while reading, so memory is bounded before a frame is complete; the others while it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame, tags included.
    pub stanza_bytes_max: usize,
    /// Elements open at the same time, the frame's own included. Never more than [`DEPTH_CEILING`].
    pub depth_max: u16,
    /// Attributes of one element, namespace declarations included.
    pub attributes_max: u16,
    /// Bytes of one name of an element or attribute, its prefix included.
    pub name_bytes_max: u16,
    /// Bytes of one namespace name.
    pub namespace_bytes_max: u16,
    /// Namespace declarations in a frame, repetitions included.
    pub namespaces_max: u16,
    /// Child elements of one element.
    pub children_max: u32,
}

impl Limits {
    /// For peers that have not authenticated: a stream header and SASL fit, little else does.
    pub const fn before_auth() -> Self {
        Self {
            stanza_bytes_max: 10_000,
            depth_max: 8,
            attributes_max: 16,
            name_bytes_max: 256,
            namespace_bytes_max: 256,
            namespaces_max: 32,
            children_max: 64,
        }
    }

    /// For authenticated peers. RFC 6120 §13.12 forbids a stanza limit below 10 000 bytes.
    pub const fn after_auth() -> Self {
        Self {
            stanza_bytes_max: 256 * 1024,
            depth_max: 32,
            attributes_max: 32,
            name_bytes_max: 256,
            namespace_bytes_max: 1024,
            namespaces_max: 1024,
            children_max: 10_000,
        }
    }

    /// For what we wrote ourselves or have accepted before under any limits (rows, frames between cluster nodes).
    pub const fn trusted() -> Self {
        Self {
            stanza_bytes_max: u32::MAX as usize,
            depth_max: DEPTH_CEILING,
            attributes_max: u16::MAX,
            name_bytes_max: u16::MAX,
            namespace_bytes_max: u16::MAX,
            namespaces_max: u16::MAX,
            children_max: u32::MAX,
        }
    }
}

impl Limits {
    /// How deep elements may really nest.
    pub(super) fn depth(&self) -> usize {
        usize::from(self.depth_max.min(DEPTH_CEILING))
    }

    /// How long a frame may really be: offsets within one are 32 bits.
    pub(super) fn bytes(&self) -> usize {
        self.stanza_bytes_max.min(u32::MAX as usize)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::after_auth()
    }
}
