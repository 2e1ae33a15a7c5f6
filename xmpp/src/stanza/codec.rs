//! A stanza as bytes for rows and for messages between cluster nodes: compact, stable, and read back without parsing XML.
//!
//! Version 1: the version byte; a byte for kind and type; a byte of flags, which fields are there; then `to`, `from`, `id`,
//! `lang`, the payload's name and namespace and `extra`, each there being a length (LEB128) and UTF-8; the body to the end.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{IqType, Kind, MessageType, Payload, PresenceType, Stanza};
use crate::jid::Jid;

const VERSION: u8 = 1;

const TO: u8 = 1;
const FROM: u8 = 1 << 1;
const ID: u8 = 1 << 2;
const LANG: u8 = 1 << 3;
const PAYLOAD: u8 = 1 << 4;
const EXTRA: u8 = 1 << 5;

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
        let flag = |flag: u8, there: bool| if there { flag } else { 0 };
        out.put_u8(
            flag(TO, self.to.is_some())
                | flag(FROM, self.from.is_some())
                | flag(ID, self.id.is_some())
                | flag(LANG, self.lang.is_some())
                | flag(PAYLOAD, self.payload.is_some())
                | flag(EXTRA, !self.extra.is_empty()),
        );
        let fields = [
            self.to.as_ref().map(|jid| jid.as_str()),
            self.from.as_ref().map(|jid| jid.as_str()),
            self.id.as_deref(),
            self.lang.as_deref(),
            self.payload.as_ref().map(|payload| &*payload.name),
            self.payload.as_ref().map(|payload| &*payload.ns),
            (!self.extra.is_empty()).then_some(&*self.extra),
        ];
        for field in fields.into_iter().flatten() {
            put_length(&mut out, field.len());
            out.put_slice(field.as_bytes());
        }
        out.put_slice(&self.body);
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote. The body shares `bytes`.
    ///
    /// # Errors
    /// When it is something else. That the body is XML is not checked again.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() < 3 {
            return Err(DecodeError("too short"));
        }
        if bytes.get_u8() != VERSION {
            return Err(DecodeError("unknown version"));
        }
        let kind = kind_from_byte(bytes.get_u8()).ok_or(DecodeError("unknown kind"))?;
        let flags = bytes.get_u8();
        if flags >= EXTRA << 1 {
            return Err(DecodeError("unknown field"));
        }
        let mut text = |flag: u8| {
            if flags & flag == 0 {
                Ok(None)
            } else {
                take_text(&mut bytes).map(Some)
            }
        };
        let jid = |text: Option<Bytes>| text.map(|text| as_jid(&text)).transpose();
        let string = |text: Option<Bytes>| text.map(|text| as_str(&text).map(Into::into)).transpose();
        let to = jid(text(TO)?)?;
        let from = jid(text(FROM)?)?;
        let id = string(text(ID)?)?;
        let lang = string(text(LANG)?)?;
        let payload = string(text(PAYLOAD)?)?
            .zip(string(text(PAYLOAD)?)?)
            .map(|(name, ns)| Payload { name, ns });
        let extra = string(text(EXTRA)?)?.unwrap_or_default();
        as_str(&bytes)?;
        Ok(Self {
            kind,
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

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

fn take_text(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let mut length = 0usize;
    for shift in [0, 7, 14, 21, 28] {
        if !bytes.has_remaining() {
            return Err(DecodeError("cut off"));
        }
        let byte = bytes.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if length <= bytes.len() {
                Ok(bytes.split_to(length))
            } else {
                Err(DecodeError("cut off"))
            };
        }
    }
    Err(DecodeError("length out of range"))
}

fn as_str(bytes: &Bytes) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError("not UTF-8"))
}

fn as_jid(bytes: &Bytes) -> Result<Jid, DecodeError> {
    Jid::parse(as_str(bytes)?).map_err(|_| DecodeError("not an address"))
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

fn kind_from_byte(byte: u8) -> Option<Kind> {
    KINDS.get(usize::from(byte)).copied()
}
