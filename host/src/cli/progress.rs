//! Progress lines: on a terminal, one at a time, and gone when what they tell of is done.

use crate::machine::terminal;
use crate::net::Stage;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Once;
use std::time::Duration;

/// A bar over bytes, on a terminal and unless it is to be `hidden`.
pub fn bar(hidden: bool) -> ProgressBar {
    if hidden || !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(0).with_style(bytes_style())
}

/// Says on a terminal what takes its time, unless it is to be `hidden`.
pub fn spinner(hidden: bool, message: &'static str) -> ProgressBar {
    if hidden || !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.tick();
    spinner
}

/// A bar over the `total` tokens of a prompt, on a terminal and unless it is to be `hidden`.
pub fn prompt(hidden: bool, total: usize) -> ProgressBar {
    if hidden || !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64).with_style(style("prompt {wide_bar} {pos}/{len} tokens"));
    bar.tick();
    bar
}

/// What a command says on standard error while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// All that may interest whoever watches it.
    All,
    /// Who is left out, and who takes part again: whoever reads the result by a program wants to know, too.
    Losses,
    /// Nothing.
    None,
}

impl Words {
    /// Of a command with these flags.
    pub const fn of(quiet: bool, json: bool) -> Self {
        match (quiet, json) {
            (true, _) => Self::None,
            (false, true) => Self::Losses,
            (false, false) => Self::All,
        }
    }
}

/// What the set-up of links is at.
#[derive(Debug)]
pub struct SetUp {
    words: Words,
    line: ProgressBar,
    weights: Once,
}

impl SetUp {
    /// A line on a terminal, if all is to be said. It shows nothing before it is told of a stage.
    pub fn new(words: Words) -> Self {
        let hidden = words != Words::All || !terminal::is_watched();
        let line = if hidden { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        Self { words, line, weights: Once::new() }
    }

    /// Shows what is waited for.
    pub fn show(&self, stage: Stage<'_>) {
        let (what, address) = match stage {
            Stage::Idle(names) => {
                return self.note(format_args!(
                    "not used, since tokens would take longer with it: {names}; dair plan says why"
                ));
            }
            Stage::Lost(reason) => return self.tell(format_args!("left out: {reason}")),
            Stage::Back(names) => return self.tell(format_args!("takes part from now on: {names}")),
            Stage::Replay(tokens) => return self.tell(format_args!("computing {tokens} tokens again")),
            Stage::NotKept(names) => {
                return self
                    .note(format_args!("keys and values are not kept on disk: {names} was started without --kv-disk"));
            }
            Stage::WithoutFile(names) => {
                return self.note(format_args!("{names}: no model file, so all workers are sent the weights"));
            }
            Stage::Prepare(peer) => {
                self.line.set_message(format!("waiting for {peer} to prepare"));
                return self.line.enable_steady_tick(Duration::from_millis(100));
            }
            Stage::Connect(address) => ("waiting for worker", address),
            Stage::Handshake(address) => ("handshake with worker", address),
            Stage::Configure(address) => ("waiting for the answer of worker", address),
            Stage::Weights { bytes, total } => {
                self.weights.call_once(|| {
                    self.line.disable_steady_tick();
                    self.line.set_length(total);
                    self.line.set_style(bytes_style());
                });
                return self.line.inc(bytes);
            }
        };
        self.line.set_message(format!("{what} {address}"));
        self.line.enable_steady_tick(Duration::from_millis(100));
    }

    /// Says what stays.
    fn note(&self, line: std::fmt::Arguments<'_>) {
        if self.words == Words::All {
            self.tell(line);
        }
    }

    /// Says what is said to programs, too.
    fn tell(&self, line: std::fmt::Arguments<'_>) {
        if self.words != Words::None {
            self.line.suspend(|| terminal::note(line));
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.line.finish_and_clear();
    }
}

impl Drop for SetUp {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bytes_style() -> ProgressStyle {
    style("{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates here are valid")
}
