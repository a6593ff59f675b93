//! Doing what a step does: files that are written, programs that are run. What they say goes where our own words go.

use super::action::{self, Action, DAIR, NODES_MARK};
use super::config::Field;
use super::state::{self, State};
use super::step::Step;
use super::world::World;
use crate::cli::model_files::ModelFiles;
use crate::cli::{Failure, interrupt};
use crate::cluster::nodes_file;
use crate::machine::file;
use crate::machine::terminal::print_line;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// An end is noticed within so long.
const BLINK: Duration = Duration::from_millis(20);

/// Ctrl-C reaches programs as well: so long they may take to end by it before they are told again.
const GRACE: Duration = Duration::from_secs(2);

/// Does a step and keeps that it is done. Each command is said before it is run, and a failure is the end.
///
/// # Errors
/// What has failed, or that somebody has interrupted it.
pub fn do_step(step: Step, state: &mut State, path: &Path, world: &World) -> Result<(), Failure> {
    print_line(step.title())?;
    state.current = step;
    state.completed.remove(&step);
    state.write(path)?;
    if let Some(line) = action::obstacle(step, state, world) {
        return Err(Failure::Line(line));
    }
    interrupt::catch();
    let mut actions = action::actions(step, state, world).into_iter();
    let done: Result<(), Failure> = actions.try_for_each(|action| {
        print_line(format_args!("$ {}", action.shown(world)))?;
        match do_action(&action)? {
            Some(line) => Ok(print_line(line)?),
            None => Ok(()),
        }
    });
    interrupt::release();
    if done.is_err() && interrupt::is_set() {
        return Err(Failure::Interrupted);
    }
    done?;
    if step == Step::Model {
        // What had to be converted has been by now.
        state.model_file = Some(ModelFiles::of(Path::new(state.config.value(Field::Model)), true)?.model);
    }
    state.completed.insert(step);
    Ok(state.write(path)?)
}

/// Says what to do when all steps are done.
///
/// # Errors
/// Where nobody reads.
pub fn print_next(state: &State, world: &World) -> Result<(), Failure> {
    Ok(print_line(format_args!("\nWhat next:\n  {}", action::next_commands(state, world).join("\n  ")))?)
}

/// Does an action; returns a line about it, where no program has said anything.
fn do_action(action: &Action) -> Result<Option<String>, String> {
    let file = match action {
        Action::Run(words) => return run(words).map(|()| None),
        Action::ReadNodes(file) => file,
        Action::WriteNodes(file, nodes) => {
            write_nodes(file, nodes)?;
            file
        }
    };
    let workers = nodes_file::read(file).map_err(|error| error.to_string())?;
    Ok(Some(format!("{}: workers of the cluster: {}", file.display(), workers.len())))
}

fn run(words: &[String]) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("no program is named")?;
    let name = match &**program {
        DAIR => format!("{DAIR} {}", args.first().map_or("", String::as_str)),
        script => Path::new(script).file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    let mut command = Command::new(if program == DAIR { env::current_exe().map_err(failed)? } else { program.into() });
    let mut child = command.args(args).stdin(Stdio::null()).spawn().map_err(failed)?;
    let status = wait(&mut child).map_err(failed)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("{name} ended with exit code {code}")),
        (None, signal) => Err(format!("{name} was ended by signal {}", signal.unwrap_or_default())),
    }
}

/// Waits for the end of a program. A polite kill of this one is one of that.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut interrupted: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt::is_set() && interrupted.get_or_insert_with(Instant::now).elapsed() > GRACE {
            // It was not waited for, so the number is still its own.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            interrupted = Some(Instant::now());
        }
        thread::sleep(BLINK);
    }
}

fn write_nodes(path: &Path, nodes: &[String]) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write the nodes file {}: {error}", path.display());
    let mut start = Vec::new();
    let read = |file: std::fs::File| file.take(NODES_MARK.len() as u64).read_to_end(&mut start);
    match file::open_regular(path).and_then(read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(_) if start == NODES_MARK.as_bytes() => {}
        Ok(_) => {
            return Err(format!(
                "{} is there and was not written by dair setup, so it stays as it is: name another nodes_file",
                path.display()
            ));
        }
    }
    state::replace(path, &format!("{NODES_MARK}\n{}\n", nodes.join("\n"))).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_end_of_a_program_is_judged() {
        for (text, want) in [
            ("exit 3", Err("sh ended with exit code 3".into())),
            ("kill -9 $$", Err("sh was ended by signal 9".into())),
            ("true", Ok(())),
        ] {
            let words = ["/bin/sh", "-c", text].map(str::to_owned);
            assert_eq!(run(&words), want);
        }
        assert!(run(&["/no/such".into()]).unwrap_err().starts_with("cannot run such: No such file"));
    }

    #[test]
    fn a_nodes_file_of_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x/nodes");
        let write = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
            do_action(&Action::WriteNodes(file.clone(), nodes))
        };
        assert!(write(&["pi@a", "b:1"]).unwrap().unwrap().ends_with("nodes: workers of the cluster: 2"));
        write(&["c"]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# Written by dair setup.\nc\n");
        fs::write(&file, "a b\n").unwrap();
        assert!(write(&["c"]).unwrap_err().contains("was not written by dair setup"));
        let read = || do_action(&Action::ReadNodes(file.clone()));
        assert!(read().unwrap_err().contains(":1: \"a b\" is more than one word"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(write(&["c"]).unwrap_err().contains("it is a folder"));
    }
}
