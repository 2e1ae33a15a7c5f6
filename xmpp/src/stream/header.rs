//! Stream headers as we write them (RFC 6120 §4.7).

use crate::xml::{CLIENT, STREAM, escape_attr};

/// The language of the sentences we write (RFC 6120 §4.7.4): there is no other, so every preference ends here.
pub(super) const LANG: &str = "en";

/// The end of a stream.
pub(super) const CLOSE: &str = "</stream:stream>";

/// A header of ours, initial or in response.
#[derive(Default)]
pub(super) struct Header<'a> {
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    /// Left out only towards a peer that sent none (§4.7.5).
    pub(super) version: bool,
    pub(super) lang: &'a str,
}

impl Header<'_> {
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("<?xml version='1.0'?><stream:stream");
        let version = self.version.then_some("1.0");
        let lang = Some(self.lang);
        let attributes = [
            ("from", self.from),
            ("to", self.to),
            ("id", self.id),
            ("version", version),
            ("xml:lang", lang),
        ];
        for (name, value) in attributes {
            let Some(value) = value else { continue };
            out.push(' ');
            out.push_str(name);
            out.push_str("='");
            escape_attr(value, out);
            out.push('\'');
        }
        for (name, namespace) in [("xmlns", CLIENT), ("xmlns:stream", STREAM)] {
            out.push_str(&format!(" {name}='{namespace}'"));
        }
        out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::Header;

    /// RFC 6120 §4.7.1
    #[test]
    fn a_response_header_has_everything() {
        let mut out = String::new();
        let header = Header {
            from: Some("im.example.com"),
            to: Some("juliet@im.example.com"),
            id: Some("++TR84Sm6A3hnt3Q065SnAbbk3Y="),
            version: true,
            lang: "en",
        };
        header.write(&mut out);
        assert_eq!(
            out,
            "<?xml version='1.0'?><stream:stream from='im.example.com' to='juliet@im.example.com' \
             id='++TR84Sm6A3hnt3Q065SnAbbk3Y=' version='1.0' xml:lang='en' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        let mut out = String::new();
        Header {
            from: Some("o'brien><"),
            lang: "en",
            ..Header::default()
        }
        .write(&mut out);
        assert!(out.contains("from='o&apos;brien&gt;&lt;' xml:lang="), "{out}");
    }
}
