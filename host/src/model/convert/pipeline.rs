//! How a source says that its text is cut, on the way to the part of a `.t` file that keeps it.

use super::error::ConvertError;
use dair_core::format::tokenizer::{Behavior, Flags, Id, MAX_AROUND, MAX_STEP_BYTES, MAX_STEPS, Method, Step};
use std::path::Path;

/// GPT-2's words: contractions, letters, numbers and other signs with a blank before them, runs of white space.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Signs of ASCII, and what Unicode 8 called punctuation, which is what the library `tokenizers` goes by: two of these are no
/// longer called so.
pub const PUNCTUATION: &str = r"[[\p{P}&&\p{age:8.0}]\x{166D}\x{111C9}!-/:-@\[-`{-~]";

/// What a [`Pipeline`](dair_core::format::tokenizer::Pipeline) says, owned, with the source's ids. Kinds stand with the tokens.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What is merged.
    pub method: Method,
    /// Its variants.
    pub flags: Flags,
    /// The tokenizer's own EOS token.
    pub eos: Option<u32>,
    /// Stands for what has no token.
    pub unknown: Option<u32>,
    /// Left, right, merged.
    pub merges: Vec<[u32; 3]>,
    /// Normalizer and pre-tokenizer.
    pub steps: StepList,
    /// Put before a text, BOS apart.
    pub before: Vec<u32>,
    /// Put behind a text.
    pub after: Vec<u32>,
}

impl Pipeline {
    /// Merges of nothing, without steps.
    pub fn of(method: Method) -> Self {
        Self {
            method,
            flags: Flags::default(),
            eos: None,
            unknown: None,
            merges: Vec::new(),
            steps: StepList::default(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }
}

/// Steps as they lie in a file.
#[derive(Clone, Debug, Default)]
pub struct StepList {
    /// As [`Steps`](dair_core::format::tokenizer::Steps) reads them.
    pub bytes: Vec<u8>,
    count: usize,
    cuts: bool,
}

impl StepList {
    /// Adds a step.
    ///
    /// # Errors
    /// One that no reader would accept, with a word for why.
    pub fn push(&mut self, step: Step<'_>) -> Result<(), &'static str> {
        self.count += 1;
        if self.count > MAX_STEPS {
            return Err("too many steps");
        }
        if self.cuts && !step.is_pre_tokenizer() {
            return Err("a text is changed after it was cut");
        }
        self.cuts |= step.is_pre_tokenizer();
        let (kind, texts) = step.parts();
        self.bytes.extend(kind.to_le_bytes());
        for text in texts {
            let len =
                u32::try_from(text.len()).ok().filter(|len| *len <= MAX_STEP_BYTES).ok_or("a text is too long")?;
            self.bytes.extend(len.to_le_bytes());
            self.bytes.extend(text.as_bytes());
        }
        Ok(())
    }

    /// Steps that are known to go together.
    ///
    /// # Panics
    /// If they don't.
    pub fn of(steps: &[Step<'_>]) -> Self {
        let mut list = Self::default();
        for step in steps {
            list.push(*step).expect("steps that go together");
        }
        list
    }
}

/// Ids before or behind a text as they lie in a file.
pub fn around(path: &Path, ids: &[u32]) -> Result<Vec<Id>, ConvertError> {
    if ids.len() > MAX_AROUND {
        let allowed = format!("allowed: up to {MAX_AROUND}");
        return Err(ConvertError::refused(path, "tokens put around a text", ids.len(), allowed));
    }
    Ok(ids.iter().map(|id| Id::new(*id)).collect())
}

/// The steps of sentencepiece: blanks become U+2581, one of them goes before the text.
pub fn sentencepiece_steps(blank_prefix: bool) -> StepList {
    let mut list = StepList::default();
    for step in [Step::Prepend("\u{2581}"), Step::Replace(" ", "\u{2581}")].iter().skip(usize::from(!blank_prefix)) {
        list.push(*step).expect("both work on the whole text");
    }
    list
}

/// The steps behind a name in `tokenizer.ggml.pre`, and whether whole pieces go before merges. The patterns are those of the
/// tokenizers that the models were published with.
pub fn named(pre: &str) -> Option<(StepList, bool)> {
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const DEEPSEEK_V3: [&str; 3] = [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ];
    // Letters are those that had cases in the Unicode of its day; the other ranges begin with U+4E00, U+0800 and U+AC00.
    const DEEPSEEK_LLM: [&str; 6] = [
        "[\r\n]",
        r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
        "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        DEEPSEEK_ASIAN,
        r"\p{N}",
    ];
    const DEEPSEEK_CODER: [&str; 5] = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_ASIAN, r"\p{N}"];
    const DEEPSEEK_ASIAN: &str = "[一-龥ࠀ-一가-퟿]+";
    const DIGITS: [&str; 2] = [r"\p{N}", GPT2];
    let split = |pattern| Step::Split(Behavior::Isolated, pattern);
    let isolated = |patterns: &[&'static str]| StepList::of(&patterns.iter().map(|p| split(p)).collect::<Vec<_>>());
    let composed = |patterns: &[&'static str]| {
        let splits = patterns.iter().map(|p| split(p));
        StepList::of(&[Step::Nfc].into_iter().chain(splits).collect::<Vec<_>>())
    };
    let falcon = || {
        // Digits are looked for behind the alphabet of bytes, where parts of other characters are digits, too.
        StepList::of(&[
            Step::Split(Behavior::Contiguous, PUNCTUATION),
            split(GPT2),
            Step::ByteAlphabet,
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
        ])
    };
    Some(match pre {
        "gpt-2" | "gpt2" | "phi-2" | "jais" | "roberta-bpe" | "mellum" | "trillion" | "granite-docling" => {
            (isolated(&[GPT2]), false)
        }
        "mpt" | "olmo" => (composed(&[GPT2]), false),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            (isolated(&[LLAMA3]), true)
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => (isolated(&[LLAMA3]), false),
        "qwen2" | "deepseek-r1-qwen" | "megrez" | "stablelm2" => (composed(&[QWEN2]), false),
        "hunyuan" | "solar-open" => (isolated(&[QWEN2]), false),
        "command-r" => (composed(&DIGITS), false),
        "smollm" | "starcoder" | "refact" | "codeshell" | "exaone" | "minerva-7b" => (isolated(&DIGITS), false),
        "gpt-4o" | "llama4" => (isolated(&[O200K]), false),
        "tekken" => (isolated(&[TEKKEN]), true),
        "deepseek-llm" => (isolated(&DEEPSEEK_LLM), false),
        "deepseek-coder" => (isolated(&DEEPSEEK_CODER), false),
        "deepseek-v3" | "deepseek-r1" | "hunyuan-dense" => (isolated(&DEEPSEEK_V3), false),
        "falcon" => (falcon(), false),
        _ => return None,
    })
}

/// Names that [`named`] knows, for messages: the families, not every alias.
pub const NAMED: &str = "gpt-2, llama-bpe, qwen2, smollm, starcoder, refact, command-r, tekken, gpt-4o, llama4, deepseek-llm, \
                         deepseek-coder, deepseek-v3, deepseek-r1-qwen, falcon, stablelm2, chatglm-bpe, dbrx, olmo, mpt";
