//! The list of all keys, read out of the schema of [`Config`](super::Config).

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Config, units};

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// The dotted name: `edge.c2s`.
    pub name: String,
    /// What it means, in a few lines.
    pub doc: String,
    /// What kind of value it takes.
    pub kind: Kind,
    /// What is expected, for people: `a size such as ...`.
    pub expected: String,
    /// The default; `None` when the key is unset by default.
    pub default: Option<toml::Value>,
}

/// A section: `[edge]`.
#[derive(Clone, Debug)]
pub struct Section {
    /// The dotted name; empty for the top level.
    pub name: String,
    /// What its keys are about.
    pub doc: String,
}

/// What kind of value a key takes, as far as text from flags and environment has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number, also a broken one.
    Number,
    /// Text, also with a form of its own such as a duration.
    Text,
    /// A list of texts, comma separated outside of TOML.
    List,
}

/// All keys, and all sections they are in.
#[derive(Debug)]
pub struct Keys {
    /// In the order of the structs, each section's own keys before the sections inside it.
    pub keys: Vec<Key>,
    /// In the same order, starting with the top level.
    pub sections: Vec<Section>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let schema = SchemaSettings::default()
        .with(|s| s.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>();
    let defaults = toml::Value::try_from(Config::default()).expect("the default configuration is TOML");
    let mut all = Keys {
        keys: Vec::new(),
        sections: Vec::new(),
    };
    all.add_section("", schema.as_value(), &defaults);
    all
});

/// Every key there is.
pub fn all() -> &'static Keys {
    &KEYS
}

impl Keys {
    /// The key of this dotted name.
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Whether a section has this dotted name.
    pub fn is_section(&self, name: &str) -> bool {
        self.sections.iter().any(|section| section.name == name)
    }

    /// The known key whose name is nearest to `name`, when it is near enough to be meant.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        self.keys
            .iter()
            .map(|key| {
                // A good key in the wrong section, or without its section, is as likely as a typing error.
                let whole = strsim::normalized_damerau_levenshtein(name, &key.name);
                let part = 0.9 * strsim::normalized_damerau_levenshtein(&last(name), &last(&key.name));
                (whole.max(part), key.name.as_str())
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness >= 0.5)
            .map(|(_, name)| name)
    }

    fn add_section(&mut self, path: &str, schema: &Value, defaults: &toml::Value) {
        self.sections.push(Section {
            name: path.to_owned(),
            doc: section_doc(schema),
        });
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        let name = |field: &str| {
            if path.is_empty() {
                field.to_owned()
            } else {
                format!("{path}.{field}")
            }
        };
        let (sections, keys): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, s)| s.get("properties").is_some());
        for (field, schema) in keys {
            self.keys.push(Key {
                name: name(field),
                doc: schema["description"].as_str().unwrap_or_default().to_owned(),
                kind: kind(schema),
                expected: expected(schema),
                default: defaults.get(field).cloned(),
            });
        }
        let nothing = toml::Value::Table(toml::Table::new());
        for (field, schema) in sections {
            self.add_section(&name(field), schema, defaults.get(field).unwrap_or(&nothing));
        }
    }
}

/// The doc of a section's struct: ``/// `[edge]`: the sockets of clients.``
fn section_doc(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// The schema of the value itself, when the key may be unset.
fn unwrapped(schema: &Value) -> &Value {
    let variants = schema["anyOf"].as_array();
    variants
        .and_then(|variants| variants.iter().find(|variant| variant["type"] != "null"))
        .unwrap_or(schema)
}

fn kind(schema: &Value) -> Kind {
    let schema = unwrapped(schema);
    let is = |wanted: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|t| t == wanted),
        one => one == wanted,
    };
    if is("array") {
        Kind::List
    } else if is("boolean") {
        Kind::Boolean
    } else if is("integer") {
        Kind::Integer
    } else if is("number") {
        Kind::Number
    } else {
        Kind::Text
    }
}

fn expected(schema: &Value) -> String {
    let schema = unwrapped(schema);
    if let Some(expected) = schema[units::EXPECTED].as_str() {
        return expected.to_owned();
    }
    if let Some(names) = names(schema) {
        return format!("one of {}", names.join(", "));
    }
    match kind(schema) {
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer => match schema["maximum"].as_u64() {
            Some(maximum) => format!("a whole number up to {maximum}"),
            None => "a whole number".to_owned(),
        },
        Kind::Number => "a number".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::List => match expected(&schema["items"]) {
            text if text == "text" => "a list of texts".to_owned(),
            item => format!("a list, each {item}"),
        },
    }
}

/// The names of an enum's variants.
fn names(schema: &Value) -> Option<Vec<String>> {
    let quoted = |name: &Value| name.as_str().map(|name| format!("`{name}`"));
    if let Some(names) = schema["enum"].as_array() {
        return Some(names.iter().filter_map(quoted).collect());
    }
    schema["oneOf"].as_array().map(|variants| {
        variants
            .iter()
            .filter_map(|variant| quoted(&variant["const"]))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_doc_and_says_what_it_expects() {
        for key in &all().keys {
            assert!(key.doc.len() > 15, "{} has no doc", key.name);
            assert!(
                !key.expected.is_empty() && !key.expected.ends_with("one of "),
                "{}: {}",
                key.name,
                key.expected
            );
        }
        for section in &all().sections {
            assert!(!section.doc.is_empty(), "[{}] has no doc", section.name);
        }
    }

    #[test]
    fn keys_that_scripts_rely_on_are_there_with_their_defaults() {
        let relied_on = [
            ("domains", r#"["localhost"]"#),
            ("roles", r#"["edge", "core"]"#),
            ("edge.c2s", r#"["0.0.0.0:5222"]"#),
            ("edge.c2s_tls", r#"["0.0.0.0:5223"]"#),
            ("tls.required", "true"),
            ("tls.certificate", ""),
            ("tls.key", ""),
            (
                "auth.mechanisms",
                r#"["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]"#,
            ),
            ("auth.registration", "false"),
            ("auth.admins", "[]"),
            ("admin.listen", r#""127.0.0.1:5280""#),
            ("peer.listen", ""),
            ("peer.advertise", ""),
            ("peer.seeds", "[]"),
            ("peer.bootstrap", ""),
            ("peer.certificate", ""),
            ("peer.key", ""),
            ("storage.data", r#""./heronry-data""#),
            ("limits.stanza_bytes_max", r#""256 KiB""#),
            ("limits.rate.enabled", "true"),
        ];
        for (name, default) in relied_on {
            let key = all().key(name).unwrap_or_else(|| panic!("{name} is gone"));
            assert_eq!(
                key.default.as_ref().map(toml::Value::to_string).unwrap_or_default(),
                default,
                "{name}"
            );
        }
    }

    #[test]
    fn expectations_are_sentences() {
        let expected = |name| all().key(name).unwrap().expected.as_str();
        assert_eq!(expected("tls.required"), "true or false");
        assert_eq!(expected("roles"), "a list, each one of `edge`, `core`");
        assert_eq!(expected("limits.depth_max"), "a whole number up to 65535");
        assert_eq!(expected("peer.bootstrap"), "a whole number up to 65535");
        assert_eq!(expected("admin.hosts"), "a list of texts");
        assert_eq!(
            expected("edge.c2s"),
            "a list, each an address such as `127.0.0.1:5222` or `[::1]:5222`"
        );
        assert_eq!(expected("limits.shutdown_timeout"), "a duration such as `30s`");
        assert_eq!(expected("tls.certificate"), "a path");
    }

    #[test]
    fn the_nearest_key_is_named() {
        let nearest = |name| all().nearest(name);
        assert_eq!(nearest("edge.c2s_tsl"), Some("edge.c2s_tls"));
        assert_eq!(nearest("domain"), Some("domains"));
        assert_eq!(nearest("c2s"), Some("edge.c2s"));
        assert_eq!(nearest("admin.lsten"), Some("admin.listen"));
        assert_eq!(nearest("xyzzy"), None);
    }
}
