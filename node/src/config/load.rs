//! Reads the four sources and merges them key by key, remembering where each value came from.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IntoDeserializer};
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{
    Config, check,
    keys::{self, Key, Kind},
};

/// What names the sources: flags and environment, taken apart by the command line.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config FILE` or `HERONRY_CONFIG`.
    pub file: Option<PathBuf>,
    /// The process's environment variables.
    pub environment: Vec<(String, String)>,
    /// Each `--set key=value`.
    pub set: Vec<String>,
    /// `--data DIR`.
    pub data: Option<PathBuf>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// This line of this file.
    File(PathBuf, usize),
    /// This environment variable.
    Environment(String),
    /// `--data` or `--set`.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(file, line) => write!(f, "{} line {line}", file.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Flag(name) => write!(f, "{name}"),
        }
    }
}

/// Why a configuration is not accepted. Each is one sentence that says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} line {line} is not TOML: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// `--set` without an `=`.
    #[error("--set {0} has no value: write --set key=value")]
    NoValue(String),
    /// No such key.
    #[error("unknown key `{key}` in {origin}{}", nearest.as_ref().map(|k| format!(": did you mean `{k}`?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        key: String,
        /// The known key nearest to it.
        nearest: Option<String>,
        /// Where it was written.
        origin: Source,
    },
    /// The value is not of the key's type.
    #[error("`{key}` in {origin} must be {expected}, not {found}")]
    Type {
        /// The key.
        key: String,
        /// What it takes.
        expected: String,
        /// What was given.
        found: String,
        /// Where it was given.
        origin: Source,
    },
    /// The value has the right type and cannot be used.
    #[error("`{key}` in {origin} {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
        /// Where it was given.
        origin: Source,
    },
}

/// A configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// By key, for those that somebody set.
    sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// Merges the sources and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut given = Given::default();
        if let Some(file) = &sources.file {
            given.read_file(file)?;
        }
        given.read_environment(&sources.environment)?;
        for assignment in &sources.set {
            let (key, text) = assignment
                .split_once('=')
                .ok_or_else(|| ConfigError::NoValue(assignment.clone()))?;
            given.text(key.trim(), text.trim(), Source::Flag("--set"))?;
        }
        if let Some(data) = &sources.data {
            given.text("storage.data", &data.to_string_lossy(), Source::Flag("--data"))?;
        }
        let mut loaded = given.merge()?;
        check::prepare(&mut loaded)?;
        check::values(&loaded)?;
        Ok(loaded)
    }

    /// Where the value of `key` came from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// Refuses what is written correctly and asks for something this version cannot do.
    ///
    /// # Errors
    /// Names the key and what to do instead.
    pub fn check_runnable(&self) -> Result<(), ConfigError> {
        check::runnable(self)
    }
}

/// Values by key as they were given, the strongest source last.
#[derive(Default)]
struct Given(BTreeMap<String, (Value, Source)>);

impl Given {
    fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Unreadable {
            file: file.to_owned(),
            error,
        })?;
        let line = |offset: usize| text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        self.read_table("", table.get_ref(), &|offset| {
            Source::File(file.to_owned(), line(offset))
        })
    }

    fn read_table(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        origin: &dyn Fn(usize) -> Source,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let origin_here = origin(name.span().start);
            let name = if path.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{path}.{}", name.get_ref())
            };
            if let Some(key) = keys::all().key(&name) {
                let value = one_or_many(key, plain(value));
                self.0.insert(name, (value, origin_here));
            } else if keys::all().is_section(&name) {
                let DeValue::Table(inner) = value.get_ref() else {
                    let expected = format!("a section, written [{name}]");
                    return Err(ConfigError::Type {
                        key: name,
                        expected,
                        found: plain(value).to_string(),
                        origin: origin_here,
                    });
                };
                self.read_table(&name, inner, origin)?;
            } else {
                return Err(unknown(&name, origin_here));
            }
        }
        Ok(())
    }

    fn read_environment(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix("HERONRY_") else {
                continue;
            };
            if not_a_key(rest) {
                continue;
            }
            let key = rest.to_lowercase().replace("__", ".");
            self.text(&key, text, Source::Environment(variable.clone()))?;
        }
        Ok(())
    }

    /// A value written as text, in a flag or in the environment: what it is depends on the key.
    fn text(&mut self, name: &str, text: &str, origin: Source) -> Result<(), ConfigError> {
        let key = keys::all().key(name).ok_or_else(|| unknown(name, origin.clone()))?;
        let value = match key.kind {
            Kind::Boolean => text.parse().map(Value::Boolean).ok(),
            Kind::Integer => text.parse().map(Value::Integer).ok(),
            Kind::Number => text.parse().map(Value::Float).ok(),
            Kind::Text => Some(Value::String(text.to_owned())),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
        };
        let value = value.ok_or_else(|| wrong_type(key, format!("`{text}`"), origin.clone()))?;
        self.0.insert(name.to_owned(), (value, origin));
        Ok(())
    }

    fn merge(self) -> Result<Loaded, ConfigError> {
        let mut table = toml::Table::new();
        let mut sources = BTreeMap::new();
        for (name, (value, origin)) in &self.0 {
            insert(&mut table, name, value.clone());
            sources.insert(name.clone(), origin.clone());
        }
        let config = serde_path_to_error::deserialize(table).map_err(|error| {
            let path = error.path().to_string();
            let name = path.split('[').next().unwrap_or_default();
            match (keys::all().key(name), self.0.get(name)) {
                (Some(key), Some((value, origin))) => wrong_type(key, value.to_string(), origin.clone()),
                // Not reached: only what was given is deserialized.
                _ => ConfigError::Value {
                    key: path,
                    problem: error.inner().to_string(),
                    origin: Source::Default,
                },
            }
        })?;
        Ok(Loaded { config, sources })
    }
}

fn insert(table: &mut toml::Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// A list of one may be written without brackets.
fn one_or_many(key: &Key, value: Value) -> Value {
    match value {
        Value::String(_) if key.kind == Kind::List => Value::Array(vec![value]),
        value => value,
    }
}

fn unknown(key: &str, origin: Source) -> ConfigError {
    ConfigError::Unknown {
        key: key.to_owned(),
        nearest: keys::all().nearest(key).map(str::to_owned),
        origin,
    }
}

fn wrong_type(key: &Key, found: String, origin: Source) -> ConfigError {
    ConfigError::Type {
        key: key.name.clone(),
        expected: key.expected.clone(),
        found,
        origin,
    }
}

/// Variables that start with `HERONRY_` and are not keys: those that commands and build scripts read, and those that
/// Kubernetes sets in every pod when a service's name starts with `heronry`.
fn not_a_key(rest: &str) -> bool {
    if ["ADMIN_TOKEN", "CACHE", "CONFIG", "LOG", "LOG_FORMAT"].contains(&rest) {
        return true;
    }
    let (head, kubernetes) = match rest.rsplit_once("PORT_") {
        Some((head, tail)) => (head, tail.starts_with(|c: char| c.is_ascii_digit())),
        None => (rest, false),
    };
    let service =
        rest.ends_with("SERVICE_HOST") || rest.contains("SERVICE_PORT") || rest == "PORT" || rest.ends_with("_PORT");
    !head.contains("__") && (kubernetes || service)
}

/// The value without its positions.
fn plain(value: &Spanned<DeValue<'_>>) -> Value {
    // A value that was parsed deserializes into itself; numbers beyond 64 bits are the exception, and shown as text.
    Value::deserialize(value.clone().into_deserializer())
        .unwrap_or_else(|_| Value::String("a number out of range".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("h.toml");
        std::fs::write(&path, text).unwrap();
        (
            directory,
            Sources {
                file: Some(path),
                ..Sources::default()
            },
        )
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn sentence(sources: &Sources) -> String {
        let sentence = Loaded::load(sources).unwrap_err().to_string();
        match &sources.file {
            Some(path) => sentence.replace(&path.display().to_string(), "h.toml"),
            None => sentence,
        }
    }

    fn set(assignments: &[&str]) -> Sources {
        Sources {
            set: assignments.iter().map(|a| (*a).to_owned()).collect(),
            ..Sources::default()
        }
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(Loaded::load(&Sources::default()).unwrap().config, Config::default());
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let (_directory, mut sources) =
            file("domains = ['file.example']\n[admin]\nlisten = '127.0.0.1:1'\n[edge]\nc2s = '127.0.0.1:2'\n");
        let domains = |sources: &Sources| Loaded::load(sources).unwrap().config.domains;
        assert_eq!(domains(&sources), ["file.example"]);
        sources.environment = environment(&[
            ("HERONRY_DOMAINS", "env.example, two.example"),
            ("HERONRY_EDGE__C2S", ""),
        ]);
        assert_eq!(domains(&sources), ["env.example", "two.example"]);
        sources.set = vec!["domains=flag.example".to_owned()];
        sources.data = Some("/flag".into());
        let loaded = Loaded::load(&sources).unwrap();
        assert_eq!(loaded.config.domains, ["flag.example"]);
        assert_eq!(loaded.config.admin.listen.port(), 1);
        assert!(loaded.config.edge.c2s.is_empty());
        assert_eq!(loaded.config.edge.c2s_tls, Config::default().edge.c2s_tls);
        assert_eq!(loaded.config.data(), Path::new("/flag"));
        assert_eq!(
            loaded.source("edge.c2s"),
            Source::Environment("HERONRY_EDGE__C2S".to_owned())
        );
        assert_eq!(
            loaded.source("admin.listen"),
            Source::File(sources.file.clone().unwrap(), 3)
        );
        assert_eq!(loaded.source("tls.required"), Source::Default);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_its_place() {
        let (_directory, sources) = file("[edge]\nc2s_tsl = '0.0.0.0:1'\n");
        assert_eq!(
            sentence(&sources),
            "unknown key `edge.c2s_tsl` in h.toml line 2: did you mean `edge.c2s_tls`?"
        );
        let sources = Sources {
            environment: environment(&[("HERONRY_TLS__REQUIERD", "no")]),
            ..Sources::default()
        };
        assert_eq!(
            sentence(&sources),
            "unknown key `tls.requierd` in the environment variable HERONRY_TLS__REQUIERD: did you mean `tls.required`?"
        );
        assert_eq!(sentence(&set(&["xyzzy=1"])), "unknown key `xyzzy` in --set");
        assert_eq!(
            sentence(&set(&["domains"])),
            "--set domains has no value: write --set key=value"
        );
    }

    #[test]
    fn a_wrong_type_says_key_expected_type_and_place() {
        let cases = [
            (
                "[tls]\nrequired = 'yes'",
                "`tls.required` in h.toml line 2 must be true or false, not \"yes\"",
            ),
            (
                "[edge]\nc2s = ['0.0.0.0:1',\n 'here']",
                "`edge.c2s` in h.toml line 2 must be a list, each an address such as `127.0.0.1:5222` or `[::1]:5222`, \
                 not [\"0.0.0.0:1\", \"here\"]",
            ),
            (
                "tls = 1",
                "`tls` in h.toml line 1 must be a section, written [tls], not 1",
            ),
            (
                "[limits]\ndepth_max = -1",
                "`limits.depth_max` in h.toml line 2 must be a whole number up to 65535, not -1",
            ),
            (
                "[limits]\nstanza_bytes_max = 'much'",
                "`limits.stanza_bytes_max` in h.toml line 2 must be a size such as `256 KiB`, not \"much\"",
            ),
            (
                "[limits]\nshutdown_timeout = 5",
                "`limits.shutdown_timeout` in h.toml line 2 must be a duration such as `30s`, not 5",
            ),
            (
                "roles = ['edge', 'cor']",
                "`roles` in h.toml line 1 must be a list, each one of `edge`, `core`, not [\"edge\", \"cor\"]",
            ),
        ];
        for (text, expected) in cases {
            let (_directory, sources) = file(text);
            assert_eq!(sentence(&sources), expected);
        }
        assert_eq!(
            sentence(&set(&["tls.required=maybe"])),
            "`tls.required` in --set must be true or false, not `maybe`"
        );
    }

    #[test]
    fn what_is_not_toml_names_the_line() {
        let (_directory, sources) = file("[edge]\n\nc2s = \n");
        assert!(
            sentence(&sources).starts_with("h.toml line 3 is not TOML: "),
            "{}",
            sentence(&sources)
        );
    }

    #[test]
    fn limits_must_fit_into_each_other() {
        assert_eq!(
            sentence(&set(&["limits.stanza_bytes_max=512 KiB"])),
            "`limits.stanza_bytes_max` in --set must be smaller than `limits.frame_bytes_max` (524288 bytes against 524288)"
        );
        assert_eq!(
            sentence(&set(&["limits.entry_bytes_max=1"])),
            "`limits.frame_bytes_max` in the default must be smaller than `limits.entry_bytes_max` (524288 bytes against 1)"
        );
        assert_eq!(
            sentence(&set(&["limits.link.call_bytes_max=1 MiB"])),
            "`limits.entry_bytes_max` in the default must be smaller than `limits.link.call_bytes_max` (1048576 bytes against 1048576)"
        );
        assert_eq!(
            sentence(&set(&["limits.link.queue_bytes_max=1"])),
            "`limits.frame_bytes_max` in the default must be smaller than `limits.link.queue_bytes_max` (524288 bytes against 1)"
        );
    }

    #[test]
    fn domains_and_admins_are_addresses_and_prepared_as_such() {
        let loaded = Loaded::load(&set(&[
            "domains=EXAMPLE.org,b\u{fc}cher.example",
            "auth.admins=Romeo@example.org",
        ]))
        .unwrap();
        assert_eq!(loaded.config.domains, ["example.org", "b\u{fc}cher.example"]);
        assert_eq!(loaded.config.auth.admins, ["romeo@example.org"]);
        for assignment in [
            "domains=a b",
            "domains=a@b",
            "domains=a/b",
            "domains=a.example,A.example",
            "auth.admins=example.org",
            "auth.admins=a@b/c",
        ] {
            let sentence = sentence(&set(&[assignment]));
            assert!(sentence.contains("in --set names"), "{assignment}: {sentence}");
        }
    }

    #[test]
    fn a_number_may_be_a_part_of_one_wherever_it_is_said() {
        let loaded = Loaded::load(&set(&["telemetry.sampling_ratio=0.25"])).unwrap();
        assert_eq!(loaded.config.telemetry.sampling_ratio.to_bits(), 0.25_f64.to_bits());
        let sentence = sentence(&set(&["telemetry.sampling_ratio=all"]));
        assert_eq!(
            sentence,
            "`telemetry.sampling_ratio` in --set must be a number, not `all`"
        );
    }

    #[test]
    fn places_that_others_are_told_are_hosts_with_a_port() {
        for key in ["peer.advertise", "edge.advertise", "edge.advertise_tls"] {
            for place in ["a.example:5222", "192.0.2.1:1", "[2001:db8::1]:5222"] {
                Loaded::load(&set(&[format!("{key}={place}").as_str()])).unwrap();
            }
            for place in [
                "a.example",
                ":1",
                "a:0",
                "a:65536",
                "2001:db8::1",
                "[a]:1",
                "a b:1",
                "xmpp://a:1",
            ] {
                let sentence = sentence(&set(&[format!("{key}={place}").as_str()]));
                assert!(
                    sentence.contains("must be a name or an IP address"),
                    "{place}: {sentence}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_make_sense_together_is_refused_by_run_and_accepted_by_check() {
        let cases = [
            "peer.seeds=a:1",
            "peer.bootstrap=3",
            "edge.location=true",
            "roles=edge",
            "peer.listen=0.0.0.0:5269",
            "peer.listen=192.0.2.1:5269",
            "peer.certificate=node.pem",
            "auth.admins=a@b",
        ];
        for assignment in cases {
            let loaded = Loaded::load(&set(&[assignment])).unwrap();
            let sentence = loaded.check_runnable().unwrap_err().to_string();
            let key = assignment.split('=').next().unwrap();
            assert!(sentence.starts_with(&format!("`{key}` in --set ")), "{sentence}");
        }
        Loaded::load(&Sources::default()).unwrap().check_runnable().unwrap();
        let reachable = ["peer.listen=192.0.2.1:5269", "peer.insecure=true", "roles=core"];
        Loaded::load(&set(&reachable)).unwrap().check_runnable().unwrap();
    }

    #[test]
    fn variables_that_are_not_keys_are_left_alone() {
        let variables = [
            "HERONRY_ADMIN_TOKEN",
            "HERONRY_SERVICE_HOST",
            "HERONRY_SERVICE_PORT",
            "HERONRY_SERVICE_PORT_C2S",
            "HERONRY_PORT",
            "HERONRY_PORT_5222_TCP",
            "HERONRY_PORT_5222_TCP_ADDR",
            "HERONRY_ADMIN_SERVICE_HOST",
            "HERONRY_ADMIN_PORT",
            "HERONRY_ADMIN_PORT_5280_TCP_PROTO",
            "PATH",
        ];
        let sources = Sources {
            environment: environment(&variables.map(|name| (name, "x"))),
            ..Sources::default()
        };
        assert_eq!(Loaded::load(&sources).unwrap().config, Config::default());
        for key in ["HERONRY_EDGE__PORT", "HERONRY_C2S"] {
            let sources = Sources {
                environment: environment(&[(key, "x")]),
                ..Sources::default()
            };
            assert!(sentence(&sources).starts_with("unknown key"), "{key}");
        }
    }
}
