//! How commands end that are not let finish: nobody reads on, the disk is full, Ctrl-C.

use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::{STATE, dair, signal, without_key};
use crate::screen::Screen;
use dair_core::format::Header;
use std::io::{Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Far more than 0.2 s, and far less than what is interrupted here would take.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A shape with room for a prompt that takes its time.
fn long_files() -> (Files, String) {
    let files = Files::with(&Header { seq_len: 100_000, ..header("tiny-llama") }, 1);
    let prompt = files.write("long.txt", "a day at the sea ".repeat(5000).as_bytes());
    (files, prompt)
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
    without_key(&mut command).args(args).env_remove("RUST_BACKTRACE").env("XDG_STATE_HOME", STATE).stdin(Stdio::null());
    command
}

/// Every command that prints results, short ones and long ones.
fn printing(files: &Files) -> Vec<Vec<&str>> {
    let model = ["--model", &files.model];
    let of = |command: &'static str, args: &[&'static str]| [&[command][..], &model, args].concat();
    vec![
        of("inspect", &["--all"]),
        of("inspect", &["--json"]),
        of("perplexity", &["--prompt", "a day at the sea"]),
        of("perplexity", &["--prompt", "a day at the sea", "--json"]),
        of("generate", &["--prompt", "a day", "--max-tokens", "8", "--ignore-eos"]),
        of("generate", &["--prompt", "a day", "--max-tokens", "8", "--json"]),
        vec!["bench", "--shape", "none", "--seconds", "1", "--threads", "1"],
        vec!["tokenize", "--model", &files.model, "a day"],
        vec!["--help"],
        vec!["generate", "--help"],
        vec!["--version"],
    ]
}

#[test]
fn a_reader_that_went_away_ends_a_command_without_a_word() {
    let files = Files::new("tiny-llama", 1);
    for args in printing(&files) {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let outcome = command(&args).stdout(writer).output().expect("it starts");
        assert_eq!((outcome.status.code(), outcome.stderr), (Some(0), Vec::new()), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_line() {
    let files = Files::new("tiny-llama", 1);
    for args in printing(&files) {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let outcome = command(&args).stdout(full).output().expect("it starts");
        let stderr = String::from_utf8(outcome.stderr).expect("UTF-8");
        assert_eq!(outcome.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: cannot write to standard output: "), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
}

#[test]
fn where_nobody_reads_complaints_the_exit_code_tells() {
    for (args, code) in [(&["inspect", "--model", "/nowhere.m"][..], 1), (&["inspect"], 2)] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(command(args).stderr(writer).status().expect("it starts").code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_worker_goes_on_where_nobody_reads_what_it_says() {
    let worker = Worker::start_unread();
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"", b"x"] {
        let mut scanner = TcpStream::connect(&worker.address).unwrap();
        scanner.write_all(words).unwrap();
        scanner.shutdown(std::net::Shutdown::Write).unwrap();
        // How the worker hangs up, is up to the system.
        let _ = scanner.read_to_end(&mut Vec::new());
    }
    let files = Files::new("tiny-llama", 1);
    let args = ["generate", "--model", &files.model, "-p", "a", "-n", "2", "-q", "--workers", &worker.address];
    dair(&args).quiet_success();
}

/// Interrupts a command when it has written its first byte; how it ended, and all that it wrote.
fn interrupted(args: &[&str], name: &str) -> (ExitStatus, String, String) {
    let mut process = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut first = [0];
    process.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a text");
    signal(&process, name);
    let outcome = process.wait_with_output().expect("it ends");
    let stdout = [&first[..], &outcome.stdout].concat();
    (outcome.status, String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8(outcome.stderr).expect("UTF-8"))
}

#[test]
fn an_interrupted_answer_stays_and_the_exit_code_tells() {
    let (files, _) = long_files();
    let args = ["generate", "--model", &files.model, "-p", "a day", "-n", "90000", "--ignore-eos", "-s", "1"];
    for name in ["INT", "TERM"] {
        for args in [&args[..], &[&args[..], &["-q"]].concat()] {
            let (status, stdout, stderr) = interrupted(args, name);
            assert_eq!((status.code(), &stderr[..]), (Some(130), "interrupted\n"), "{args:?}");
            assert!(stdout.len() > 1 && stdout.ends_with('\n'), "{stdout:?}");
        }
    }
}

/// Runs a command on a terminal, presses Ctrl-C when `sign` is there, and checks that it ends then. What it says is not
/// looked at here: it leads the session of its terminal, and when it ends the system may drop what nobody has read yet.
fn ctrl_c(files: &Files, args: &[&str], sign: &str) {
    let mut screen = Screen::new(&files.path("state"), args);
    screen.wait_for(sign);
    let start = Instant::now();
    screen.send("\x03");
    assert_eq!(screen.end(), Some(130), "{}", screen.text());
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn ctrl_c_ends_a_prompt_that_is_computed() {
    let (files, prompt) = long_files();
    ctrl_c(&files, &["generate", "--model", &files.model, "--file", &prompt], "/60001 tokens");
    ctrl_c(&files, &["perplexity", "--model", &files.model, "--file", &prompt], "/60000 tokens");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_worker() {
    let files = Files::new("tiny-llama", 1);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let generate = ["generate", "--model", &files.model, "-p", "a", "--workers"];
    ctrl_c(&files, &[&generate[..], &[&nobody]].concat(), &format!("waiting for worker {nobody}"));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    ctrl_c(&files, &[&generate[..], &[&address]].concat(), &format!("waiting for worker {address}"));
    let asked = format!("dllama://{address}");
    ctrl_c(&files, &[&generate[..], &[&asked]].concat(), &format!("handshake with worker {address}"));
}

#[test]
fn an_interrupted_handshake_is_one_line() {
    let files = Files::new("tiny-llama", 1);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for name in ["INT", "TERM"] {
        let args = ["generate", "--model", &files.model, "-p", "a", "--workers", &address];
        let process = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut root = silent.accept().expect("a root calls").0;
        root.read_exact(&mut [0; 8]).expect("its first words");
        signal(&process, name);
        let outcome = process.wait_with_output().expect("it ends");
        assert_eq!((outcome.status.code(), &outcome.stdout[..]), (Some(130), &b""[..]));
        assert_eq!(outcome.stderr, b"interrupted\n");
    }
}

#[test]
fn what_is_to_be_quiet_shows_no_progress() {
    let files = Files::new("tiny-llama", 1);
    for flag in ["--quiet", "--json"] {
        let args = ["generate", "--model", &files.model, "-p", "a day at the sea", "-n", "4", "--ignore-eos", flag];
        let mut screen = Screen::new(&files.path("state"), &args);
        assert_eq!(screen.end(), Some(0));
        assert!(!screen.text().contains("tokens\u{1b}") && !screen.text().contains("prompt "), "{}", screen.text());
    }
}
