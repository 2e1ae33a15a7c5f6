//! `heronry-loadtest`: see [`heronry_loadtest`].

use std::{future::Future, io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use heronry_loadtest::{
    measure::machine,
    options::{Options, OutputOptions, Scenario},
    report::{Report, Tabular},
    scenario::{check, floor, idle, login, messages, steady},
};
use serde::Serialize;

fn main() -> ExitCode {
    match run(Options::parse().scenario) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heronry-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: Scenario) -> anyhow::Result<()> {
    match scenario {
        Scenario::Idle(options) => measured(options.server.pin, &options.output, idle::run(&options)),
        Scenario::Messages(options) => measured(options.server.pin, &options.output, messages::run(&options)),
        Scenario::Login(options) => measured(options.server.pin, &options.output, login::run(&options)),
        Scenario::Floor(options) => measured(options.pin, &options.output, floor::run(&options)),
        Scenario::Steady(options) => measured(options.server.pin, &options.output, steady::run(&options)),
        Scenario::Check(options) => check::run(&options),
        Scenario::Relay => floor::relay(),
    }
}

/// Runs a scenario on one event loop and prints what it found.
fn measured<R: Serialize + Tabular>(
    pin: Option<usize>,
    output: &OutputOptions,
    scenario: impl Future<Output = anyhow::Result<Report<R>>>,
) -> anyhow::Result<()> {
    if let Some(processor) = pin {
        machine::pin(processor).with_context(|| format!("pinning to processor {processor}"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = tokio::task::LocalSet::new().block_on(&runtime, scenario)?;
    if let Some(path) = &output.json {
        report
            .write_json(path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if output.json.as_deref() != Some("-".as_ref()) {
        std::io::stdout().write_all(report.table().as_bytes())?;
    }
    Ok(())
}
