//! The text that a command works on: from a flag, an argument, a file or standard input.

use super::Failure;
use super::piped::{self, Piped};
use crate::machine::terminal;
use dair_core::text::MAX_TEXT_BYTES;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an open pipe may be silent before a prompt goes without it: programs that write to one mostly begin at once,
/// and services hand down pipes that nobody ever writes to.
const PIPE_PATIENCE: Duration = Duration::from_secs(1);
/// One byte more than can be encoded, so that the encoder says what is wrong.
const LIMIT: u64 = MAX_TEXT_BYTES as u64 + 1;

/// Where the text is. What is piped into the command follows a prompt on a line of its own, or is the text where
/// there is no other.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct TextArgs {
    /// The text; what is piped into the command follows it
    #[arg(value_name = "PROMPT")]
    pub text: Option<String>,
    /// The text, as a flag: it may begin with a hyphen
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the text, - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl TextArgs {
    /// The text. Unless it is to be `quiet`, it says where a pipe had nothing to add.
    ///
    /// # Errors
    /// Where there is none, or it can't be read, or is no UTF-8.
    pub fn read(&self, quiet: bool) -> Result<String, Failure> {
        if let Some(path) = &self.file {
            return Ok(read_file(path)?);
        }
        let Some(prompt) = self.prompt.as_ref().or(self.text.as_ref()) else {
            let none = "there is no text: give a PROMPT, --prompt TEXT or --file FILE, or pipe it in";
            return match piped::read(None, LIMIT).map_err(unreadable)? {
                Piped::Text(bytes) => Ok(utf8(bytes, "standard input")?),
                Piped::Nothing | Piped::Silence => Err(Failure::Usage(none.into())),
            };
        };
        match piped::read(Some(PIPE_PATIENCE), LIMIT).map_err(unreadable)? {
            Piped::Text(bytes) => Ok(join(prompt, &utf8(bytes, "standard input")?)),
            Piped::Silence if !quiet => {
                terminal::note(
                    "standard input is open but silent: the prompt goes without it (--file - waits, </dev/null says that there is nothing)",
                );
                Ok(prompt.clone())
            }
            Piped::Nothing | Piped::Silence => Ok(prompt.clone()),
        }
    }
}

/// The prompt, and below it what was piped in, without the line ends that programs put after their last line.
fn join(prompt: &str, piped: &str) -> String {
    let piped = piped.trim_end_matches(['\r', '\n']);
    let gap = if prompt.ends_with('\n') || piped.is_empty() { "" } else { "\n" };
    format!("{prompt}{gap}{piped}")
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LIMIT).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes))
    };
    read.map_err(|error| format!("cannot read the text {}: {error}", path.display()))?;
    utf8(bytes, &path.display().to_string())
}

fn unreadable(error: std::io::Error) -> String {
    format!("cannot read standard input: {error}")
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| format!("{name}: not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_piped_in_stands_below_the_prompt() {
        assert_eq!(join("Sum up:", "one\ntwo\n\n"), "Sum up:\none\ntwo");
        assert_eq!(join("Sum up:\n", "one\r\n"), "Sum up:\none");
        assert_eq!(join("Hello", "\n"), "Hello");
    }
}
