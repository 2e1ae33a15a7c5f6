//! Progress bars, on standard error so that standard output stays what was asked for. Absent when that is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{msg:24} [{wide_bar}] {percent:>3}%  {elapsed}  eta {eta}";
const TEMPLATE_WITHOUT_END: &str = "{spinner} {msg:24} {elapsed}";

/// A bar that counts to `total` of whatever is counted; without a total it only shows that something happens.
pub(super) fn bar(total: Option<u64>) -> ProgressBar {
    let style = |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    match total {
        Some(total) => ProgressBar::new(total).with_style(style(TEMPLATE).progress_chars("=> ")),
        None => ProgressBar::no_length().with_style(style(TEMPLATE_WITHOUT_END)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        // A malformed template would silently give the default bar.
        for template in [TEMPLATE, TEMPLATE_WITHOUT_END] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        assert_eq!((bar(Some(7)).length(), bar(None).length()), (Some(7), None));
    }
}
