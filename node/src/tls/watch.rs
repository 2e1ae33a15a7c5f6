//! Certificates that change while devices are connected: the files are looked at now and then, and at SIGHUP.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heronry_storage::Metric;
use metrics::{counter, gauge};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::TlsMaterial;
use crate::{StartError, config::Config};

/// How often it is said how long the certificate is still good, at least.
const REPORT: Duration = Duration::from_secs(60);

/// The metrics of certificates.
pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(
        "tls_certificate_reloads_total",
        "Times a changed certificate was read again",
    )
    .with(&[("result", "`done`, `failed` (the former one is used)")]),
    Metric::gauge(
        "tls_certificate_expires_in_seconds",
        "How long the certificate is still good; less than 0 once it is not",
    ),
];

/// TLS as connections begin it now. Those that have begun keep what they began with.
#[derive(Debug)]
pub struct Tls {
    config: Config,
    current: RwLock<Arc<TlsMaterial>>,
    /// What the files held when they were looked at last.
    seen: Mutex<Seen>,
    hurry: Notify,
}

/// What files hold, or that they cannot be read.
type Seen = [Option<[u8; 32]>; 2];

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// They hold what they held.
    Unchanged,
    /// New connections see another certificate.
    Renewed,
    /// They hold what cannot be used; connections go on seeing the former certificate.
    Broken,
}

impl Tls {
    /// Reads the certificate that the configuration names, or makes one.
    ///
    /// # Errors
    /// As [`TlsMaterial::load`].
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let material = TlsMaterial::load(config, config.data())?;
        say(&material);
        let seen = look_at(&material);
        let tls = Self {
            config: config.clone(),
            current: RwLock::new(Arc::new(material)),
            seen: Mutex::new(seen),
            hurry: Notify::new(),
        };
        tls.report();
        Ok(tls)
    }

    /// What a connection that begins now is shown.
    pub fn current(&self) -> Arc<TlsMaterial> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the files looked at now.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Looks at the files at every interval, for ever.
    pub async fn watch(self: Arc<Self>) {
        let interval = self.config.tls.check_interval.clamp(Duration::from_millis(100), REPORT);
        let mut waited = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => waited += interval,
                () = self.hurry.notified() => waited = self.config.tls.check_interval,
            }
            if waited >= self.config.tls.check_interval {
                waited = Duration::ZERO;
                let tls = Arc::clone(&self);
                // It reads files.
                let _ = tokio::task::spawn_blocking(move || tls.look()).await;
            }
            self.report();
        }
    }

    /// Looks at the files once. What cannot be used is said once, until the files change again.
    pub fn look(&self) -> Looked {
        let now = look_at(&self.current());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Looked::Unchanged;
        }
        *seen = now;
        match TlsMaterial::load(&self.config, self.config.data()) {
            Ok(material) => {
                say(&material);
                tracing::info!(certificate = %material.certificate.display(), "the certificate has been read again");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
                counter!("tls_certificate_reloads_total", "result" => "done").increment(1);
                self.report();
                Looked::Renewed
            }
            Err(error) => {
                tracing::error!("the changed certificate is not used, the former one is: {error}");
                counter!("tls_certificate_reloads_total", "result" => "failed").increment(1);
                Looked::Broken
            }
        }
    }

    /// How long the certificate is still good: less than nothing once it is not.
    fn report(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = self.current().not_after as f64 - now.as_secs_f64();
        gauge!("tls_certificate_expires_in_seconds").set(left);
    }
}

fn say(material: &TlsMaterial) {
    for warning in &material.warnings {
        tracing::warn!("{warning}");
    }
}

fn look_at(material: &TlsMaterial) -> Seen {
    let hash = |file| fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into());
    [hash(&material.certificate), hash(&material.key)]
}
