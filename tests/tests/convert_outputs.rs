//! Where a conversion puts its outputs: only regular files are replaced, only when asked, and never by halves.

use dair_core::format::Arch;
use dair_host::model::convert::ggml::GgmlType;
use dair_host::model::convert::{ConvertError, Options, convert};
use dair_tests::published::{Gguf, header, options};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

fn small() -> Gguf {
    let mut header = header(Arch::Llama);
    header.n_layers = 1;
    Gguf::of(&header, GgmlType::Q4_0)
}

#[test]
fn outputs_are_replaced_only_when_asked_and_never_by_halves() {
    let folder = tempfile::tempdir().unwrap();
    let [input, model, tokenizer] = ["in.gguf", "out.m", "out.t"].map(|name| folder.path().join(name));
    let bytes = small().bytes();
    std::fs::write(&input, &bytes).unwrap();
    let go = |options| convert(&options, &mut |_| ControlFlow::Continue(()));

    std::fs::write(&tokenizer, "mine").unwrap();
    assert!(matches!(go(options(&input, &model, None)), Err(ConvertError::Exists(path)) if path == tokenizer));
    let mut forced = options(&input, &model, None);
    forced.force = true;
    // Ended by the user after the first chunk: what was there stays, and no part remains.
    std::fs::write(&model, "mine, too").unwrap();
    let mut calls = 0;
    let ended = convert(&forced, &mut |progress| {
        calls += 1;
        assert!(progress.done_bytes <= progress.total_bytes);
        ControlFlow::Break(())
    });
    assert!(matches!(ended, Err(ConvertError::Interrupted)) && calls >= 1);
    assert_eq!(std::fs::read(&model).unwrap(), b"mine, too");
    assert_eq!(std::fs::read(&tokenizer).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);

    // A part of a killed conversion is in nobody's way.
    std::fs::write(folder.path().join("out.m.part"), vec![7; 10_000_000]).unwrap();
    let done = go(forced).unwrap();
    assert_eq!(std::fs::metadata(&model).unwrap().len(), done.model_bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);

    assert!(matches!(go(options(&input, &folder.path().join("x.t"), None)), Err(ConvertError::SameNames(_))));
    let mut over_input = options(&input, &input, None);
    over_input.force = true;
    assert!(matches!(go(over_input), Err(ConvertError::SameFile(_))));
    let link = folder.path().join("link.m");
    symlink(&input, &link).unwrap();
    let mut over_link = options(&input, &link, None);
    over_link.force = true;
    assert!(matches!(go(over_link), Err(ConvertError::SameFile(_))));
    assert_eq!(std::fs::read(&input).unwrap(), bytes);
    let line = go(options(&input, &folder.path().join("none/out.m"), None)).unwrap_err().to_string();
    assert!(line.contains("none"), "{line}");
}

#[test]
fn only_regular_files_are_replaced_even_when_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("in.gguf"), small().bytes()).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(path("socket")).unwrap();
    for (link, target) in
        [("to-null", "/dev/null"), ("to-folder", "folder"), ("to-fifo", "fifo"), ("to-nothing", "none")]
    {
        symlink(target, path(link)).unwrap();
    }
    let before = names(folder.path());
    for (name, expected) in [
        ("folder", "the output is a folder; name the file to be made in it"),
        ("fifo", "the output is a FIFO; only a regular file is replaced"),
        ("socket", "the output is a socket; only a regular file is replaced"),
        ("to-null", "the output is a link to a device; only a regular file is replaced"),
        ("to-folder", "the output is a link to a folder"),
        ("to-fifo", "the output is a link to a FIFO"),
        ("to-nothing", "the output is a link to nothing; remove it"),
    ] {
        let input = path("in.gguf");
        let as_model = Options { force: true, ..options(&input, &path(name), None) };
        let as_model = Options { tokenizer: Some(path("x.t")), ..as_model };
        let as_tokenizer =
            Options { tokenizer: Some(path(name)), ..Options { model: path("x.m"), ..as_model.clone() } };
        for options in [as_model, as_tokenizer] {
            let line = convert(&options, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
            assert!(line.contains(&format!("{name}: {expected}")), "{line}");
            assert_eq!(names(folder.path()), before, "{name}");
        }
    }
    assert!(std::fs::symlink_metadata(path("fifo")).unwrap().file_type().is_fifo());

    // What stands where a part is to be written is not written to either.
    std::fs::write(path("mine"), "mine").unwrap();
    symlink("mine", path("y.m.part")).unwrap();
    let line = convert(&options(&path("in.gguf"), &path("y.m"), None), &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(line.contains("y.m.part: the temporary file is a link; remove it"), "{line}");
    assert_eq!(std::fs::read(path("mine")).unwrap(), b"mine");
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_link_to_a_file_stays_and_the_file_behind_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("in.gguf"), small().bytes()).unwrap();
    std::fs::create_dir(path("disk")).unwrap();
    std::fs::write(path("disk/real.m"), "old").unwrap();
    symlink("disk/real.m", path("out.m")).unwrap();
    let unforced = options(&path("in.gguf"), &path("out.m"), None);
    let go = |options: &Options| convert(options, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(go(&unforced), Err(ConvertError::Exists(_))));
    let forced = Options { force: true, ..unforced };
    let summary = go(&forced).unwrap();
    assert!(std::fs::symlink_metadata(path("out.m")).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(path("disk/real.m")).unwrap().len(), summary.model_bytes);
    assert!(path("out.t").is_file());
    // Two links to one file are one output.
    symlink("disk/real.m", path("same.t")).unwrap();
    let same = Options { tokenizer: Some(path("same.t")), ..forced };
    assert!(matches!(go(&same), Err(ConvertError::SameNames(_))));
}

#[test]
fn two_conversions_to_one_name_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let (input, model) = (folder.path().join("in.gguf"), folder.path().join("out.m"));
    std::fs::write(&input, small().bytes()).unwrap();
    let mut second = None;
    let first = convert(&options(&input, &model, None), &mut |_| {
        second.get_or_insert_with(|| convert(&options(&input, &model, None), &mut |_| ControlFlow::Continue(())));
        ControlFlow::Continue(())
    });
    assert!(matches!(second, Some(Err(ConvertError::Busy(_)))), "{second:?}");
    assert_eq!(std::fs::metadata(&model).unwrap().len(), first.unwrap().model_bytes);
}
