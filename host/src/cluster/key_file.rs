//! Where a node has the key of its cluster from.
//!
//! The first of these that is there counts: files that are named, the environment (a key itself, or a file), systemd's credentials,
//! a file of the user. A file that other users may read gives nothing but an error.

use crate::net::{Key, KeyError, Keys};
use etcetera::BaseStrategy;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{env, fmt};
use zeroize::Zeroizing;

/// The environment variable that holds a key.
pub const KEY: &str = "DAIR_KEY";
/// The environment variable that names a file with a key.
pub const KEY_FILE: &str = "DAIR_KEY_FILE";
/// Name of a key among systemd's credentials.
pub const CREDENTIAL: &str = "dair-key";
/// What stands in that credential where a machine has no key: a unit can name a file that may be missing only with something in its place.
const NO_KEY: &[u8] = b"none";
/// Most bytes of a file with keys, remarks included.
const MAX_BYTES: u64 = 16 << 10;

/// Keys, and where they were.
#[derive(Clone, Debug)]
pub struct Found {
    /// One or two.
    pub keys: Keys,
    /// For people.
    pub place: String,
}

/// Why a key can't be had, or kept.
#[derive(Debug)]
pub enum KeyFileError {
    /// A file can't be opened or read.
    Read(PathBuf, io::Error),
    /// Users that are not the owner may read a file.
    Readable(PathBuf),
    /// No keys in a file or a variable.
    Invalid(String, KeyError),
    /// There is a file already.
    Exists(PathBuf),
    /// A file can't be made.
    Write(PathBuf, io::Error),
    /// The system has no random bytes.
    Random(getrandom::Error),
    /// The user has no folder for a key.
    NoHome,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read the key {}: {error}", path.display()),
            Self::Readable(path) => {
                let path = path.display();
                write!(
                    f,
                    "others may read the key {path}: run chmod 600 {path}, and make a new one if they may have done so"
                )
            }
            Self::Invalid(place, error) => write!(f, "{place}: {error}"),
            Self::Exists(path) => {
                write!(f, "{} is there already and stays as it is; name another file, or move it away", path.display())
            }
            Self::Write(path, error) => write!(f, "cannot write the key {}: {error}", path.display()),
            Self::Random(error) => write!(f, "the system has no random bytes: {error}"),
            Self::NoHome => f.write_str("this user has no folder for a key: name a file"),
        }
    }
}

impl std::error::Error for KeyFileError {}

/// The file of the user: where a key is looked for last, and made unless another file is named.
///
/// # Errors
/// If the user has no home.
pub fn of_user() -> Result<PathBuf, KeyFileError> {
    let strategy = etcetera::base_strategy::Xdg::new().map_err(|_| KeyFileError::NoHome)?;
    Ok(strategy.config_dir().join("dair").join("key"))
}

/// The keys in `files`, or where a node has them otherwise; nothing if it has none.
///
/// # Errors
/// Names the place whose keys can't be used.
pub fn find(files: &[PathBuf]) -> Result<Option<Found>, KeyFileError> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    if !files.is_empty() {
        return of_files(files).map(Some);
    }
    if let Some(text) = variable(KEY) {
        let text = Zeroizing::new(text.into_encoded_bytes());
        return Ok(Some(Found { keys: parse(&text, KEY)?, place: format!("environment variable {KEY}") }));
    }
    if let Some(path) = variable(KEY_FILE) {
        return of_files(&[path.into()]).map(Some);
    }
    if let Some(folder) = variable("CREDENTIALS_DIRECTORY") {
        let path = PathBuf::from(folder).join(CREDENTIAL);
        // Nobody but the service sees that folder, whatever the mode of its files.
        if let Some(text) = if_there(read(&path, |_| Ok(())))?
            && text.trim_ascii() != NO_KEY
        {
            let place = path.display().to_string();
            return Ok(Some(Found { keys: parse(&text, &place)?, place }));
        }
    }
    let Ok(path) = of_user() else { return Ok(None) };
    let Some(text) = if_there(read(&path, check_mode))? else { return Ok(None) };
    let place = path.display().to_string();
    Ok(Some(Found { keys: parse(&text, &place)?, place }))
}

fn of_files(files: &[PathBuf]) -> Result<Found, KeyFileError> {
    let mut all = Keys::default();
    for path in files {
        let invalid = |error| KeyFileError::Invalid(path.display().to_string(), error);
        let text = read(path, check_mode)?;
        parse(&text, &path.display().to_string())?.iter().try_for_each(|key| all.push(key.clone())).map_err(invalid)?;
    }
    let names: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    Ok(Found { keys: all, place: names.join(", ") })
}

fn if_there<T>(read: Result<T, KeyFileError>) -> Result<Option<T>, KeyFileError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match read {
        Err(KeyFileError::Read(_, error)) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        read => read.map(Some),
    }
}

fn read(path: &Path, check: impl FnOnce(&File) -> io::Result<()>) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |error| KeyFileError::Read(path.into(), error);
    let file = File::open(path).map_err(failed)?;
    check(&file).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => KeyFileError::Readable(path.into()),
        _ => failed(error),
    })?;
    // As much at once as there may be: what grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

fn parse(text: &[u8], place: &str) -> Result<Keys, KeyFileError> {
    let keys = str::from_utf8(text).map_err(|_| KeyError::None).and_then(Keys::parse);
    keys.map_err(|error| KeyFileError::Invalid(place.to_owned(), error))
}

/// Demands that nobody else may read a file; what is no file has no readers but us.
fn check_mode(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Makes a new key in a new file that nobody else may read.
///
/// # Errors
/// Names the file: it is there already, or can't be made.
pub fn create(path: &Path) -> Result<Key, KeyFileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.into()),
        _ => KeyFileError::Write(path.into(), error),
    };
    let key = Key::fresh().map_err(KeyFileError::Random)?;
    let (mut folders, mut options) = (DirBuilder::new(), OpenOptions::new());
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        folders.mode(0o700);
        options.mode(0o600);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        folders.recursive(true).create(folder).map_err(|error| KeyFileError::Write(path.into(), error))?;
    }
    let mut file = options.write(true).create_new(true).open(path).map_err(failed)?;
    let mut text = key.to_text();
    text.push('\n');
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a key is none.
        let _ = fs::remove_file(path);
        return Err(failed(error));
    }
    Ok(key)
}
