//! The four messages (RFC 5802 §7), parsed as strictly as the grammar is: what does not match it exactly is refused, since both
//! sides sign what they read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A message that is not what the grammar says.
pub(super) type Malformed = &'static str;

/// The attributes that RFC 5802 §5.1 defines. In the place of an extension they are out of order.
const DEFINED: &[u8] = b"anmrcsipve";

/// `gs2-cbind-flag`: what the client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindingFlag<'a> {
    /// `n`: the client has none.
    Unsupported,
    /// `y`: the client has one and saw no `-PLUS` offered.
    NotOffered,
    /// `p=…`: bound to that type.
    Used(&'a str),
}

/// `client-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag<'a>,
    pub(super) authzid: Option<String>,
    pub(super) username: String,
    pub(super) nonce: &'a str,
    /// `gs2-header`, as the client's final message must repeat it.
    pub(super) gs2_header: &'a str,
    /// `client-first-message-bare`, as both sides sign it.
    pub(super) bare: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let message = text(message)?;
        let (flag, rest) = message.split_once(',').ok_or("a GS2 header is missing")?;
        let flag = match flag {
            "n" => BindingFlag::Unsupported,
            "y" => BindingFlag::NotOffered,
            _ => BindingFlag::Used(
                flag.strip_prefix("p=")
                    .filter(|name| is_cb_name(name))
                    .ok_or("a bad GS2 header")?,
            ),
        };
        let (authzid, bare) = rest.split_once(',').ok_or("a GS2 header is missing")?;
        let authzid = match authzid {
            "" => None,
            _ => Some(saslname(authzid.strip_prefix("a=").ok_or("a bad GS2 header")?)?),
        };
        let gs2_header = &message[..message.len() - bare.len()];

        let mut attributes = bare.split(',');
        let username = saslname(attribute(attributes.next(), 'n')?)?;
        let nonce = nonce(attribute(attributes.next(), 'r')?)?;
        extensions(attributes)?;
        Ok(Self {
            flag,
            authzid,
            username,
            nonce,
            gs2_header,
            bare,
        })
    }
}

/// `server-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut attributes = text(message)?.split(',');
        let nonce = nonce(attribute(attributes.next(), 'r')?)?;
        let salt = base64(attribute(attributes.next(), 's')?)?;
        let iterations = posit_number(attribute(attributes.next(), 'i')?)?;
        extensions(attributes)?;
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }

    pub(super) fn write(nonce: &str, salt: &[u8], iterations: u32) -> String {
        format!("r={nonce},s={},i={iterations}", BASE64.encode(salt))
    }
}

/// `client-final-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// `cbind-input`.
    pub(super) binding: Vec<u8>,
    pub(super) nonce: &'a str,
    pub(super) proof: Vec<u8>,
    /// `client-final-message-without-proof`, as both sides sign it.
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (without_proof, proof) = text(message)?.rsplit_once(',').ok_or("the proof is missing")?;
        let proof = base64(attribute(Some(proof), 'p')?)?;
        let mut attributes = without_proof.split(',');
        let binding = base64(attribute(attributes.next(), 'c')?)?;
        let nonce = nonce(attribute(attributes.next(), 'r')?)?;
        extensions(attributes)?;
        Ok(Self {
            binding,
            nonce,
            proof,
            without_proof,
        })
    }

    pub(super) fn write_without_proof(binding: &[u8], nonce: &str) -> String {
        format!("c={},r={nonce}", BASE64.encode(binding))
    }

    pub(super) fn write_proof(without_proof: &str, proof: &[u8]) -> String {
        format!("{without_proof},p={}", BASE64.encode(proof))
    }
}

/// `server-final-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerFinal<'a> {
    /// `ServerSignature`.
    Verifier(Vec<u8>),
    /// `server-error-value`.
    Error(&'a str),
}

impl<'a> ServerFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut attributes = text(message)?.split(',');
        let first = attributes.next();
        let parsed = match first.and_then(|first| first.strip_prefix("e=")) {
            Some("") => return Err("an empty error"),
            Some(error) => Self::Error(error),
            None => Self::Verifier(base64(attribute(first, 'v')?)?),
        };
        extensions(attributes)?;
        Ok(parsed)
    }

    pub(super) fn write_verifier(signature: &[u8]) -> String {
        format!("v={}", BASE64.encode(signature))
    }
}

/// Quotes `,` and `=` (RFC 5802 §5.1, attribute `n`).
pub(super) fn quote(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn text(message: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(message).map_err(|_| "not UTF-8")?;
    if text.contains('\0') {
        Err("a NUL character")
    } else {
        Ok(text)
    }
}

/// The value of the attribute that must stand here.
fn attribute(part: Option<&str>, name: char) -> Result<&str, Malformed> {
    let part = part.ok_or("an attribute is missing")?;
    if part.starts_with("m=") {
        return Err("a mandatory extension that is not supported");
    }
    part.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='))
        .ok_or("an attribute is missing or out of order")
}

/// `["," extensions]`: unknown ones are ignored, but must be attributes (RFC 5802 §5.1).
fn extensions<'a>(parts: impl Iterator<Item = &'a str>) -> Result<(), Malformed> {
    for part in parts {
        match part.as_bytes() {
            [b'm', b'=', ..] => return Err("a mandatory extension that is not supported"),
            [name, b'=', _, ..] if name.is_ascii_alphabetic() && !DEFINED.contains(name) => {}
            _ => return Err("an attribute out of order"),
        }
    }
    Ok(())
}

/// `saslname`, with its quoting undone.
fn saslname(quoted: &str) -> Result<String, Malformed> {
    if quoted.is_empty() {
        return Err("an empty name");
    }
    let mut parts = quoted.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err("a name with a bare '='"),
        };
        name.push(character);
        name.push_str(rest);
    }
    Ok(name)
}

fn nonce(value: &str) -> Result<&str, Malformed> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x2b | 0x2d..=0x7e);
    if value.is_empty() {
        Err("an empty nonce")
    } else if value.bytes().all(printable) {
        Ok(value)
    } else {
        Err("a bad nonce")
    }
}

/// `base64`, padded and canonical.
fn base64(value: &str) -> Result<Vec<u8>, Malformed> {
    if value.is_empty() {
        return Err("an empty value");
    }
    BASE64.decode(value).map_err(|_| "not base64")
}

/// `posit-number`: no sign, no leading zero.
fn posit_number(value: &str) -> Result<u32, Malformed> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    if digits {
        value.parse().map_err(|_| "a number out of range")
    } else {
        Err("not a positive number")
    }
}

fn is_cb_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}
