//! What can be set for a whole cluster, while it runs.

use std::{collections::BTreeMap, time::Duration};

/// Most settings a map keeps, those of newer programs included.
pub(super) const SETTINGS_MAX: usize = 64;

/// A secret of the whole cluster, 64 hexadecimal digits. It is set once: what comes later changes nothing, so members that have one each may
/// all propose it.
pub const SECRET: &str = "secret";

/// One thing that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What holds while it is not set.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "replicas",
        default: "3",
        doc: "How many voters a shard has when there are nodes enough: 1, 3 or 5.",
    },
    Setting {
        name: "metadata_replicas",
        default: "5",
        doc: "How many voters the metadata group has when there are nodes enough: 1, 3 or 5.",
    },
    Setting {
        name: "moves_max",
        default: "4",
        doc: "How many new replicas are copied at a time, and how many leaderships are handed over at a time, in the whole cluster.",
    },
    Setting {
        name: "settle_after",
        default: "5s",
        doc: "How long a node must have been reachable before it is given replicas or leaderships.",
    },
    Setting {
        name: "replace_after",
        default: "off",
        doc: "After how long a dead node's replicas are placed on others; `off`: only once it is evicted.",
    },
    Setting {
        name: "forget_edges_after",
        default: "1h",
        doc: "After how long a dead node that holds no shards counts as one that has left; `off`: never.",
    },
    Setting {
        name: "rebalance",
        default: "off",
        doc: "`once`: replicas are moved until they are balanced, then it is `off` again; `always`: they are kept balanced.",
    },
];

/// What is set, with defaults for what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `replicas`.
    pub replicas: usize,
    /// `metadata_replicas`.
    pub metadata_replicas: usize,
    /// `moves_max`.
    pub moves_max: usize,
    /// `settle_after`.
    pub settle_after: Duration,
    /// `replace_after`; `None`: off.
    pub replace_after: Option<Duration>,
    /// `forget_edges_after`; `None`: off.
    pub forget_edges_after: Option<Duration>,
    /// `rebalance`.
    pub rebalance: Rebalance,
}

/// When replicas are moved only for balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Never.
    Off,
    /// Until they are balanced.
    Once,
    /// Whenever they are not balanced.
    Always,
}

impl Settings {
    /// What these values mean; a value that this program does not understand counts as not set.
    pub(super) fn of(set: &BTreeMap<String, String>) -> Self {
        Self {
            replicas: understood(set, "replicas", odd).unwrap_or(3),
            metadata_replicas: understood(set, "metadata_replicas", odd).unwrap_or(5),
            moves_max: understood(set, "moves_max", moves).unwrap_or(4),
            settle_after: understood(set, "settle_after", duration).unwrap_or(Duration::from_secs(5)),
            replace_after: understood(set, "replace_after", duration_or_off).unwrap_or(None),
            forget_edges_after: understood(set, "forget_edges_after", duration_or_off)
                .unwrap_or(Some(Duration::from_secs(3600))),
            rebalance: understood(set, "rebalance", rebalance).unwrap_or(Rebalance::Off),
        }
    }
}

/// Why `name` cannot be set to `value`.
pub(super) fn refusal(name: &str, value: &str) -> Option<String> {
    let expected = match name {
        "replicas" | "metadata_replicas" => odd(value).is_none().then_some("1, 3 or 5"),
        "moves_max" => moves(value).is_none().then_some("a number from 1 to 64"),
        "settle_after" => duration(value).is_none().then_some("a time such as 5s or 30m"),
        "replace_after" | "forget_edges_after" => {
            duration_or_off(value).is_none().then_some("a time such as 30m, or off")
        }
        SECRET => (!is_secret(value)).then_some("64 hexadecimal digits"),
        "rebalance" => rebalance(value).is_none().then_some("off, once or always"),
        _ => {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            return Some(format!("there is no setting {name:?}; there are {}", names.join(", ")));
        }
    };
    // What is no good as a secret may be one all the same.
    let shown = if name == SECRET { "something else" } else { value };
    expected.map(|expected| format!("{name} is {expected}, not {shown:?}"))
}

fn understood<T>(set: &BTreeMap<String, String>, name: &str, meaning: fn(&str) -> Option<T>) -> Option<T> {
    meaning(set.get(name)?)
}

fn odd(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| matches!(count, 1 | 3 | 5))
}

fn moves(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=64).contains(count))
}

fn duration_or_off(text: &str) -> Option<Option<Duration>> {
    match text {
        "off" => Some(None),
        text => duration(text).map(Some),
    }
}

/// A number and a unit: `500ms`, `5s`, `30m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number)
}

/// Whether that can be the cluster's secret.
pub fn is_secret(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn rebalance(text: &str) -> Option<Rebalance> {
    match text {
        "off" => Some(Rebalance::Off),
        "once" => Some(Rebalance::Once),
        "always" => Some(Rebalance::Always),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_what_the_list_says() {
        let listed = SETTINGS
            .iter()
            .map(|setting| (setting.name.to_owned(), setting.default.to_owned()))
            .collect();
        assert_eq!(Settings::of(&listed), Settings::of(&BTreeMap::new()));
        for Setting { name, default, .. } in SETTINGS {
            assert_eq!(refusal(name, default), None, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        assert_eq!(refusal("replicas", "2").unwrap(), "replicas is 1, 3 or 5, not \"2\"");
        assert_eq!(
            refusal("replace_after", "soon").unwrap(),
            "replace_after is a time such as 30m, or off, not \"soon\""
        );
        assert!(
            refusal("replica", "3")
                .unwrap()
                .starts_with("there is no setting \"replica\"; there are replicas, ")
        );
        for nonsense in ["", "s", "5", "5 s", "-5s", "99999999999h", "é"] {
            assert_eq!(duration(nonsense), None, "{nonsense}");
        }
        assert_eq!(duration("90m"), Some(Duration::from_secs(5400)));
    }
}
