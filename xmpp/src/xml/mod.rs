//! XML as XMPP uses it (RFC 6120 §11): streams cut into frames, frames checked and read, elements written.
//!
//! Bytes take two steps. The [`Framer`] finds where a top-level element ends and bounds what is kept meanwhile; then the frame
//! is read once: quick-xml cuts it into tags and text, and `reader` accepts exactly the namespace-well-formed XML that RFC 6120
//! allows. Nothing is repaired: what is not well-formed is a stream error ([`XmlError`]), and what was accepted means the same
//! to every parser. Who checks what, and what it costs, is in `docs/decisions/0003-xml-reading.md`.

mod chars;
pub(crate) mod document;
mod element;
mod error;
mod escape;
mod framer;
mod limits;
mod name;
mod ns;
pub mod open;
pub(crate) mod reader;
mod scope;
mod tokenizer;

pub use element::{Attribute, Element, Node};
pub use error::{Excess, XmlError};
pub(crate) use escape::escape_attr_bytes;
pub use escape::{escape_attr, escape_text};
pub use framer::{Frame, Framer};
pub use limits::{DEPTH_CEILING, Limits};
pub use ns::*;
pub use open::OpenTag;
pub use scope::StreamPrefixes;
