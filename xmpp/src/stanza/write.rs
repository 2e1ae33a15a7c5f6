//! A stanza as XML: the start tag from the header's fields, the rest as it came.

use super::Stanza;
use crate::xml::escape_attr_bytes;

impl Stanza {
    /// Appends the stanza for a stream whose default namespace is the content namespace.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.size());
        out.push(b'<');
        out.extend_from_slice(self.kind.name().as_bytes());
        let attributes: [(&str, Option<&str>); 5] = [
            (" from='", self.from.as_ref().map(|jid| jid.as_str())),
            (" to='", self.to.as_ref().map(|jid| jid.as_str())),
            (" id='", self.id.as_deref()),
            (" type='", self.kind.type_attribute()),
            (" xml:lang='", self.lang.as_deref()),
        ];
        for (name, value) in attributes {
            let Some(value) = value else { continue };
            out.extend_from_slice(name.as_bytes());
            escape_attr_bytes(value, out);
            out.push(b'\'');
        }
        out.extend_from_slice(self.extra.as_bytes());
        out.extend_from_slice(if self.body.is_empty() { b"/>" } else { b">" });
        out.extend_from_slice(&self.body);
    }

    /// Bytes of the start tag when nothing needs escaping.
    fn tag_size(&self) -> usize {
        let value = |value: Option<usize>, name: usize| value.map_or(0, |bytes| bytes + name);
        self.kind.name().len()
            + value(self.from.as_ref().map(|jid| jid.as_str().len()), " from=''".len())
            + value(self.to.as_ref().map(|jid| jid.as_str().len()), " to=''".len())
            + value(self.id.as_ref().map(|id| id.len()), " id=''".len())
            + value(self.kind.type_attribute().map(str::len), " type=''".len())
            + value(self.lang.as_ref().map(|lang| lang.len()), " xml:lang=''".len())
            + self.extra.len()
            + "</>".len()
    }

    /// Bytes of the stanza when written, as long as nothing in its header needs escaping: what queues count.
    pub fn size(&self) -> usize {
        self.tag_size() + self.body.len()
    }
}
