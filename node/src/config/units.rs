//! Quantities with units as they are written in configuration: `"256 KiB"`, `"30s"`.
//!
//! Fields keep plain types (`usize` bytes, [`std::time::Duration`]) and name these modules in `#[serde(with = ..)]`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// The extension of a key's schema that says, for people, what is expected.
pub(super) const EXPECTED: &str = "x-expected";

/// A type that exists only to describe text with a certain form in the schema.
macro_rules! described {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        pub(super) enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", EXPECTED: $expected })
            }
        }
    };
}

described!(
    /// Bytes, see [`bytes`].
    Bytes,
    "a size such as `256 KiB`"
);
described!(
    /// Time, see [`duration`].
    Time,
    "a duration such as `30s`"
);
described!(
    /// A [`std::net::SocketAddr`].
    Address,
    "an address such as `127.0.0.1:5222` or `[::1]:5222`"
);
described!(
    /// A domain as RFC 7622 §3.2 has it.
    Domain,
    "a domain such as `example.org`"
);
described!(
    /// A bare JID.
    BareJid,
    "a bare JID such as `juliet@example.org`"
);
described!(
    /// A path.
    Path,
    "a path"
);

/// Sizes: `"256 KiB"`, `"10 KB"`, or a number of bytes.
pub(super) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&display(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let bytes = match Form::deserialize(deserializer)? {
            Form::Number(bytes) => bytes,
            Form::Text(text) => text.parse::<bytesize::ByteSize>().map_err(D::Error::custom)?.as_u64(),
        };
        usize::try_from(bytes).map_err(D::Error::custom)
    }

    /// The shortest exact form.
    pub(crate) fn display(bytes: usize) -> String {
        const UNITS: [(usize, &str); 6] = [
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
            (1_000_000_000, "GB"),
            (1_000_000, "MB"),
            (1_000, "KB"),
        ];
        let unit = UNITS.iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
        unit.map_or_else(
            || format!("{bytes} B"),
            |(size, name)| format!("{} {name}", bytes / size),
        )
    }
}

/// Durations: `"30s"`, `"1m 30s"`, `"250ms"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*duration).to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::bytes::display;

    #[test]
    fn sizes_are_shown_exactly() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1024, "1 KiB"),
            (10_000, "10 KB"),
            (262_144, "256 KiB"),
            (1_500_001, "1500001 B"),
        ] {
            assert_eq!(display(bytes), text);
            assert_eq!(text.parse::<bytesize::ByteSize>().unwrap().as_u64(), bytes as u64);
        }
    }
}
