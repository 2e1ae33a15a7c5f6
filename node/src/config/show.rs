//! The configuration for people: `heronry config show`, and the page `docs/configuration.md`.

use std::fmt::Write as _;

use super::{
    Loaded, Source,
    keys::{self, Key, Section},
};

/// Every key with its doc, default, value and where that came from, as TOML that can be used as a configuration file.
pub fn toml(loaded: &Loaded) -> String {
    let values = toml::Value::try_from(&loaded.config).expect("a configuration is TOML");
    let mut out = String::new();
    for (section, keys) in by_section() {
        if !section.name.is_empty() {
            let _ = writeln!(out, "[{}]", section.name);
        }
        for key in keys {
            for line in key.doc.lines() {
                let _ = writeln!(out, "# {}", line.trim_end());
            }
            let source = loaded.source(&key.name);
            let origin = if source == Source::Default {
                String::new()
            } else {
                format!("; set by {source}")
            };
            let _ = writeln!(
                out,
                "# Default: {}{origin}",
                key.default.as_ref().map_or_else(|| "not set".to_owned(), text)
            );
            let _ = match value(&values, &key.name) {
                Some(value) => writeln!(out, "{} = {}\n", last(&key.name), text(value)),
                None => writeln!(out, "# {} =\n", last(&key.name)),
            };
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The page that documents every key.
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    for (section, keys) in by_section() {
        match section.name.as_str() {
            "" => out.push_str("\n## Top level\n"),
            name => {
                let _ = writeln!(out, "\n## `[{name}]`");
            }
        }
        if let Some((_, about)) = section.doc.split_once("`: ") {
            let _ = writeln!(out, "\n{}", capital(&about.replace('\n', " ")));
        }
        for key in keys {
            let _ = writeln!(out, "\n### `{}`\n\n{}\n", key.name, key.doc.trim());
            let _ = writeln!(out, "- takes {}", key.expected);
            let default = key
                .default
                .as_ref()
                .map_or_else(|| "not set".to_owned(), |value| format!("`{}`", text(value)));
            let _ = writeln!(out, "- default: {default}");
            let _ = writeln!(out, "- environment: `{}`", variable(key));
        }
    }
    out
}

const HEAD: &str = "\
<!-- Written by the program: `make docs` updates it, a test compares. -->

# Configuration

Heronry needs no configuration to try it out. What is set comes from four places; the first that has a key wins:

1. flags: `--set section.key=value`, as often as needed; `--data DIR` is `--set storage.data=DIR`
2. environment: `HERONRY_SECTION__KEY`, two underscores between section and key; a top-level key is `HERONRY_KEY`
3. the file named by `--config FILE` or `HERONRY_CONFIG`, in TOML
4. the default

In flags and in the environment lists are comma separated. Every subcommand takes the same flags and finds the same
configuration. Paths are relative to the working directory. A key that does not exist is an error, wherever it is written.

`heronry config check FILE` checks a file; `heronry config show` prints every key with its value and where that came from,
as a file that can be used.

These variables are not keys: `HERONRY_CONFIG` (as `--config`), `HERONRY_ADMIN_TOKEN` (the token of the Admin service, else
it is in the file `admin.token` of the data directory), `HERONRY_LOG` and `HERONRY_LOG_FORMAT` (as `--log` and
`--log-format` of `heronry run`), and `HERONRY_CACHE` (where the Makefile keeps what it compiled).
The variables that Kubernetes sets for a service named `heronry` are left alone.
";

fn by_section() -> impl Iterator<Item = (&'static Section, Vec<&'static Key>)> {
    let all = keys::all();
    let of = |section: &Section| {
        let parent = |key: &&Key| key.name.rsplit_once('.').map_or("", |(parent, _)| parent) == section.name;
        all.keys.iter().filter(parent).collect::<Vec<_>>()
    };
    all.sections.iter().map(move |section| (section, of(section)))
}

/// The environment variable of a key.
fn variable(key: &Key) -> String {
    format!("HERONRY_{}", key.name.replace('.', "__").to_uppercase())
}

fn value<'v>(values: &'v toml::Value, name: &str) -> Option<&'v toml::Value> {
    name.split('.').try_fold(values, |value, part| value.get(part))
}

fn text(value: &toml::Value) -> String {
    value.to_string()
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn what_is_shown_can_be_used_as_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heronry.toml");
        let set = [
            "domains=a.example,b.example",
            "edge.c2s=",
            "tls.required=false",
            "limits.stanza_bytes_max=100 KiB",
        ];
        let sources = Sources {
            set: set.map(str::to_owned).to_vec(),
            ..Sources::default()
        };
        let shown = Loaded::load(&sources).unwrap();
        std::fs::write(&file, toml(&shown)).unwrap();
        let read = Loaded::load(&Sources {
            file: Some(file),
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(read.config, shown.config);
        assert_ne!(read.config, Config::default());
    }

    #[test]
    fn the_page_is_up_to_date() {
        // `make docs` writes it.
        expect_test::expect_file!["../../../docs/configuration.md"].assert_eq(&markdown());
    }
}
