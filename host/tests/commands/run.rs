//! One run of a binary: arguments and input in; exit code and both streams out.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any command here takes on a slow machine: what runs into it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where conversations are kept that no test looks at: not among those of whoever runs the tests.
pub const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");

/// Whatever a test does, the cache of the user who runs it stays as it is.
pub const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// A folder without a key: whatever a test does, it finds none of the user who runs it.
pub const CONFIG: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/config");

/// Keeps keys of the user who runs a test away from a command.
pub fn without_key(command: &mut Command) -> &mut Command {
    command
        .env_remove("DAIR_KEY")
        .env_remove("DAIR_API_KEY")
        .env_remove("DAIR_KEY_FILE")
        .env_remove("CREDENTIALS_DIRECTORY");
    command.env("XDG_CONFIG_HOME", CONFIG)
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs `dair` with nothing on its standard input.
pub fn dair(args: &[&str]) -> Outcome {
    dair_reading("", args)
}

/// Runs `dair` with `input` on its standard input.
pub fn dair_reading(input: &str, args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_dair"), input.as_bytes(), args, &[])
}

/// Runs `dair` with any bytes on its standard input; files of its own go to the folder `state`.
pub fn dair_keeping(state: &str, input: &[u8], args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_dair"), input, args, &[("XDG_STATE_HOME", state)])
}

/// Runs `dair` with variables in its environment.
pub fn dair_knowing(variables: &[(&str, &str)], args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_dair"), b"", args, variables)
}

/// Runs `host-worker` until it gives up.
pub fn host_worker(args: &[&str]) -> Outcome {
    host_worker_knowing(&[], args)
}

/// Runs `host-worker` with variables in its environment until it gives up.
pub fn host_worker_knowing(variables: &[(&str, &str)], args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_host-worker"), b"", args, variables)
}

/// Sends a signal, `TERM` or `INT`, to a process that is running.
pub fn signal(process: &Child, name: &str) {
    let line = format!("kill -s {name} {}", process.id());
    assert!(Command::new("sh").args(["-c", &line]).status().expect("a shell is there").success(), "{line}");
}

fn run(binary: &str, input: &[u8], args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(binary);
    without_key(&mut command).args(args).env("XDG_STATE_HOME", STATE).env("DAIR_CACHE", CACHE);
    command.envs(variables.iter().copied());
    finish(command, input, args)
}

/// Runs a command, which messages call `args`.
///
/// # Panics
/// If it does not end in time, or prints something other than UTF-8.
pub fn finish(mut command: Command, input: &[u8], args: &[&str]) -> Outcome {
    command.env_remove("RUST_BACKTRACE");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // It may end before it reads anything; that is not for this function to judge.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let code = wait(&mut child, args);
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(reader.join().expect("reads")).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    };
    Outcome { code, stdout: text(stdout), stderr: text(stderr) }
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

fn wait(child: &mut Child, args: &[&str]) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    panic!("{args:?} did not end within {} s", DEADLINE.as_secs());
}

impl Outcome {
    /// Standard output of a command that succeeded without a word on standard error.
    pub fn quiet_success(self) -> String {
        assert_eq!((self.code, &self.stderr[..]), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// Standard output of a command that succeeded, as JSON.
    pub fn json(self) -> serde_json::Value {
        let text = self.quiet_success();
        assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Checks that the command failed with exit code 1 and one line on standard error that has all `parts`.
    pub fn refused(self, parts: &[&str]) {
        assert_eq!((self.code, &self.stdout[..]), (Some(1), ""), "{parts:?}: {self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {self:?}"));
        assert!(line.starts_with("error: ") && !line.contains('\n'), "one line of error: {self:?}");
        assert!(!line.contains("panicked"), "{self:?}");
        for part in parts {
            assert!(line.contains(part), "{part:?} is missing in {line:?}");
        }
    }

    /// Checks that the command line was refused with exit code 2 and a hint that has all `parts`.
    pub fn misused(self, parts: &[&str]) {
        assert_eq!((self.code, &self.stdout[..]), (Some(2), ""), "{parts:?}: {self:?}");
        for part in [&["error: ", "--help"], parts].concat() {
            assert!(self.stderr.contains(part), "{part:?} is missing in {}", self.stderr);
        }
    }
}
