//! Help texts and wrong usage.

use crate::run::dair;
use std::collections::BTreeSet;

/// All of them, in the order of the help.
pub const COMMANDS: [&str; 23] = [
    "setup",
    "pull",
    "list",
    "rm",
    "convert",
    "generate",
    "chat",
    "serve",
    "top",
    "perplexity",
    "render",
    "inspect",
    "bench",
    "key",
    "api-key",
    "nodes",
    "node",
    "plan",
    "verify",
    "tokenize",
    "detokenize",
    "completions",
    "man",
];

/// Flags as they appear in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn the_help_lists_the_commands_that_are_tested_here() {
    let help = dair(&["--help"]).quiet_success();
    let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).expect("a list");
    let entries = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = entries.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, [&COMMANDS[..], &["help"]].concat());
}

#[test]
fn every_command_shows_examples_whose_flags_exist() {
    for command in COMMANDS {
        let help = dair(&[command, "--help"]).quiet_success();
        assert_eq!(help, dair(&["help", command]).quiet_success());
        let (options, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples in {help}"));
        assert!(examples.contains(&format!("  dair {command} ")), "{examples}");
        let ours: String = examples.lines().filter(|line| line.contains(&format!("dair {command} "))).collect();
        let (known, used) = (flags(options), flags(&ours));
        assert!(used.is_subset(&known), "{command}: the examples use {used:?}, known are {known:?}");
    }
}

#[test]
fn the_version_is_the_package_version() {
    assert_eq!(dair(&["--version"]).quiet_success(), format!("dair {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_arguments_show_the_help_and_end_with_two() {
    let outcome = dair(&[]);
    assert_eq!((outcome.code, &outcome.stdout[..]), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: dair <COMMAND>"), "{outcome:?}");
}

#[test]
fn wrong_usage_is_named_and_ends_with_two() {
    let model = ["--model", "m.m"];
    let with_model = |args: &[&'static str]| [&args[..1], &model, &args[1..]].concat();
    dair(&["generat"]).misused(&["generat"]);
    dair(&["generate", "--prompt", "a"]).misused(&["--model"]);
    dair(&["convert", "in.gguf"]).misused(&["<OUT>"]);
    dair(&["convert", "in.gguf", "out.m", "--weights", "q3"]).misused(&["q3", "q40"]);
    dair(&["inspect", "--model", "m.m", "--nodes", "0"]).misused(&["--nodes", "0"]);
    dair(&with_model(&["generate"])).misused(&["--prompt", "--file"]);
    dair(&with_model(&["generate", "--prompt", "a", "--file", "b"])).misused(&["--prompt", "--file"]);
    dair(&with_model(&["generate", "--prompt", "a", "--system", "b"])).misused(&["--chat"]);
    dair(&with_model(&["generate", "--prompt", "a", "--json", "--quiet"])).misused(&["--json", "--quiet"]);
    dair(&with_model(&["chat", "--template", "llama9"])).misused(&["llama9", "chatml"]);
    dair(&["chat"]).misused(&["--model", "--server"]);
    dair(&with_model(&["chat", "--server", "box"])).misused(&["--server", "--model"]);
    for flag in ["--threads", "--workers", "--memory", "--draft", "--template", "--tools"] {
        dair(&["chat", "--server", "box", flag, "2"]).misused(&[flag]);
    }
    dair(&with_model(&["chat", "--name", "a"])).misused(&["--name", "--model"]);
    dair(&["chat", "--server", "ftp://box"]).misused(&["--server", "ftp://"]);
    dair(&["pull"]).misused(&["NAME|URL"]);
    dair(&["pull", "../x"]).misused(&["../x", "no name"]);
    dair(&["pull", "qwen3_8b_q40", "--base", "/srv/models"]).misused(&["--base", "file:///PATH"]);
    dair(&["pull", "qwen3_8b_q40", "--name", "x"]).misused(&["--name", "URL"]);
    dair(&["pull", "http://box/x.zip"]).misused(&["http://box/x.zip", ".gguf"]);
    dair(&["pull", "http://box/-x.m"]).misused(&["-x", "--name"]);
    dair(&["pull", "http://box/x.m", "--base", "http://box"]).misused(&["--base", "URL"]);
    dair(&["pull", "http://box/x.m", "--token-file", "t"]).misused(&["--token-file", "https://"]);
    dair(&["pull", "http://box/x.m", "--ca", "t"]).misused(&["--ca", "https://"]);
    dair(&["pull", "qwen3_8b_q40", "--connections", "33"]).misused(&["--connections", "33"]);
    dair(&["rm"]).misused(&["<NAME>"]);
    dair(&["rm", "a", "../b"]).misused(&["../b", "no name"]);
    dair(&["top", "http://box:99999"]).misused(&["URL", "http://HOST:PORT"]);
    dair(&with_model(&["perplexity", "--prompt", "a", "--seed", "1"])).misused(&["--seed"]);
    for (flag, value) in [
        ("--threads", "0"),
        ("--threads", "257"),
        ("--threads", "-1"),
        ("--max-tokens", "many"),
        ("--max-tokens", "4294967296"),
        ("--max-seq-len", "0"),
        ("--temperature", "warm"),
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--top-p", ""),
        ("--top-p", "-0.5"),
        ("--top-p", "1.5"),
        ("--top-p", "nan"),
        ("--seed", "18446744073709551616"),
    ] {
        let flag_value = format!("{flag}={value}");
        dair(&["generate", "--model", "m.m", "--prompt", "a", &flag_value]).misused(&[flag, value]);
    }
}
