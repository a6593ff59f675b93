//! Progress bars.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// A bar over bytes, on a terminal and unless it is to be `hidden`.
pub fn bar(hidden: bool) -> ProgressBar {
    if hidden || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}")
            .expect("the template is valid");
    ProgressBar::new(0).with_style(style)
}

/// Says on a terminal what takes its time, unless it is to be `hidden`.
pub fn spinner(hidden: bool, message: &'static str) -> ProgressBar {
    if hidden || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.tick();
    spinner
}
