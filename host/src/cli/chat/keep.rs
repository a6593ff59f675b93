//! Conversations that are kept without being asked: a file per process, so that nothing that ends one loses what was
//! said.

use super::folder;
use super::save::SavedChat;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Conversations that stay; the oldest make room.
const KEPT_CHATS: usize = 50;

/// Keeps the conversation of this process.
#[derive(Debug)]
pub struct Keeper {
    folder: Option<PathBuf>,
    path: Option<PathBuf>,
    conversations: u32,
    written: bool,
}

impl Keeper {
    /// A keeper; without a `folder` it keeps nothing.
    pub fn new(folder: Option<PathBuf>) -> Self {
        let mut keeper = Self { folder, path: None, conversations: 0, written: false };
        keeper.start_anew();
        keeper
    }

    /// Another conversation: what was kept stays.
    pub fn start_anew(&mut self) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let name = format!("chat-{seconds:010}-{}-{}.json", std::process::id(), self.conversations);
        self.path = self.folder.as_ref().map(|folder| folder.join(name));
        self.conversations += 1;
        self.written = false;
    }

    /// Where the conversation is kept, once it is.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.written)
    }

    /// Writes the conversation as it stands.
    ///
    /// # Errors
    /// Names the file and why it can't be written; that is said once, since nothing is kept afterwards.
    pub fn keep(&mut self, chat: &SavedChat) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let folder = path.parent().unwrap_or(path);
        let made = folder::create(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()));
        if let Err(why) = made.and_then(|()| chat.write(path)) {
            (self.folder, self.path) = (None, None);
            return Err(format!("{why}; the conversation is not kept on disk"));
        }
        if !std::mem::replace(&mut self.written, true) {
            remove_oldest(folder);
        }
        Ok(())
    }
}

/// Conversations in `folder`, the newest last.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let is_chat = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("chat-") && name.ends_with(".json")
    };
    let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).unwrap_or(UNIX_EPOCH);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_chat).collect();
    paths.sort_by_cached_key(|path| (changed(path), path.clone()));
    paths
}

fn remove_oldest(folder: &Path) {
    let paths = kept(folder);
    for path in &paths[..paths.len().saturating_sub(KEPT_CHATS)] {
        // Another process may have been faster.
        let _ = std::fs::remove_file(path);
    }
}

/// The conversation that was changed last.
///
/// # Errors
/// Where there is none.
pub fn last(folder: Option<PathBuf>) -> Result<PathBuf, String> {
    let folder = folder.ok_or("no home folder, so no conversation to resume: name a file with --load")?;
    kept(&folder).pop().ok_or_else(|| format!("no conversation to resume in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(model: &str) -> SavedChat {
        SavedChat::new(model.into(), serde_json::Value::Null, Vec::new())
    }

    #[test]
    fn the_last_conversation_is_found_and_only_the_newest_stay() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state/chats");
        assert!(last(Some(folder.clone())).unwrap_err().contains("no conversation"));
        let mut keeper = Keeper::new(Some(folder.clone()));
        assert_eq!(keeper.path(), None);
        keeper.keep(&chat("one")).unwrap();
        for number in 0..KEPT_CHATS + 5 {
            let path = folder.join(format!("chat-{number}.json"));
            chat("old").write(&path).unwrap();
            let time = UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        std::fs::write(folder.join("notes.txt"), "mine").unwrap();
        remove_oldest(&folder);
        assert_eq!(kept(&folder).len(), KEPT_CHATS);
        assert!(!folder.join("chat-5.json").exists() && folder.join("chat-6.json").exists());
        assert!(folder.join("notes.txt").exists());
        let newest = last(Some(folder)).unwrap();
        assert_eq!(Some(newest.as_path()), keeper.path());
        assert_eq!(SavedChat::read(&newest).unwrap().model, "one");
        keeper.start_anew();
        keeper.keep(&chat("two")).unwrap();
        assert!(newest.exists() && keeper.path() != Some(newest.as_path()));
    }

    #[test]
    fn what_cannot_be_kept_is_said_once() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut keeper = Keeper::new(Some(file.join("chats")));
        assert!(keeper.keep(&chat("one")).unwrap_err().contains("not kept"));
        assert_eq!((keeper.keep(&chat("one")), keeper.path()), (Ok(()), None));
        let mut nothing = Keeper::new(None);
        assert_eq!((nothing.keep(&chat("one")), nothing.path()), (Ok(()), None));
    }
}
