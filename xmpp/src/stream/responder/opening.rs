//! A client's stream header, judged (RFC 6120 §4.7, §4.8).

use super::super::StreamError;
use crate::jid::{BareJid, Jid};
use crate::xml::{CLIENT, OpenTag, STREAM, StreamPrefixes};

/// What is known of one stream. A restart forgets it.
#[derive(Default)]
pub(super) struct Opened {
    /// Our header has been sent.
    pub(super) answered: bool,
    /// The client's header has a version, so ours has.
    pub(super) versioned: bool,
    /// Who the client says it is.
    pub(super) from: Option<BareJid>,
    /// The domain the client wants, when we serve it.
    pub(super) host: Option<BareJid>,
    pub(super) lang: Option<Box<str>>,
    pub(super) prefixes: StreamPrefixes,
}

impl Opened {
    /// Takes the header in. Once somebody has authenticated for a `host`, it must be that one.
    pub(super) fn judge(
        &mut self,
        header: &OpenTag,
        domains: &[BareJid],
        host: Option<&str>,
    ) -> Result<(), StreamError> {
        // What our answer repeats is noted before anything is refused.
        self.versioned = header.version.is_some();
        self.prefixes = StreamPrefixes::declared(header, CLIENT);
        self.lang = header.lang.as_deref().filter(|lang| is_language(lang)).map(Box::from);
        let from = header.from.as_deref().map(Jid::parse);
        self.from = from.as_ref().and_then(|from| from.as_ref().ok()).map(Jid::to_bare);
        let to = header.to.as_deref().map(Jid::parse);
        self.host = to
            .as_ref()
            .and_then(|to| to.as_ref().ok())
            .and_then(|to| served(to, domains));

        // RFC 6120 §4.8.2: stanzas may also declare their namespace themselves.
        if !matches!(header.default_ns(), CLIENT | STREAM | "") {
            return Err(StreamError::invalid_namespace().with_text("only jabber:client is served here"));
        }
        // §4.7.5: we answer a higher version with ours; before 1.0 there was no SASL.
        if header.version()?.0 < 1 {
            return Err(StreamError::unsupported_version());
        }
        if matches!(from, Some(Err(_))) {
            return Err(StreamError::invalid_from().with_text("'from' is not an address"));
        }
        match to {
            // §4.9.1.3
            None => return Err(StreamError::host_unknown().with_text("'to' is missing")),
            Some(Err(_)) => return Err(StreamError::improper_addressing().with_text("'to' is not an address")),
            Some(Ok(_)) => {}
        }
        match (&self.host, host) {
            (None, _) => Err(StreamError::host_unknown()),
            (Some(wanted), Some(host)) if wanted.domain() != host => {
                Err(StreamError::not_authorized().with_text("this stream has authenticated for another host"))
            }
            _ => Ok(()),
        }
    }
}

/// `to` as one of our domains; never one with a localpart or resourcepart.
fn served(to: &Jid, domains: &[BareJid]) -> Option<BareJid> {
    domains.iter().find(|domain| domain.as_str() == to.as_str()).cloned()
}

/// Whether it can be a language tag (RFC 5646 §2.1, loosely): it will stand in other people's stanzas.
fn is_language(lang: &str) -> bool {
    (1..=64).contains(&lang.len()) && lang.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
