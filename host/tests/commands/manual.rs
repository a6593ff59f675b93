//! What is installed beside the programs: completions of shells, and manual pages.

use crate::help::COMMANDS;
use crate::run::{Outcome, dair, finish};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// What a program says of `input`; nothing where that program is not installed.
fn judged(program: &str, args: &[&str], input: &str) -> Option<Outcome> {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    let judge = || {
        let mut command = Command::new(program);
        command.args(args);
        finish(command, input.as_bytes(), args)
    };
    is_there.then(judge)
}

#[test]
fn shells_take_their_completion_scripts_and_bash_completes_by_them() {
    for shell in ["bash", "zsh", "fish"] {
        for program in ["dair", "host-worker"] {
            let script = dair(&["completions", shell, "--of", program]).quiet_success();
            assert!(script.contains("model") && script.contains(program), "{shell}: {script}");
            // fish has no `-n` for standard input.
            if let Some(outcome) = judged(shell, if shell == "fish" { &["-n", "/dev/stdin"] } else { &["-n"] }, &script)
            {
                assert_eq!(outcome.quiet_success(), "", "{shell} {program}");
            }
        }
    }
    let ask = "COMP_WORDS=(dair pl); COMP_CWORD=1; _dair dair pl dair; echo \"${COMPREPLY[@]}\"\n\
               COMP_WORDS=(dair generate --nodes-f); COMP_CWORD=2; _dair dair --nodes-f generate; echo \"${COMPREPLY[@]}\"\n";
    let script = dair(&["completions", "bash"]).quiet_success() + ask;
    let outcome = judged("bash", &["-s"], &script).expect("bash is there");
    assert_eq!(outcome.quiet_success(), "plan\n--nodes-file\n");
    dair(&["completions", "tcsh"]).misused(&["tcsh", "bash", "zsh", "fish"]);
}

#[test]
fn every_command_has_a_manual_page_without_mistakes() {
    let folder = TempDir::new().expect("a folder");
    // It is made where it is not there.
    let pages = folder.path().join("share/man1");
    let said = dair(&["man", pages.to_str().expect("UTF-8")]).quiet_success();
    let entries = fs::read_dir(&pages).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let names: BTreeSet<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    assert!(said.starts_with(&format!("{} pages in ", names.len())), "{said}");
    let commands = COMMANDS.iter().map(|command| format!("dair-{command}.1"));
    for name in commands.chain(["dair.1", "dair-key-new.1", "host-worker.1"].map(String::from)) {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    for name in &names {
        let page = fs::read_to_string(pages.join(name)).expect("a page");
        if let Some(outcome) = judged("groff", &["-man", "-ww", "-z", "-Tutf8"], &page) {
            assert_eq!(outcome.quiet_success(), "", "{name}");
        }
    }
    let page = fs::read_to_string(pages.join("dair-top.1")).expect("a page");
    let example = "\\-\\-api\\-key\\-file my\\-key\n";
    let examples = page.split_once(".SH EXAMPLES\n.nf\n").expect("examples as they stand").1;
    assert!(examples.contains(example) && examples.contains("\n.fi\n"), "{page}");
    assert!(page.contains("\\fB\\-\\-once\\fR") && page.contains(".SH \"SEE ALSO\"\n\\fBdair\\fR(1)"), "{page}");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    dair(&["man", file.to_str().expect("UTF-8")]).refused(&["cannot make the folder", "file"]);
}
