//! Models in several GGUF files: the parts give the bytes of the whole, and what does not fit together is refused.

use dair_core::format::Arch;
use dair_host::model::convert::ggml::GgmlType;
use dair_tests::published::{Converted, Gguf, Tensor, Value, header};
use dair_tests::random::Random;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A small model; its tensors are one after the other's.
fn whole() -> Gguf {
    let mut header = header(Arch::Llama);
    header.n_layers = 1;
    Gguf::of(&header, GgmlType::Q4_0)
}

/// A folder with the parts of a model under their names.
struct Parts {
    folder: TempDir,
    count: usize,
}

impl Parts {
    fn write(parts: &[Gguf]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let written = Self { folder, count: parts.len() };
        for (no, part) in parts.iter().enumerate() {
            std::fs::write(written.path(no), part.bytes()).unwrap();
        }
        written
    }

    fn path(&self, no: usize) -> PathBuf {
        self.folder.path().join(format!("m-{:05}-of-{:05}.gguf", no + 1, self.count))
    }

    fn convert(&self, given: &Path) -> Result<Converted, String> {
        let output = tempfile::tempdir().unwrap();
        let result = Converted::of(given, output.path(), None);
        if result.is_err() {
            assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 0, "something is left");
        }
        result.map_err(|error| error.to_string())
    }

    fn refused(&self, given: usize, expected: &str) {
        let line = self.convert(&self.path(given)).unwrap_err();
        assert!(
            line.contains(expected) && !line.contains('\n') && line.len() < 600,
            "expected: {expected}\nfound: {line}"
        );
    }
}

/// Three parts, the second of three tensors.
fn three() -> Vec<Gguf> {
    let whole = whole();
    whole.split(&[4, 3, whole.tensors.len() - 7])
}

#[test]
fn parts_give_the_bytes_of_the_whole_whichever_is_named() {
    let whole = whole();
    let n = whole.tensors.len();
    let expected = Converted::of_bytes(&whole.bytes(), None).unwrap();
    // The first part may hold metadata alone, and one part is a whole model.
    for sizes in [&[n][..], &[1, n - 1], &[0, n], &[4, 3, n - 7], &[0, 5, 0, n - 5]] {
        let parts = Parts::write(&whole.split(sizes));
        for given in 0..sizes.len() {
            let converted = parts.convert(&parts.path(given)).unwrap();
            assert!(converted.model == expected.model && converted.tokenizer == expected.tokenizer, "{sizes:?}");
        }
    }
}

#[test]
fn parts_may_have_other_alignments_and_the_factors_of_rope_may_lie_in_any() {
    let mut whole = whole();
    whole.tensors.push(Tensor {
        name: "rope_freqs.weight".into(),
        kind: GgmlType::F32,
        dims: vec![16],
        bytes: [1.0f32; 16].map(f32::to_le_bytes).concat(),
    });
    let expected = Converted::of_bytes(&whole.bytes(), None).unwrap();
    let mut parts = whole.split(&[3, whole.tensors.len() - 3]);
    parts[1].alignment = 256;
    parts[1].set("general.alignment", Value::U32(256));
    let parts = Parts::write(&parts);
    assert!(parts.convert(&parts.path(0)).unwrap().model == expected.model);
}

#[test]
fn a_part_that_is_missing_is_named() {
    for missing in 0..3 {
        let parts = Parts::write(&three());
        std::fs::remove_file(parts.path(missing)).unwrap();
        let name = parts.path(missing).display().to_string();
        let expected = format!("{name}: part {} of 3 is not there; download it to the same folder", missing + 1);
        for given in (0..3).filter(|given| *given != missing) {
            parts.refused(given, &expected);
        }
    }
}

#[test]
fn parts_under_other_names_are_refused() {
    let parts = Parts::write(&three());
    let other = parts.folder.path().join("second.gguf");
    std::fs::copy(parts.path(1), &other).unwrap();
    let line = parts.convert(&other).unwrap_err();
    assert!(line.contains("this is part 2 of 3 of a model") && line.contains("-00002-of-00003.gguf"), "{line}");

    std::fs::copy(parts.path(1), parts.path(2)).unwrap();
    parts.refused(0, "m-00003-of-00003.gguf: this is part 2 of 3; its name says part 3 of 3");
    std::fs::write(parts.path(2), whole().bytes()).unwrap();
    parts.refused(1, "m-00003-of-00003.gguf: this is part 1 of 1; its name says part 3 of 3");
    std::fs::write(parts.path(2), "").unwrap();
    parts.refused(0, "m-00003-of-00003.gguf is an empty file");
}

#[test]
fn parts_of_other_models_are_refused() {
    let with = |change: &dyn Fn(&mut [Gguf])| {
        let mut parts = three();
        change(&mut parts);
        Parts::write(&parts)
    };
    with(&|parts| _ = parts[1].set("split.tensors.count", Value::I32(7)))
        .refused(0, "m-00002-of-00003.gguf: split.tensors.count is 7; another part says otherwise");
    with(&|parts| _ = parts[2].tensors.pop()).refused(0, "number of tensors in all parts is");
    let twice = parts_with_a_tensor_twice();
    twice.refused(2, "m-00003-of-00003.gguf: tensor token_embd.weight is in");
    with(&|parts| _ = parts[1].set("split.no", Value::U32(3))).refused(1, "split.no is 3; there are 3 parts");
    with(&|parts| _ = parts[1].set("split.count", "three".into())).refused(1, "split.count is a string");
}

fn parts_with_a_tensor_twice() -> Parts {
    let mut parts = three();
    let again = parts[0].tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap().clone();
    parts[2].tensors.push(again);
    Parts::write(&parts)
}

#[test]
fn a_part_cut_or_changed_anywhere_is_refused_or_harmless() {
    let parts = Parts::write(&three());
    let seed = 11;
    let mut random = Random::new(seed);
    let mut refused = 0;
    for no in 0..3 {
        let good = std::fs::read(parts.path(no)).unwrap();
        for _ in 0..60 {
            let cut = random.below(good.len());
            std::fs::write(parts.path(no), &good[..cut]).unwrap();
            assert!(parts.convert(&parts.path(0)).is_err(), "part {no} cut at {cut}, seed {seed}");
            let mut changed = good.clone();
            let at = random.below(good.len().min(500));
            changed[at] = random.next_u64() as u8;
            std::fs::write(parts.path(no), &changed).unwrap();
            for given in 0..3 {
                let result = parts.convert(&parts.path(given));
                refused += u32::from(result.is_err());
                assert!(!result.is_err_and(|line| line.contains('\n')), "part {no}, byte {at}, seed {seed}");
            }
        }
        std::fs::write(parts.path(no), &good).unwrap();
    }
    assert!(refused > 100, "{refused} refusals");
}
