//! What people give as a model or a tokenizer: published models are converted once, anything else is called what it is, at
//! once and in one line.

use crate::model::Files;
use crate::published::write_folder;
use crate::run::{Outcome, STATE, dair, dair_knowing, dair_reading};
use dair_host::synthetic;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

#[test]
fn a_published_model_is_converted_at_the_first_start_and_found_at_the_next() {
    let files = Files::new("tiny-llama", 20);
    let (folder, cache) = (files.path("published"), files.path("cache"));
    write_folder(folder.as_ref());
    let run = |args: &[&str]| dair_knowing(&[("DAIR_CACHE", &cache)], &[args, &["--model", &folder]].concat());
    let generate = ["generate", "--prompt", "abc", "--max-tokens", "4", "--temperature", "0", "--quiet"];
    // The same text from a conversion by hand.
    let by_hand = files.path("by-hand.m");
    dair(&["convert", &folder, &by_hand, "--quiet"]).quiet_success();
    let expected = dair(&[&generate[..], &["--model", &by_hand]].concat()).quiet_success();

    let inspect = ["inspect", "--json"];
    let first = run(&inspect);
    assert_eq!(first.code, Some(0), "{first:?}");
    let line = first.stderr.strip_suffix('\n').expect("a line");
    assert!(line.starts_with(&format!("converting {folder}, this once; kept in {cache}/")), "{line}");
    assert!(!line.contains('\n'), "{line}");
    assert!(run(&inspect).json()["file"].as_str().is_some_and(|file| file.starts_with(&cache)));
    assert_eq!(run(&generate).quiet_success(), expected);
    run(&["perplexity", "--prompt", "abc", "--quiet"]).quiet_success();

    // Without a word where that is asked for.
    fs::remove_dir_all(&cache).unwrap();
    assert_eq!(run(&generate).quiet_success(), expected);
    // A tokenizer that is named comes before the one that was made.
    run(&[&generate[..], &["--tokenizer", &files.path("none.t")]].concat()).refused(&["none.t", "No such file"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named_with_a_way_out() {
    let files = Files::new("tiny-llama", 21);
    let folder = files.path("published");
    write_folder(folder.as_ref());
    let args = ["generate", "--model", &folder, "--prompt", "a", "--max-tokens", "1"];
    let parts = [&files.model[..], "Not a directory", "DAIR_CACHE", "`dair convert`"];
    dair_knowing(&[("DAIR_CACHE", &files.model)], &args).refused(&parts);
    // What is wrong with the model is said as `dair convert` says it.
    fs::write(files.path("published/config.json"), "{}").unwrap();
    dair(&args).refused(&["config.json", "model_type is missing"]);
}

/// Runs each command that opens a model with this one and this tokenizer.
fn with_every_command(model: &str, tokenizer: &str, mut each: impl FnMut(Outcome)) {
    let files = ["--model", model, "--tokenizer", tokenizer];
    for args in [&["generate", "--prompt", "a", "--max-tokens", "1"][..], &["perplexity", "--prompt", "a b c"]] {
        each(dair(&[args, &files].concat()));
    }
    each(dair_reading("a\n", &[&["chat", "--max-tokens", "1"], &files[..]].concat()));
}

#[test]
fn devices_and_fifos_are_refused_at_once() {
    let files = Files::new("tiny-llama", 22);
    let fifo = files.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    for (path, what) in [("/dev/zero", "a device"), (&fifo, "a FIFO")] {
        with_every_command(&files.model, path, |outcome| outcome.refused(&[path, what, "a regular file is needed"]));
        with_every_command(path, &files.tokenizer, |outcome| outcome.refused(&[path, what]));
        dair(&["inspect", "--model", path]).refused(&[path, what]);
        dair(&["convert", path, &files.path("out.m")]).refused(&[path, what]);
    }
    let folder = files.path("");
    with_every_command(&files.model, &folder, |outcome| outcome.refused(&[&folder, "a folder"]));
    dair(&["convert", "--force", &files.model, &fifo]).refused(&[&fifo, "the output is a FIFO"]);
    dair(&["convert", "--force", &files.model, "/dev/null"]).refused(&["/dev/null", "the output is a device"]);
}

/// What is mapped can't be kept from being shortened; it must not look like a crash.
#[test]
fn a_model_that_is_shortened_while_it_is_in_use_ends_with_one_line() {
    let files = Files::new("tiny-llama", 25);
    let args =
        ["chat", "--model", &files.model, "--repack", "never", "--quiet", "--max-tokens", "4", "--temperature", "0"];
    let mut chat = Command::new(env!("CARGO_BIN_EXE_dair"))
        .args(args)
        .env("XDG_STATE_HOME", STATE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut questions = chat.stdin.take().expect("piped");
    questions.write_all(b"a\n").expect("it reads");
    // The answer to the first question shows that the model is open.
    chat.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
    File::options().write(true).open(&files.model).unwrap().set_len(100).unwrap();
    questions.write_all(b"b\n").expect("it reads");
    drop(questions);
    let output = chat.wait_with_output().expect("it ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: the model file was shortened while it was in use"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_file_of_another_kind_is_called_what_it_is() {
    let files = Files::new("tiny-llama", 23);
    let folder = files.path("published");
    write_folder(folder.as_ref());
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (name, bytes, parts) in [
        ("empty", &b""[..], &["an empty file"][..]),
        ("pointer", pointer, &["a Git LFS pointer", "git lfs pull"]),
        ("page", b"<!DOCTYPE html><html></html>", &["a web page", "/resolve/"]),
        ("model.zip", b"PK\x03\x04.......", &["a ZIP archive", "unpack it"]),
        ("model.bin", b"\x80\x02.......", &["a PyTorch checkpoint", "safetensors"]),
        ("settings.json", b"{\"a\": 1}", &["a JSON file", "name the folder"]),
    ] {
        let path = files.write(name, bytes);
        let parts = [&[&path[..]], parts].concat();
        with_every_command(&path, &files.tokenizer, |outcome| outcome.refused(&parts));
        with_every_command(&files.model, &path, |outcome| outcome.refused(&parts));
        dair(&["inspect", "--model", &path]).refused(&parts);
        dair(&["convert", &path, &files.path("out.m")]).refused(&parts);
    }
    let tensors = files.path("published/model.safetensors");
    dair(&["inspect", "--model", &tensors]).refused(&[
        &tensors,
        "a safetensors file",
        &format!("name its folder, {folder}"),
    ]);
    // The names of a model and its tokenizer are easily confused.
    dair(&["inspect", "--model", &files.tokenizer]).refused(&["a .t tokenizer", "the .m model as --model"]);
    dair(&["convert", &files.model, &files.path("out.m")]).refused(&["a .m model", "it needs no conversion"]);
    let gguf = files.write("x.gguf", b"GGUF\x03\0\0\0");
    let args = ["generate", "--model", &files.model, "--prompt", "a", "--tokenizer", &gguf];
    dair(&args).refused(&[&gguf, "no tokenizer (.t) but a GGUF file", "`dair convert"]);
    dair(&["generate", "--prompt", "a", "--model", &gguf]).refused(&[&gguf, "number of tensors", "download it again"]);
}

#[test]
fn a_tokenizer_with_too_few_tokens_is_refused_and_padding_is_not() {
    let large = dair_core::format::Header { vocab_size: 5000, ..crate::model::header("tiny-llama") };
    let files = Files::with(&large, 24);
    let tokenizer = |tokens| files.write("other.t", &synthetic::tokenizer_bytes(tokens));
    let foreign = tokenizer(504);
    with_every_command(&files.model, &foreign, |outcome| {
        outcome.refused(&[&foreign, "504 tokens", "the model has 5000, of which at most 156 may be padding"]);
    });
    let padded = tokenizer(5000 - 156);
    let args = ["generate", "--model", &files.model, "--tokenizer", &padded, "--prompt", "a", "--max-tokens", "1"];
    dair(&[&args[..], &["--quiet"]].concat()).quiet_success();
}
