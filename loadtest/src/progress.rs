//! The progress bar, on standard error so that standard output stays a report. Absent when not on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts to `total` (sessions, steps).
pub fn count(what: &str, total: u64) -> ProgressBar {
    bar(
        what,
        total,
        "{msg:20} [{wide_bar}] {human_pos}/{human_len}  {per_sec}  eta {eta}",
    )
}

/// A bar that counts down measured seconds. Counts in milliseconds; `prefix` takes a live figure.
pub fn clock(what: &str, total: Duration) -> ProgressBar {
    bar(
        what,
        total.as_millis() as u64,
        "{msg:20} [{wide_bar}] {elapsed}  {prefix}",
    )
}

fn bar(what: &str, total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total)
        .with_style(style.progress_chars("=> "))
        .with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        // A malformed template would silently give the default bar.
        for template in [
            "{msg:20} [{wide_bar}] {human_pos}/{human_len}  {per_sec}  eta {eta}",
            "{msg:20} [{wide_bar}] {elapsed}  {prefix}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        assert_eq!(count("sessions", 7).length(), Some(7));
        assert_eq!(clock("messages", Duration::from_secs(2)).length(), Some(2000));
    }
}
