//! A stanza as XML: the start tag from the header's fields, the rest as it came.

use super::Stanza;
use crate::xml::escape_attr;

impl Stanza {
    /// Appends the stanza for a stream whose default namespace is the content namespace.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut tag = String::with_capacity(self.tag_size());
        self.write_tag(&mut tag);
        out.extend_from_slice(tag.as_bytes());
        out.extend_from_slice(&self.body);
    }

    fn write_tag(&self, out: &mut String) {
        out.push('<');
        out.push_str(self.kind.name());
        let attributes = [
            (" from='", self.from.as_ref().map(|jid| jid.as_str())),
            (" to='", self.to.as_ref().map(|jid| jid.as_str())),
            (" id='", self.id.as_deref()),
            (" type='", self.kind.type_attribute()),
            (" xml:lang='", self.lang.as_deref()),
        ];
        for (name, value) in attributes {
            let Some(value) = value else { continue };
            out.push_str(name);
            escape_attr(value, out);
            out.push('\'');
        }
        out.push_str(&self.extra);
        out.push_str(if self.body.is_empty() { "/>" } else { ">" });
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
