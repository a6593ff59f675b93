//! A conversation as a file: JSON that other programs read, too.
//!
//! ```json
//! {
//!   "format": "dair chat 1",
//!   "model": "smollm2.m",
//!   "sampling": {"temperature": 0.8, "top_p": 0.9, "seed": 7},
//!   "messages": [
//!     {"role": "system", "content": "Be brief."},
//!     {"role": "user", "content": "What is 6 times 7?"},
//!     {"role": "assistant", "content": "42", "reasoning_content": "6 times 7 is 42."}
//!   ]
//! }
//! ```

use crate::chat::conversation::{Message, Piece, Role};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// Named in every file; the number changes when older programs can't read it any more.
const FORMAT: &str = "dair chat 1";

/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// Most messages in a file.
pub const MAX_MESSAGES: usize = 100_000;

/// A conversation and what it was held with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedChat {
    format: String,
    /// Name of the model's file.
    pub model: String,
    /// How tokens were chosen, for the reader.
    #[serde(default)]
    pub sampling: serde_json::Value,
    /// The system message, if there is one, then questions and answers in turn.
    pub messages: Vec<Message>,
}

impl SavedChat {
    /// A conversation to be saved.
    pub fn new(model: String, sampling: serde_json::Value, messages: Vec<Message>) -> Self {
        Self { format: FORMAT.into(), model, sampling, messages }
    }

    /// Adds a piece to the last message.
    pub fn add(&mut self, piece: Piece<'_>) {
        let Some(last) = self.messages.last_mut() else { return };
        match piece {
            Piece::Prompt(..) => {}
            Piece::Reasoning(text) => last.reasoning_content.get_or_insert_default().push_str(text),
            Piece::Answer(text) => last.content.push_str(text),
        }
    }

    /// Writes the file, readable for the user alone: wholly or not at all.
    ///
    /// # Errors
    /// Names the file and why it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let refused = |error: io::Error| format!("cannot save {}: {error}", path.display());
        // Neither a device nor a folder is replaced by a file.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(format!("cannot save {}: it is not a regular file", path.display()));
        }
        let mut file = NamedTempFile::new_in(folder).map_err(refused)?;
        let mut out = BufWriter::new(&mut file);
        serde_json::to_writer_pretty(&mut out, self).map_err(io::Error::from).map_err(refused)?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(refused)?;
        drop(out);
        file.persist(path).map_err(|error| refused(error.error))?;
        Ok(())
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let refused = |why: String| format!("cannot load {}: {why}", path.display());
        let mut text = String::new();
        open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| refused(error.to_string()))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(refused(format!("larger than {} MB", MAX_FILE_BYTES >> 20)));
        }
        let chat: Self = serde_json::from_str(&text).map_err(|error| refused(format!("not a saved chat: {error}")))?;
        chat.check().map_err(refused)?;
        Ok(chat)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is {:?}, this program reads {FORMAT:?}", self.format));
        }
        if self.messages.len() > MAX_MESSAGES {
            return Err(format!("{} messages, allowed are {MAX_MESSAGES}", self.messages.len()));
        }
        let mut due = Role::User;
        for (index, message) in self.messages.iter().enumerate() {
            if index == 0 && message.role == Role::System {
                continue;
            }
            if message.role != due {
                return Err(format!("message {}: {:?} speaks where {due:?} is due", index + 1, message.role));
            }
            due = if due == Role::User { Role::Assistant } else { Role::User };
        }
        Ok(())
    }
}

/// Opens a regular file; a FIFO does not hold up the chat.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    fn chat() -> SavedChat {
        let mut answer = Message::new(Role::Assistant, "42\n\u{1F600}");
        answer.reasoning_content = Some("6 \u{D7} 7".into());
        let messages = vec![Message::new(Role::System, "Be brief."), Message::new(Role::User, "\"6\\7\"?"), answer];
        SavedChat::new("m.m".into(), json!({"seed": u64::MAX}), messages)
    }

    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        for _ in 0..2 {
            chat().write(&path).unwrap();
            assert_eq!(SavedChat::read(&path).unwrap(), chat());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_saved_chat_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        let refusal = |text: &str| {
            std::fs::write(&path, text).unwrap();
            SavedChat::read(&path).unwrap_err()
        };
        let with =
            |messages: serde_json::Value| json!({"format": FORMAT, "model": "m", "messages": messages}).to_string();
        for (text, why) in [
            ("", "not a saved chat"),
            ("[]", "not a saved chat"),
            (&json!({"format": "dair chat 2", "model": "m", "messages": []}).to_string(), "dair chat 2"),
            (&with(json!([{"role": "robot", "content": ""}])), "robot"),
            (&with(json!([{"role": "assistant", "content": ""}])), "message 1: Assistant"),
            (&with(json!([{"role": "user", "content": ""}, {"role": "system", "content": ""}])), "message 2: System"),
            (&with(json!([{"role": "user"}])), "content"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(why) && refusal.contains("chat.json"), "{why}: {refusal}");
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert!(SavedChat::read(&path).unwrap_err().contains("UTF-8"));
        assert!(SavedChat::read(folder.path()).unwrap_err().contains("not a regular file"));
        assert!(chat().write(folder.path()).unwrap_err().contains("not a regular file"));
        assert!(chat().write(&folder.path().join("a/b.json")).unwrap_err().contains("cannot save"));
    }
}
