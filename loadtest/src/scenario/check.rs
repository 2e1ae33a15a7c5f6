//! Histories, judged.

use std::{
    fs::File,
    io::{BufReader, Write as _, stdout},
};

use anyhow::{Context, bail};

use crate::{
    history::{self, History, Summary},
    options::CheckOptions,
};

/// Says of each history what does not hold in it.
///
/// # Errors
/// When a file cannot be read, or something does not hold.
pub fn run(options: &CheckOptions) -> anyhow::Result<()> {
    let mut broken = 0;
    for path in &options.files {
        let name = path.display();
        let file = File::open(path).with_context(|| name.to_string())?;
        let history = History::read(BufReader::new(file)).with_context(|| name.to_string())?;
        let found = history::check(&history);
        let Summary {
            sent,
            acknowledged,
            delivered,
            refused,
            returned,
            ..
        } = Summary::of(&history);
        let mut out = stdout().lock();
        writeln!(
            out,
            "{name}: {sent} messages sent, {acknowledged} acknowledged, {delivered} delivered, {refused} refused, {returned} calls answered"
        )?;
        for violation in &found {
            writeln!(out, "  {violation}")?;
        }
        if found.is_empty() {
            writeln!(
                out,
                "  nothing lost, nothing invented, nothing twice, order kept, rows linearizable"
            )?;
        }
        broken += found.len();
    }
    match broken {
        0 => Ok(()),
        1 => bail!("one promise was not kept"),
        _ => bail!("{broken} promises were not kept"),
    }
}
