//! Models that are converted on the way: once, again when anything about the source changes, and never half.

use dair_core::format::Arch;
use dair_host::model::Model;
use dair_host::model::cache::{Cache, CacheError, Entry, Event};
use dair_host::model::convert::ggml::GgmlType;
use dair_host::model::convert::{CONVERSION, ConvertError};
use dair_tests::published::{Converted, Folder, Gguf, header};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// A folder with a source and a cache.
struct Place {
    folder: TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("cache"));
        let place = Self { folder, cache };
        fs::create_dir(place.path("source")).unwrap();
        place
    }

    /// With a model in one file.
    fn with_gguf() -> (Self, PathBuf) {
        let place = Self::new();
        let source = place.path("source/x.gguf");
        fs::write(&source, gguf().bytes()).unwrap();
        (place, source)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The pair made of a source, and whether it was converted for this.
    fn get(&self, source: &Path) -> Result<(Entry, bool), CacheError> {
        let mut converted = false;
        let entry = self.cache.converted(source, &mut |event| {
            converted |= matches!(event, Event::Converting(_));
            ControlFlow::Continue(())
        })?;
        Model::open(&entry.model).unwrap();
        Ok((entry, converted))
    }

    fn is_converted(&self, source: &Path) -> bool {
        self.get(source).unwrap().1
    }

    /// All files of the cache by name, without the folders that they lie in.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.path("cache")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    names.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        names.sort();
        names
    }
}

const ONE_VERSION: [&str; 4] = ["lock", "model.m", "model.t", "source.json"];

fn gguf() -> Gguf {
    let mut header = header(Arch::Llama);
    header.n_layers = 1;
    Gguf::of(&header, GgmlType::Q4_0)
}

fn touch(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_source_is_converted_once_as_convert_does_it() {
    let (place, source) = Place::with_gguf();
    let (entry, converted) = place.get(&source).unwrap();
    assert!(converted);
    let expected = Converted::of_bytes(&gguf().bytes(), None).unwrap();
    assert!(fs::read(&entry.model).unwrap() == expected.model);
    assert!(fs::read(&entry.tokenizer).unwrap() == expected.tokenizer);
    assert_eq!(place.names(), ONE_VERSION);
    assert!(!place.is_converted(&source));
    // Another way to the same file is no other source.
    assert!(!place.is_converted(&place.path("source/../source/./x.gguf")));
    std::os::unix::fs::symlink(place.path("source"), place.path("link")).unwrap();
    assert!(!place.is_converted(&place.path("link/x.gguf")));
    assert_eq!(place.names(), ONE_VERSION);
}

#[test]
fn a_change_of_the_source_converts_again_and_leaves_one_version() {
    let (place, source) = Place::with_gguf();
    touch(&source, 1000);
    assert!(place.is_converted(&source) && !place.is_converted(&source));
    touch(&source, 2000);
    assert!(place.is_converted(&source) && !place.is_converted(&source));
    // Another file of the same size and time.
    let mut bytes = gguf().bytes();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&source).unwrap();
    fs::write(&source, &bytes).unwrap();
    touch(&source, 2000);
    let (entry, converted) = place.get(&source).unwrap();
    assert!(converted);
    assert!(fs::read(&entry.model).unwrap() == Converted::of_bytes(&bytes, None).unwrap().model);
    assert_eq!(place.names(), ONE_VERSION);
}

#[test]
fn any_part_and_any_file_of_a_folder_counts() {
    let place = Place::new();
    let whole = gguf();
    let part = |no: usize| place.path(&format!("source/m-0000{no}-of-00002.gguf"));
    for (no, bytes) in (1..).zip(whole.split(&[3, whole.tensors.len() - 3])) {
        fs::write(part(no), bytes.bytes()).unwrap();
    }
    assert!(place.is_converted(&part(1)));
    assert!(!place.is_converted(&part(2)), "all parts are one source");
    touch(&part(2), 1000);
    assert!(place.is_converted(&part(1)));

    let folder = place.path("source/folder");
    fs::create_dir(&folder).unwrap();
    Folder::of(&header(Arch::Llama), GgmlType::F16).write(&folder, 2);
    assert!(place.is_converted(&folder) && !place.is_converted(&folder.join("")));
    for name in ["config.json", "tokenizer_config.json", "model-00002-of-00002.safetensors"] {
        touch(&folder.join(name), 1000);
        assert!(place.is_converted(&folder), "{name}");
    }
    fs::write(folder.join("chat_template.jinja"), "a new file").unwrap();
    assert!(place.is_converted(&folder));
    fs::write(folder.join("README.md"), "not of the model").unwrap();
    assert!(!place.is_converted(&folder));
}

#[test]
fn a_damaged_version_is_made_again() {
    let (place, source) = Place::with_gguf();
    let damages: [fn(&Path); 6] = [
        |model| fs::remove_file(model).unwrap(),
        |model| File::options().write(true).open(model).unwrap().set_len(1000).unwrap(),
        |model| fs::remove_file(model.with_extension("t")).unwrap(),
        |model| fs::remove_file(model.with_file_name("source.json")).unwrap(),
        |model| fs::write(model.with_file_name("source.json"), "{").unwrap(),
        |model| fs::write(model.with_file_name("source.json"), vec![b' '; 3 << 20]).unwrap(),
    ];
    for (n, damage) in damages.iter().enumerate() {
        let model = place.get(&source).unwrap().0.model.clone();
        damage(&model);
        assert!(place.is_converted(&source), "damage {n}");
        assert_eq!(place.names(), ONE_VERSION, "damage {n}");
    }
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
    let (place, source) = Place::with_gguf();
    let used = place.get(&source).unwrap().0;
    let slot = used.model.parent().unwrap().parent().unwrap().to_owned();
    fs::create_dir(slot.join("0123.part")).unwrap();
    fs::write(slot.join("0123.part/model.m.part"), "half").unwrap();
    touch(&source, 1000);
    assert!(place.is_converted(&source));
    assert!(!slot.join("0123.part").exists());
    assert!(used.model.exists() && used.tokenizer.exists(), "still in use");
    drop(used);
    touch(&source, 2000);
    assert!(place.is_converted(&source));
    assert_eq!(place.names(), ONE_VERSION);
}

#[test]
fn models_whose_source_was_removed_go_and_those_on_a_disk_that_is_away_stay() {
    let (place, source) = Place::with_gguf();
    let other = place.path("source/other.gguf");
    fs::copy(&source, &other).unwrap();
    fs::create_dir(place.path("disk")).unwrap();
    let away = place.path("disk/away.gguf");
    fs::copy(&source, &away).unwrap();
    let kept = place.get(&away).unwrap().0.model.clone();
    let removed = place.get(&source).unwrap().0.model.clone();
    fs::rename(place.path("disk"), place.path("not mounted")).unwrap();
    fs::remove_file(&source).unwrap();
    place.get(&other).unwrap();
    assert!(kept.exists() && !removed.parent().unwrap().parent().unwrap().exists());
    fs::rename(place.path("not mounted"), place.path("disk")).unwrap();
    assert!(!place.is_converted(&away));
    // Away for good.
    touch(&kept.with_file_name("source.json"), 1000);
    fs::remove_dir_all(place.path("disk")).unwrap();
    touch(&other, 1000);
    place.get(&other).unwrap();
    assert_eq!(place.names(), ONE_VERSION);
}

#[test]
fn of_many_at_once_one_converts_and_all_get_the_same() {
    let (place, source) = Place::with_gguf();
    let (conversions, barrier) = (AtomicUsize::new(0), Barrier::new(6));
    for round in 1..=5 {
        touch(&source, round);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    barrier.wait();
                    let (entry, converted) = place.get(&source).unwrap();
                    conversions.fetch_add(usize::from(converted), Ordering::Relaxed);
                    assert!(entry.tokenizer.exists());
                });
            }
        });
        assert_eq!(conversions.load(Ordering::Relaxed), round as usize, "round {round}");
    }
    assert_eq!(place.names(), ONE_VERSION);
}

fn is_interrupted(result: &Result<Entry, CacheError>) -> bool {
    matches!(result, Err(CacheError::Convert(error)) if matches!(**error, ConvertError::Interrupted))
}

#[test]
fn an_end_asked_for_leaves_nothing_and_the_next_one_goes_on() {
    let (place, source) = Place::with_gguf();
    let ended = place.cache.converted(&source, &mut |event| match event {
        Event::Progress(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(is_interrupted(&ended), "{ended:?}");
    assert_eq!(place.names(), ["lock"]);
    // One that waits for another can be ended, too.
    let mut second = None;
    let first = place.cache.converted(&source, &mut |event| {
        if let Event::Progress(_) = event {
            second.get_or_insert_with(|| place.cache.converted(&source, &mut |_| ControlFlow::Break(())));
        }
        ControlFlow::Continue(())
    });
    assert!(second.as_ref().is_some_and(is_interrupted), "{second:?}");
    drop(first.unwrap());
    assert_eq!(place.names(), ONE_VERSION);
}

#[test]
fn a_source_that_changes_meanwhile_gives_no_version() {
    let (place, source) = Place::with_gguf();
    let mut seconds = 1000;
    let result = place.cache.converted(&source, &mut |_| {
        seconds += 1;
        touch(&source, seconds);
        ControlFlow::Continue(())
    });
    assert!(matches!(&result, Err(CacheError::Changed(path)) if *path == source.canonicalize().unwrap()), "{result:?}");
    assert_eq!(place.names(), ["lock"]);
    assert!(place.is_converted(&source));
}

#[test]
fn what_goes_wrong_is_one_line() {
    let (place, source) = Place::with_gguf();
    let line = |source: &Path, cache: &Cache| {
        let error = cache.converted(source, &mut |_| ControlFlow::Continue(())).unwrap_err();
        let line = error.to_string();
        assert!(!line.contains('\n') && line.len() < 600, "{line}");
        line
    };
    fs::write(place.path("file"), "").unwrap();
    let message = line(&source, &Cache::at(&place.path("file")));
    assert!(message.contains("Not a directory") && message.contains("by DAIR_CACHE"), "{message}");
    // What is wrong with the model is said as `dair convert` says it, and a folder without a model makes no folder here.
    assert!(line(&place.path("source"), &place.cache).contains("the folder is without config.json; name "));
    assert!(line(&place.path("nowhere/x.gguf"), &place.cache).contains("No such file"));
    assert!(!place.path("cache").exists());
    fs::write(&source, &gguf().bytes()[..500]).unwrap();
    assert!(line(&source, &place.cache).contains("the file ends at 500; copy or download it again"));
}

/// Whoever changes what conversions write has to raise `CONVERSION`, so that caches don't keep what older versions wrote.
#[test]
fn the_version_of_conversions_goes_with_what_they_write() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for arch in [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe] {
        let Converted { model, tokenizer, .. } =
            Converted::of_bytes(&Gguf::of(&header(arch), GgmlType::Q6K).bytes(), None).unwrap();
        for byte in model.into_iter().chain(tokenizer) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    assert_eq!((CONVERSION, hash), (3, 11_058_555_658_050_212_159), "raise CONVERSION and put both numbers here");
}
