//! The command itself: on a relay of its own, and on a small server.

mod check;
mod floor;
mod scenarios;
mod server;

use std::process::{Command, Output};

use serde_json::Value;

/// Runs the command to its end.
fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heronry-loadtest"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// Runs a scenario that must succeed, and gives its report.
fn report(arguments: &[&str]) -> Value {
    let output = loadtest(&[arguments, &["--json", "-"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else on standard output")
}
