//! Where chats leave files of their own: the user's state folder, for nobody else to read.

use etcetera::BaseStrategy;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `$XDG_STATE_HOME/dair`, which is `~/.local/state/dair` by default; `None` for a user without a home.
fn state() -> Option<PathBuf> {
    let strategy = etcetera::base_strategy::Xdg::new().ok()?;
    Some(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("dair"))
}

/// The file with lines that were typed.
pub fn history() -> Option<PathBuf> {
    state().map(|folder| folder.join("chat-history"))
}

/// The folder with conversations.
pub fn chats() -> Option<PathBuf> {
    state().map(|folder| folder.join("chats"))
}

/// Makes a folder that only the user can look into.
///
/// # Errors
/// As the system says.
pub fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
