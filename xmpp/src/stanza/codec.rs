//! A stanza as bytes for rows and for messages between cluster nodes: compact, stable, and read back without parsing XML.
//!
//! Version 1: the version byte; a byte for kind and type; a byte of flags, which fields are there; then `to`, `from`, `id`,
//! `lang` and `extra`, each a number of bytes and UTF-8; where the payload's name is; the body to the end. Numbers are LEB128.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::payload::{NsAt, PayloadAt, Span};
use super::{IqType, Kind, MessageType, PresenceType, Stanza};
use crate::jid::Jid;

const VERSION: u8 = 1;

const TO: u8 = 1;
const FROM: u8 = 1 << 1;
const ID: u8 = 1 << 2;
const LANG: u8 = 1 << 3;
const EXTRA: u8 = 1 << 4;
const PAYLOAD: u8 = 1 << 5;

const NS_CONTENT: u8 = 0;
const NS_NONE: u8 = 1;
const NS_BODY: u8 = 2;
const NS_ELSEWHERE: u8 = 3;

/// Bytes that are no encoded stanza: a corrupt row, or a version from the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded stanza: {0}")]
pub struct DecodeError(&'static str);

impl Stanza {
    /// The stanza as bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size() + 16);
        out.put_u8(VERSION);
        out.put_u8(kind_to_byte(self.kind));
        let fields = [
            (TO, self.to.as_ref().map(|jid| jid.as_str())),
            (FROM, self.from.as_ref().map(|jid| jid.as_str())),
            (ID, self.id.as_deref()),
            (LANG, self.lang.as_deref()),
            (EXTRA, (!self.extra.is_empty()).then_some(&*self.extra)),
        ];
        let there = fields
            .iter()
            .filter(|(_, value)| value.is_some())
            .fold(0, |flags, (flag, _)| flags | flag);
        out.put_u8(there | if self.payload.is_some() { PAYLOAD } else { 0 });
        for text in fields.iter().filter_map(|(_, value)| *value) {
            put_text(&mut out, text);
        }
        if let Some(payload) = &self.payload {
            put_payload(&mut out, payload);
        }
        out.put_slice(&self.body);
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote. The body shares `bytes`.
    ///
    /// # Errors
    /// When it is something else. That the body is XML is not checked again.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        let body_at = |rest: &[u8]| bytes.len() - rest.len();
        let mut rest: &[u8] = &bytes;
        if take_byte(&mut rest)? != VERSION {
            return Err(DecodeError("unknown version"));
        }
        let kind = KINDS
            .get(usize::from(take_byte(&mut rest)?))
            .ok_or(DecodeError("unknown kind"))?;
        let flags = take_byte(&mut rest)?;
        if flags >= PAYLOAD << 1 {
            return Err(DecodeError("unknown field"));
        }
        let mut text = |flag: u8| {
            if flags & flag == 0 {
                Ok(None)
            } else {
                take_text(&mut rest).map(Some)
            }
        };
        let jid = |text: &str| Jid::parse(text).map_err(|_| DecodeError("not an address"));
        let to = text(TO)?.map(jid).transpose()?;
        let from = text(FROM)?.map(jid).transpose()?;
        let id = text(ID)?.map(Into::into);
        let lang = text(LANG)?.map(Into::into);
        let extra = text(EXTRA)?.unwrap_or_default().into();
        let payload = if flags & PAYLOAD == 0 {
            None
        } else {
            Some(take_payload(&mut rest)?)
        };
        std::str::from_utf8(rest).map_err(|_| DecodeError("not UTF-8"))?;
        let spans = payload.iter().flat_map(|payload| {
            let ns = if let NsAt::Body(span) = payload.ns {
                span
            } else {
                payload.name
            };
            [payload.name, ns]
        });
        if spans.into_iter().any(|span| span.read(rest).is_none()) {
            return Err(DecodeError("payload out of range"));
        }
        let body_at = body_at(rest);
        bytes.advance(body_at);
        Ok(Self {
            kind: *kind,
            to,
            from,
            id,
            lang,
            payload,
            extra,
            body: bytes,
        })
    }
}

fn put_number(out: &mut BytesMut, mut number: u32) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_number(out, text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_span(out: &mut BytesMut, span: Span) {
    put_number(out, span.start);
    put_number(out, span.length);
}

fn put_payload(out: &mut BytesMut, payload: &PayloadAt) {
    put_span(out, payload.name);
    match &payload.ns {
        NsAt::Content => out.put_u8(NS_CONTENT),
        NsAt::None => out.put_u8(NS_NONE),
        NsAt::Body(span) => {
            out.put_u8(NS_BODY);
            put_span(out, *span);
        }
        NsAt::Elsewhere(ns) => {
            out.put_u8(NS_ELSEWHERE);
            put_text(out, ns);
        }
    }
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, DecodeError> {
    let (byte, after) = rest.split_first().ok_or(DecodeError("cut off"))?;
    *rest = after;
    Ok(*byte)
}

fn take_number(rest: &mut &[u8]) -> Result<u32, DecodeError> {
    let mut number = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = take_byte(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).map_err(|_| DecodeError("number out of range"));
        }
    }
    Err(DecodeError("number out of range"))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let length = take_number(rest)? as usize;
    let (text, after) = rest.split_at_checked(length).ok_or(DecodeError("cut off"))?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| DecodeError("not UTF-8"))
}

fn take_span(rest: &mut &[u8]) -> Result<Span, DecodeError> {
    Ok(Span {
        start: take_number(rest)?,
        length: take_number(rest)?,
    })
}

fn take_payload(rest: &mut &[u8]) -> Result<PayloadAt, DecodeError> {
    let name = take_span(rest)?;
    let ns = match take_byte(rest)? {
        NS_CONTENT => NsAt::Content,
        NS_NONE => NsAt::None,
        NS_BODY => NsAt::Body(take_span(rest)?),
        NS_ELSEWHERE => NsAt::Elsewhere(take_text(rest)?.into()),
        _ => return Err(DecodeError("unknown kind of namespace")),
    };
    Ok(PayloadAt { name, ns })
}

/// Part of the format: numbers are never used again for something else.
const KINDS: [Kind; 17] = [
    Kind::Message(MessageType::Normal),
    Kind::Message(MessageType::Chat),
    Kind::Message(MessageType::Groupchat),
    Kind::Message(MessageType::Headline),
    Kind::Message(MessageType::Error),
    Kind::Presence(PresenceType::Available),
    Kind::Presence(PresenceType::Unavailable),
    Kind::Presence(PresenceType::Subscribe),
    Kind::Presence(PresenceType::Subscribed),
    Kind::Presence(PresenceType::Unsubscribe),
    Kind::Presence(PresenceType::Unsubscribed),
    Kind::Presence(PresenceType::Probe),
    Kind::Presence(PresenceType::Error),
    Kind::Iq(IqType::Get),
    Kind::Iq(IqType::Set),
    Kind::Iq(IqType::Result),
    Kind::Iq(IqType::Error),
];

fn kind_to_byte(kind: Kind) -> u8 {
    KINDS.iter().position(|known| *known == kind).unwrap_or_default() as u8
}
