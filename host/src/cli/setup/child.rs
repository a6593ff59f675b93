//! Doing what a step does: files that are written, programs that are run.

use super::action::{Action, Call, NODES_MARK, Program};
use super::world::World;
use crate::cluster::nodes_file;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Most bytes that are read of what a model is.
const OBJECT_MAX: u64 = 64 << 20;
/// An end is noticed within so long.
const BLINK: Duration = Duration::from_millis(20);
/// Whoever is told to end has so long before he is killed.
const GRACE: Duration = Duration::from_secs(3);
/// What a program has written arrives so long after its end; others that it has started may go on writing.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is heard of actions that are done in the background.
#[derive(Debug)]
pub enum News {
    /// Something was printed.
    Text(Vec<u8>),
    /// The model is this file.
    Model(PathBuf),
    /// All are done, or one has failed.
    Ended(Result<(), String>),
}

/// Actions that are being done.
#[derive(Debug)]
pub struct Doing {
    /// What is heard.
    pub news: Receiver<News>,
    /// When it began.
    pub start: Instant,
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Doing {
    /// Begins with the first of `actions`.
    ///
    /// # Errors
    /// Where the system has no thread.
    pub fn begin(actions: Vec<Action>, world: &World) -> io::Result<Self> {
        let (sender, news) = channel();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stop, world) = (Arc::clone(&is_stopped), world.clone());
        let work = move || {
            let work = Work { world: &world, news: &sender, is_stopped: &stop };
            let result = actions.iter().try_for_each(|action| work.run(action));
            // Whoever does not listen has ended.
            let _ = sender.send(News::Ended(result));
        };
        let thread = thread::Builder::new().name("setup".into()).spawn(work)?;
        Ok(Self { news, start: Instant::now(), is_stopped, thread })
    }

    /// Ends what runs; its end is heard of.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Ends what runs, and waits for that.
    pub fn end(self) {
        self.stop();
        let _ = self.thread.join();
    }
}

/// Actions in the background, one after the other.
struct Work<'w> {
    world: &'w World,
    news: &'w Sender<News>,
    is_stopped: &'w AtomicBool,
}

impl Work<'_> {
    fn run(&self, action: &Action) -> Result<(), String> {
        let say = |text: String| drop(self.news.send(News::Text(text.into_bytes())));
        say(format!("$ {}\n", action.shown(self.world)));
        let Action::Call(call) = action else {
            return file_action(action, self.world).map(|line| say(line + "\n"));
        };
        let failed = |error| cannot_run(call, &error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        let mut command = command(call).map_err(failed)?;
        // A group of its own: it is ended with all that it has started.
        command.stdin(Stdio::null()).stderr(writer.try_clone().map_err(failed)?).process_group(0);
        if call.tells_model {
            command.stdout(Stdio::piped())
        } else {
            command.stdout(writer.try_clone().map_err(failed)?)
        };
        let mut child = command.spawn().map_err(failed)?;
        // The command has an end of the pipe as well: while one is open, reading does not end.
        drop((command, writer));
        let object = child.stdout.take().map(|stdout| thread::spawn(move || read_all(stdout)));
        let over = self.forward(reader);
        let status = self.wait(&mut child).map_err(failed)?;
        if let Err(RecvTimeoutError::Timeout) = over.recv_timeout(LAST_WORDS) {
            say("(it has left a program behind that goes on)\n".into());
        }
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
        judge(call, status)?;
        if let Some(object) = object {
            let (file, line) = model_of(&object.join().unwrap_or_default())?;
            say(line + "\n");
            let _ = self.news.send(News::Model(file));
        }
        Ok(())
    }

    /// Tells of all that comes, in a thread. What it returns is hung up at the end.
    fn forward(&self, mut reader: io::PipeReader) -> Receiver<()> {
        let (end, over) = channel();
        let news = self.news.clone();
        thread::spawn(move || {
            let _end = end;
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if news.send(News::Text(bytes[..count].into())).is_err() {
                    return;
                }
            }
        });
        over
    }

    /// Waits for the end, which may be asked for.
    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let group = Pid::from_raw(child.id().cast_signed());
        let mut told: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if self.is_stopped.load(Ordering::Relaxed) {
                // It was not waited for, so the number is still its own. Whoever has just ended needs no signal.
                let signal = match told {
                    None => Some(Signal::SIGTERM),
                    Some(told) => (told.elapsed() > GRACE).then_some(Signal::SIGKILL),
                };
                told = told.or_else(|| Some(Instant::now()));
                if let Some(signal) = signal {
                    let _ = killpg(group, signal);
                }
            }
            thread::sleep(BLINK);
        }
    }
}

/// Does an action in the foreground: what it prints goes where our own words go. Returns the model's file where it is told.
///
/// # Errors
/// What has failed, in a line.
pub fn run_here(action: &Action, world: &World) -> Result<(Option<String>, Option<PathBuf>), String> {
    let Action::Call(call) = action else {
        return Ok((Some(file_action(action, world)?), None));
    };
    let failed = |error| cannot_run(call, &error);
    let mut command = command(call).map_err(failed)?;
    command.stdin(Stdio::null());
    if !call.tells_model {
        judge(call, command.status().map_err(failed)?)?;
        return Ok((None, None));
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let object = child.stdout.take().map(read_all).unwrap_or_default();
    judge(call, child.wait().map_err(failed)?)?;
    let (file, line) = model_of(&object)?;
    Ok((Some(line), Some(file)))
}

fn command(call: &Call) -> io::Result<Command> {
    let mut command = match &call.program {
        Program::Dair => Command::new(env::current_exe()?),
        Program::Script(path) => Command::new(path),
    };
    command.args(&call.args);
    Ok(command)
}

/// What the user knows a program by.
fn name(call: &Call) -> String {
    match &call.program {
        Program::Dair => format!("dair {}", call.args.first().map_or("", String::as_str)),
        Program::Script(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn cannot_run(call: &Call, error: &io::Error) -> String {
    format!("cannot run {}: {error}", name(call))
}

fn judge(call: &Call, status: ExitStatus) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("{} ended with exit code {code}", name(call))),
        (None, signal) => Err(format!("{} was ended by signal {}", name(call), signal.unwrap_or_default())),
    }
}

fn read_all(stdout: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What is cut short is no object, and said to be none.
    let _ = stdout.take(OBJECT_MAX).read_to_end(&mut bytes);
    bytes
}

/// The file of a model that `dair inspect` tells of, and a line about it.
fn model_of(object: &[u8]) -> Result<(PathBuf, String), String> {
    let object: Value = serde_json::from_slice(object).unwrap_or_default();
    let file = object["file"].as_str().ok_or("dair inspect did not say where the model is")?;
    let (header, bytes) = (&object["header"], object["file_bytes"].as_f64().unwrap_or_default());
    let text = |name: &str| header[name].as_str().unwrap_or("?").to_owned();
    let line = format!(
        "{file}: {:.1} MB, {}, {}, {} layers",
        bytes / 1e6,
        text("architecture"),
        text("weights"),
        header["n_layers"].as_u64().unwrap_or_default()
    );
    Ok((file.into(), line))
}

/// Writes or reads a nodes file; returns a line about it.
fn file_action(action: &Action, world: &World) -> Result<String, String> {
    let file = match action {
        Action::WriteNodes(file, nodes) => {
            write_nodes(file, nodes, world)?;
            file
        }
        Action::ReadNodes(file) => file,
        Action::Call(_) => return Err("a program is no file".into()),
    };
    let workers = nodes_file::read(file).map_err(|error| error.to_string())?;
    Ok(format!("{}: workers of the cluster: {}", file.display(), workers.len()))
}

fn write_nodes(file: &Path, nodes: &[String], world: &World) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write the nodes file {}: {error}", file.display());
    match fs::read(file) {
        Ok(text) if !text.starts_with(NODES_MARK.as_bytes()) => {
            return Err(format!(
                "{} is there and was not written by dair setup, so it stays as it is: name another nodes_file",
                file.display()
            ));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let folder = file.parent().unwrap_or(&world.folder);
    let write = || {
        fs::create_dir_all(folder)?;
        let mut written = NamedTempFile::new_in(folder)?;
        written.write_all(format!("{NODES_MARK}\n{}\n", nodes.join("\n")).as_bytes())?;
        written.as_file().sync_all()?;
        written.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A script in `folder`, and the action that runs it.
    fn script(folder: &Path, text: &str) -> Action {
        let path = folder.join("fake.sh");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Action::Call(Call { program: Program::Script(path), args: vec!["a b".into()], tells_model: false })
    }

    /// All that is heard of actions: text, and how they ended.
    fn heard(doing: &Doing) -> (String, Result<(), String>) {
        let mut text = Vec::new();
        loop {
            match doing.news.recv_timeout(Duration::from_secs(60)).expect("an end") {
                News::Text(bytes) => text.extend(bytes),
                News::Model(file) => text.extend(format!("[{}]", file.display()).into_bytes()),
                News::Ended(result) => return (String::from_utf8(text).unwrap(), result),
            }
        }
    }

    #[test]
    fn both_streams_are_heard_in_order_and_a_failure_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let action = script(folder.path(), "echo \"one $1\"; echo two >&2; echo three; exit 3");
        let doing = Doing::begin(vec![action.clone(), action], &example()).unwrap();
        let (text, result) = heard(&doing);
        assert!(text.ends_with("fake.sh 'a b'\none a b\ntwo\nthree\n") && text.matches("one").count() == 1, "{text}");
        assert_eq!(result, Err("fake.sh ended with exit code 3".into()));
        let nothing =
            Action::Call(Call { program: Program::Script("/no/such".into()), args: vec![], tells_model: false });
        let result = heard(&Doing::begin(vec![nothing], &example()).unwrap()).1;
        assert!(result.unwrap_err().starts_with("cannot run such: No such file"));
    }

    #[test]
    fn what_is_stopped_ends_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let text = format!("(sleep 2; echo x > '{}') & echo begun; wait", mark.display());
        let doing = Doing::begin(vec![script(folder.path(), &text)], &example()).unwrap();
        let start = Instant::now();
        while let News::Text(bytes) = doing.news.recv_timeout(Duration::from_secs(60)).unwrap() {
            if bytes.starts_with(b"begun") {
                break;
            }
        }
        doing.stop();
        assert_eq!(heard(&doing).1, Err("stopped".into()));
        doing.end();
        thread::sleep(Duration::from_millis(2500).saturating_sub(start.elapsed()));
        assert!(!mark.exists());
    }

    #[test]
    fn a_model_is_told_of_by_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let object =
            r#"{"file":"/m.m","file_bytes":2000000,"header":{"architecture":"llama","weights":"q40","n_layers":30}}"#;
        let mut action = script(folder.path(), &format!("echo converting >&2; echo '{object}'"));
        let tell = |action: &mut Action| {
            if let Action::Call(call) = action {
                call.tells_model = true
            }
        };
        tell(&mut action);
        let (text, result) = heard(&Doing::begin(vec![action.clone()], &example()).unwrap());
        assert!(text.ends_with("converting\n/m.m: 2.0 MB, llama, q40, 30 layers\n[/m.m]"), "{text}");
        assert_eq!(result, Ok(()));
        let here = run_here(&action, &example()).unwrap();
        assert_eq!(here, (Some("/m.m: 2.0 MB, llama, q40, 30 layers".into()), Some("/m.m".into())));
        let mut other = script(folder.path(), "echo hello");
        tell(&mut other);
        assert!(run_here(&other, &example()).unwrap_err().contains("did not say where the model is"));
    }

    #[test]
    fn a_nodes_file_of_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x/nodes");
        let write = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
            run_here(&Action::WriteNodes(file.clone(), nodes), &example())
        };
        let line = write(&["pi@a", "b:1"]).unwrap().0.unwrap();
        assert!(line.ends_with("workers of the cluster: 2"), "{line}");
        write(&["c"]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# Written by dair setup.\nc\n");
        fs::write(&file, "# mine\na\n").unwrap();
        assert!(write(&["c"]).unwrap_err().contains("was not written by dair setup"));
        assert!(run_here(&Action::ReadNodes(file.clone()), &example()).unwrap().0.unwrap().ends_with(": 1"));
        fs::write(&file, "a b\n").unwrap();
        assert!(
            run_here(&Action::ReadNodes(file), &example()).unwrap_err().contains(":1: \"a b\" is more than one word")
        );
    }
}
