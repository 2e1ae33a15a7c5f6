//! The dashboard against a real Prometheus that scrapes a real broker under a little load.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    load::{self, Load, http},
    process::{PATIENCE, Place},
};

/// Panels that may show nothing while all is well, with the reason. A panel that is not named here must have data.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    ("Connections refused", "nobody is refused"),
    ("Refusals at limits", "no limit is reached"),
    ("Proposals that failed", "none fails"),
    ("Imports", "nobody imports"),
];

/// A Prometheus; killed when dropped.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(place: &Place) -> Self {
        let directory = place.directory.path();
        let config = directory.join("prometheus.yml");
        let scrape = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs: [{{job_name: heronry, static_configs: [{{targets: ['{}:5280']}}]}}]\n",
            place.ip
        );
        fs::write(&config, scrape).unwrap();
        let address = SocketAddr::from((place.ip, 9090));
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("prometheus").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is not installed: tools/prometheus.sh installs it");
        Self { process, address }
    }

    async fn ready(&self) {
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The values of an expression; an error is a mistake in it.
    async fn query(&self, expression: &str) -> Vec<f64> {
        let body = format!("query={}", percent_encoded(expression));
        let answer = http(self.address, "POST /api/v1/query", &body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        let value = |series: &Value| series["value"][1].as_str().unwrap().parse::<f64>().unwrap();
        series.iter().map(value).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dashboards/heronry.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Title and expression of everything the panels ask for.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let asks = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let expression = |target: &Value| (title.clone(), target["expr"].as_str().unwrap().to_owned());
        targets.iter().map(expression).collect::<Vec<_>>()
    };
    panels.flat_map(asks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_the_dashboard_shows_something() {
    let place = Place::new();
    let _broker = place.start();
    load::accounts(&place);
    let prometheus = Prometheus::start(&place);
    tokio::time::timeout(PATIENCE, prometheus.ready()).await.unwrap();
    let mut load = Load::begin(&place).await;
    let instance = format!("{}:5280", place.ip);
    let asked = expressions(&dashboard());
    assert!(asked.len() > 30, "{}", asked.len());
    let mut missing = asked.clone();
    let all = async {
        while !missing.is_empty() {
            load.some().await;
            let mut still = Vec::new();
            for (title, expression) in missing.drain(..) {
                // As Grafana does, with a window that suits this Prometheus.
                let concrete = expression
                    .replace("$instance", &instance)
                    .replace("$__rate_interval", "5s");
                assert!(!concrete.contains('$'), "{concrete}");
                let shown = prometheus.query(&concrete).await.iter().any(|value| value.is_finite());
                if !shown && !MAY_BE_EMPTY.iter().any(|(panel, _)| *panel == title) {
                    still.push((title, expression));
                }
            }
            missing = still;
            // Prometheus scrapes four times a second.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, all).await;
    assert!(done.is_ok(), "these show nothing: {missing:#?}");
    load.end().await;
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let names: Vec<_> = heronry_node::telemetry::metrics::all()
        .map(|metric| metric.name)
        .collect();
    let asked = expressions(&dashboard());
    for (panel, _) in MAY_BE_EMPTY {
        assert!(
            asked.iter().any(|(title, _)| title == panel),
            "there is no panel {panel:?}"
        );
    }
    for (title, expression) in asked {
        let known = names.iter().any(|name| expression.contains(name));
        assert!(known || expression.starts_with("up{"), "{title}: {expression}");
        assert!(
            expression.contains("instance=\"$instance\""),
            "{title} is not of one instance: {expression}"
        );
    }
}
