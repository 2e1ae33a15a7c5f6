//! What types cannot say: keys that must fit each other, and keys that ask for what this version cannot do.

use heronry_xmpp::jid::BareJid;

use super::{ConfigError, Loaded, Mechanism, Role};

/// Puts addresses into the form in which they are compared (RFC 7622).
pub(super) fn prepare(loaded: &mut Loaded) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: String, origin| ConfigError::Value {
        key: key.to_owned(),
        problem,
        origin,
    };
    let (domains, admins) = (loaded.source("domains"), loaded.source("auth.admins"));
    for domain in &mut loaded.config.domains {
        let prepared = BareJid::new(None, domain).map_err(|error| {
            refuse(
                "domains",
                format!("names `{domain}`, which is not a domain: {error}"),
                domains.clone(),
            )
        })?;
        prepared.domain().clone_into(domain);
    }
    if let Some(domain) = &mut loaded.config.auth.anonymous_domain {
        let prepared = BareJid::new(None, domain).ok();
        let served = prepared.filter(|prepared| loaded.config.domains.iter().any(|served| served == prepared.domain()));
        let Some(served) = served else {
            let (key, problem) = (
                "auth.anonymous_domain",
                format!("names `{domain}`, which is not in `domains`"),
            );
            return Err(refuse(key, problem, loaded.source(key)));
        };
        served.domain().clone_into(domain);
    }
    let label = &loaded.config.pubsub.service;
    for service in loaded.config.pubsub_services() {
        let key = "pubsub.service";
        if loaded.config.domains.iter().any(|domain| **domain == *service) {
            let problem = format!("is `{label}`, and `{service}` is one of `domains`");
            return Err(refuse(key, problem, loaded.source(key)));
        }
        if BareJid::new(None, &service).map_or(true, |prepared| prepared.domain() != &*service) {
            let problem = format!("is `{label}`, which is no label of a domain in lower case");
            return Err(refuse(key, problem, loaded.source(key)));
        }
    }
    for admin in &mut loaded.config.auth.admins {
        let problem = match BareJid::parse(admin) {
            Ok(prepared) if prepared.local().is_some() => {
                prepared.as_str().clone_into(admin);
                continue;
            }
            Ok(_) => format!("names `{admin}`, which is a domain and not an account"),
            Err(error) => format!("names `{admin}`, which is not the address of an account: {error}"),
        };
        return Err(refuse("auth.admins", problem, admins));
    }
    Ok(())
}

/// Refuses values that do not make sense alone or together.
pub(super) fn values(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let refuse = |key: &str, problem: String| {
        Err(ConfigError::Value {
            key: key.to_owned(),
            problem,
            origin: loaded.source(key),
        })
    };

    if config.domains.is_empty() {
        return refuse("domains", "is empty: name at least one domain".to_owned());
    }
    for (index, domain) in config.domains.iter().enumerate() {
        if config.domains[..index].contains(domain) {
            return refuse("domains", format!("names `{domain}` twice"));
        }
    }
    if config.roles.is_empty() {
        return refuse("roles", "is empty: a cluster node is `edge`, `core` or both".to_owned());
    }
    if config.auth.mechanisms.is_empty() {
        return refuse("auth.mechanisms", "is empty: nobody could log in".to_owned());
    }
    match (&config.tls.certificate, &config.tls.key) {
        (Some(_), None) => return refuse("tls.certificate", "has no key: set `tls.key` too".to_owned()),
        (None, Some(_)) => return refuse("tls.key", "has no certificate: set `tls.certificate` too".to_owned()),
        _ => {}
    }

    if !(0.0..=1.0).contains(&config.telemetry.sampling_ratio) {
        return refuse("telemetry.sampling_ratio", "must be between 0 and 1".to_owned());
    }
    if let Some(endpoint) = &config.telemetry.otlp_endpoint
        && !["http://", "https://"]
            .iter()
            .any(|scheme| endpoint.starts_with(scheme))
    {
        let problem = format!("must be a URL such as `http://127.0.0.1:4317`, not `{endpoint}`");
        return refuse("telemetry.otlp_endpoint", problem);
    }

    let limits = &config.limits;
    let ladder = [
        (
            "limits.before_auth.stanza_bytes_max",
            limits.before_auth.stanza_bytes_max,
        ),
        ("limits.stanza_bytes_max", limits.stanza_bytes_max),
        ("limits.frame_bytes_max", limits.frame_bytes_max),
        ("limits.entry_bytes_max", limits.entry_bytes_max),
    ];
    for pair in ladder.windows(2) {
        let [(small, small_bytes), (large, large_bytes)] = [pair[0], pair[1]];
        if small_bytes >= large_bytes {
            let problem = format!("must be smaller than `{large}` ({small_bytes} bytes against {large_bytes})");
            return refuse(small, problem);
        }
    }
    let link = &limits.link;
    let fits = [
        (
            "limits.frame_bytes_max",
            limits.frame_bytes_max,
            "limits.link.queue_bytes_max",
            link.queue_bytes_max,
        ),
        (
            "limits.entry_bytes_max",
            limits.entry_bytes_max,
            "limits.link.call_bytes_max",
            link.call_bytes_max,
        ),
        (
            "limits.link.call_bytes_max",
            link.call_bytes_max,
            "limits.link.call_queue_bytes_max",
            link.call_queue_bytes_max,
        ),
    ];
    for (small, small_bytes, large, large_bytes) in fits {
        if small_bytes >= large_bytes {
            let problem = format!("must be smaller than `{large}` ({small_bytes} bytes against {large_bytes})");
            return refuse(small, problem);
        }
    }
    let (held, credit) = (limits.edge.held_bytes_max, limits.shard.session_credit_bytes);
    if held >= credit {
        let problem =
            format!("must be smaller than `limits.shard.session_credit_bytes` ({held} bytes against {credit})");
        return refuse("limits.edge.held_bytes_max", problem);
    }
    // Keys count a little more as a row than as keys, and the last account of a batch is beyond its bound.
    if limits.import_batch_bytes == 0 || limits.import_batch_bytes > limits.entry_bytes_max / 2 {
        let problem = "must be between 1 byte and half of `limits.entry_bytes_max`".to_owned();
        return refuse("limits.import_batch_bytes", problem);
    }
    if limits.backup_shards_max == 0 {
        return refuse("limits.backup_shards_max", "must be at least 1".to_owned());
    }
    if limits.import_batches_max == 0 {
        return refuse("limits.import_batches_max", "must be at least 1".to_owned());
    }
    let (shards, shards_max) = (limits.group.shards, 1024);
    if !(1..=shards_max).contains(&shards) {
        let problem = format!("must be 1 to {shards_max}, not {shards}");
        return refuse("limits.group.shards", problem);
    }
    // RFC 6120 §13.12: "the server MUST NOT enforce a limit smaller than 10,000 bytes".
    if limits.before_auth.stanza_bytes_max < 10_000 {
        return refuse(
            "limits.before_auth.stanza_bytes_max",
            "must be at least 10000 bytes (RFC 6120 §13.12)".to_owned(),
        );
    }
    let ranges = [
        (
            "limits.before_auth.sasl_retries_max",
            limits.before_auth.sasl_retries_max,
            2..=5,
            "RFC 6120 §6.4.5",
        ),
        (
            "limits.before_auth.bind_retries_max",
            limits.before_auth.bind_retries_max,
            5..=10,
            "RFC 6120 §7.7.3",
        ),
        (
            "limits.edge.frames_max",
            limits.edge.frames_max,
            1..=32,
            "a stream has at most 32 frames under way",
        ),
    ];
    for (key, value, range, reason) in ranges {
        if !range.contains(&value) {
            return refuse(
                key,
                format!("must be {} to {} ({reason}), not {value}", range.start(), range.end()),
            );
        }
    }
    let places = [
        ("peer.advertise", &loaded.config.peer.advertise),
        ("edge.advertise", &loaded.config.edge.advertise),
        ("edge.advertise_tls", &loaded.config.edge.advertise_tls),
    ];
    for (key, place) in places {
        if place.as_deref().is_some_and(|place| !is_place(place)) {
            return refuse(
                key,
                "must be a name or an IP address (IPv6 in brackets), a colon and a port".to_owned(),
            );
        }
    }
    if limits.shutdown_timeout > std::time::Duration::from_secs(10) {
        return refuse("limits.shutdown_timeout", "must be at most 10s".to_owned());
    }
    Ok(())
}

/// Whether others can be told to connect there (RFC 6120 §4.9.3.19).
fn is_place(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.len() <= 253 && !host.contains([':', '/', '@', ' ']),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Refuses what is written correctly and asks for something that does not exist yet: ignoring it would be worse.
pub(super) fn runnable(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let peer = &config.peer;
    let files = [&peer.certificate, &peer.key, &peer.ca];
    let has_tls = files.iter().all(|file| file.is_some());
    let reachable = peer
        .listen
        .is_some_and(|listen| !listen.ip().to_canonical().is_loopback());
    let asked = [
        (
            !config.roles.contains(&Role::Core) && peer.seeds.is_empty(),
            "roles",
            "has no `core`, and there is no other node to hold shards: name one in `peer.seeds`",
        ),
        (
            !peer.seeds.is_empty() && peer.listen.is_none(),
            "peer.seeds",
            "needs an address where the others reach this node: set `peer.listen`",
        ),
        (
            config.edge.location && config.edge.advertise.is_none() && config.edge.advertise_tls.is_none(),
            "edge.location",
            "needs an address that devices can be told: set `edge.advertise` or `edge.advertise_tls`",
        ),
        (
            peer.bootstrap.is_some() && peer.seeds.is_empty(),
            "peer.bootstrap",
            "needs the nodes that found the cluster together: name them in `peer.seeds`",
        ),
        (
            peer.listen.is_some_and(|listen| listen.ip().is_unspecified()) && peer.advertise.is_none(),
            "peer.listen",
            "is not an address that others can connect to: set `peer.advertise` to one",
        ),
        (
            files.iter().any(|file| file.is_some()) && !has_tls,
            "peer.certificate",
            "needs all three: `peer.certificate`, `peer.key` and `peer.ca`",
        ),
        (
            reachable && !has_tls && !peer.insecure,
            "peer.listen",
            "can be reached by other machines, and anybody could be a node: set `peer.certificate`, `peer.key` and `peer.ca`, or `peer.insecure = true`",
        ),
        (
            !config.auth.admins.is_empty(),
            "auth.admins",
            "needs administration over XMPP, which this version does not have: use the command line",
        ),
        (
            config.auth.mechanisms == [Mechanism::Plain] && !config.tls.required,
            "auth.mechanisms",
            "offers PLAIN alone, which is never offered without TLS: set `tls.required = true` or add a SCRAM mechanism",
        ),
    ];
    match asked.into_iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, key, problem)) => Err(ConfigError::Value {
            key: key.to_owned(),
            problem: problem.to_owned(),
            origin: loaded.source(key),
        }),
    }
}
