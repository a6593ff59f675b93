//! How a source says that its text is cut, on the way to the part of a `.t` file that keeps it.

use super::error::ConvertError;
use dair_core::format::tokenizer::{Behavior, Flags, Id, MAX_AROUND, MAX_STEP_BYTES, MAX_STEPS, Method, Step};
use std::path::Path;

/// GPT-2's words: contractions, letters, numbers and other signs with a blank before them, runs of white space.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

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
    const DEEPSEEK_LLM: [&str; 6] = [
        r"[\r\n]",
        // The cased letters of the Unicode of its day.
        r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
        r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
        r"\s+$",
        r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+",
        r"\p{N}",
    ];
    const DEEPSEEK_CODER: [&str; 5] =
        [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+", r"\p{N}"];
    const FALCON: [&str; 3] = [r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"];
    const DIGITS: [&str; 2] = [r"\p{N}", GPT2];
    let isolated = |patterns: &[&str]| {
        let steps: Vec<_> = patterns.iter().map(|pattern| Step::Split(Behavior::Isolated, pattern)).collect();
        StepList::of(&steps)
    };
    Some(match pre {
        "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jais" | "roberta-bpe" | "mellum" | "trillion"
        | "granite-docling" => (isolated(&[GPT2]), false),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            (isolated(&[LLAMA3]), true)
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => (isolated(&[LLAMA3]), false),
        "qwen2" | "deepseek-r1-qwen" | "megrez" => {
            (StepList::of(&[Step::Nfc, Step::Split(Behavior::Isolated, QWEN2)]), false)
        }
        "stablelm2" | "hunyuan" | "solar-open" => (isolated(&[QWEN2]), false),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            (isolated(&DIGITS), false)
        }
        "gpt-4o" | "llama4" => (isolated(&[O200K]), false),
        "tekken" => (isolated(&[TEKKEN]), true),
        "deepseek-llm" => (isolated(&DEEPSEEK_LLM), false),
        "deepseek-coder" => (isolated(&DEEPSEEK_CODER), false),
        "deepseek-v3" | "deepseek-r1" | "hunyuan-dense" => (isolated(&DEEPSEEK_V3), false),
        "falcon" => (isolated(&FALCON), false),
        _ => return None,
    })
}

/// Names that [`named`] knows, for messages: the families, not every alias.
pub const NAMED: &str = "gpt-2, llama-bpe, qwen2, smollm, starcoder, refact, command-r, tekken, gpt-4o, llama4, deepseek-llm, \
                         deepseek-coder, deepseek-v3, deepseek-r1-qwen, falcon, stablelm2, chatglm-bpe, dbrx, olmo, mpt";
