//! What the guide knows of the machine that it runs on, so that everything else of it can be tried without one.

use std::path::{Path, PathBuf};

/// The script that brings workers to nodes; where it is, the others are.
pub const DEPLOY: &str = "deploy_workers.sh";
/// How far above a program its scripts are looked for: `target/x86_64-…/release/dair` of a repository.
const LEVELS: usize = 5;

/// A machine and its user.
#[derive(Clone, Debug)]
pub struct World {
    /// The user's folder.
    pub home: PathBuf,
    /// Where the program was started.
    pub folder: PathBuf,
    /// Where files of the user's are by default.
    pub config: PathBuf,
    /// Where the scripts are.
    pub scripts: Option<PathBuf>,
    /// Whether there is a file or a folder.
    pub exists: fn(&Path) -> bool,
}

impl World {
    /// The path that a user means, from the root on.
    pub fn path(&self, text: &str) -> String {
        let path = match text.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => self.folder.join(text),
        };
        path.to_string_lossy().into_owned()
    }

    /// Whether there is a file or a folder.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        (self.exists)(path.as_ref())
    }
}

/// The folder of scripts that belongs to the program at `program`: where both are installed, or in the repository that it was built in.
pub fn scripts_of(program: &Path, exists: fn(&Path) -> bool) -> Option<PathBuf> {
    let above = program.ancestors().skip(1).take(LEVELS);
    let folders = above.flat_map(|folder| [folder.join("share/dair/install"), folder.join("install")]);
    folders.into_iter().find(|folder| exists(&folder.join(DEPLOY)))
}

/// A machine of which only names are known, for tests.
#[cfg(test)]
pub fn example() -> World {
    World {
        home: "/home/ann".into(),
        folder: "/home/ann/work".into(),
        config: "/home/ann/.config/dair".into(),
        scripts: Some("/opt/share/dair/install".into()),
        exists: |path| path.starts_with("/home/ann/there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root() {
        let world = example();
        for (text, path) in [
            ("~/models/m.m", "/home/ann/models/m.m"),
            ("~", "/home/ann"),
            ("m.m", "/home/ann/work/m.m"),
            ("/m.m", "/m.m"),
            ("~bob/m.m", "/home/ann/work/~bob/m.m"),
        ] {
            assert_eq!(world.path(text), path);
        }
    }

    #[test]
    fn scripts_are_beside_the_program_or_in_its_repository() {
        let installed = |path: &Path| path == Path::new("/usr/local/share/dair/install/deploy_workers.sh");
        assert_eq!(
            scripts_of(Path::new("/usr/local/bin/dair"), installed),
            Some("/usr/local/share/dair/install".into())
        );
        let repository = |path: &Path| path == Path::new("/src/dair/install/deploy_workers.sh");
        for program in ["/src/dair/target/release/dair", "/src/dair/target/x86_64-unknown-linux-musl/dist/dair"] {
            assert_eq!(scripts_of(Path::new(program), repository), Some("/src/dair/install".into()), "{program}");
        }
        assert_eq!(scripts_of(Path::new("/usr/bin/dair"), repository), None);
    }
}
