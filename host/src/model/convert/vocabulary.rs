//! The tokens of a model, and the order in which a `.t` file needs them.
//!
//! A `.t` file takes ids below BOS for regular tokens and all others for special ones. Where the source has another order,
//! tokens get new ids: regular ones first in their old order, then BOS, then the other special ones in their old order.
//! The rows of the embedding and of the output matrix follow.

use super::error::ConvertError;
use super::pipeline::{Pipeline, around};
use dair_core::format::tokenizer::{self, Added, Kind, MAX_EOS, Merge, Steps, TokenizerHeader, TokenizerWriter};
use std::path::Path;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its text, raw bytes.
    pub bytes: Vec<u8>,
    /// The higher, the sooner it is merged. `None`: the lower the id, the sooner.
    pub score: Option<f32>,
    /// What it is for.
    pub kind: Kind,
    /// How it is found in a text, if it is a control or user-defined token.
    pub added: Added,
}

impl Token {
    /// A part of a text.
    pub fn normal(bytes: Vec<u8>) -> Self {
        Self { bytes, score: None, kind: Kind::Normal, added: Added::default() }
    }

    /// Whether a `.t` file has it behind BOS, where C++ matches tokens whole and never merges into them.
    fn is_special(&self) -> bool {
        !matches!(self.kind, Kind::Normal | Kind::Byte)
    }
}

/// All tokens and what a chat needs to know of them.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// By id.
    pub tokens: Vec<Token>,
    /// Begins a conversation.
    pub bos: Option<u32>,
    /// End a text; the first closes the turns of a chat.
    pub eos: Vec<u32>,
    /// Whether a conversation starts with BOS.
    pub add_bos: bool,
    /// The model's own chat template.
    pub chat_template: Option<String>,
    /// Whether [`bos`](Self::bos) is a token of the model's, and no stand-in that [`reorder`](Self::reorder) chose.
    pub has_bos: bool,
    /// How its own tokenizer cuts text.
    pub pipeline: Pipeline,
}

/// Texts of tokens that end a text or a turn in the published chat formats.
const END_TEXTS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
];

/// Name of a row of the embedding that no token uses.
pub fn unused_token(id: usize) -> Token {
    Token { kind: Kind::Unused, ..Token::normal(format!("[PAD{id}]").into_bytes()) }
}

impl Vocabulary {
    /// Completes the list of end tokens: those of which the published chat formats are known to mean the end are added,
    /// and one that the chat template spells out comes first.
    pub fn complete_eos(&mut self) {
        for (id, token) in self.tokens.iter().enumerate() {
            let ends = token.is_special() && END_TEXTS.iter().any(|text| text.as_bytes() == token.bytes);
            if ends && !self.eos.contains(&(id as u32)) {
                self.eos.push(id as u32);
            }
        }
        self.eos.truncate(MAX_EOS);
        if let Some(template) = &self.chat_template {
            let tokens = &self.tokens;
            let spelled_out = |id: &u32| {
                let text = tokens.get(*id as usize).and_then(|token| std::str::from_utf8(&token.bytes).ok());
                text.is_some_and(|text| template.contains(text))
            };
            self.eos.sort_by_key(|id| !spelled_out(id));
        }
    }

    /// Gives tokens the ids that a `.t` file needs. Returns the old id of each token, or `None` where all kept theirs.
    ///
    /// # Errors
    /// A vocabulary without special tokens, or BOS or EOS ids beyond it.
    pub fn reorder(&mut self, path: &Path) -> Result<Option<Vec<u32>>, ConvertError> {
        let vocab_size = self.tokens.len() as u32;
        for (name, id) in self.bos.iter().map(|id| ("BOS id", id)).chain(self.eos.iter().map(|id| ("EOS id", id))) {
            if *id >= vocab_size {
                let allowed = format!("the vocabulary has ids up to {}", vocab_size.saturating_sub(1));
                return Err(ConvertError::refused(path, name, id, allowed));
            }
        }
        for id in &self.eos {
            let token = &mut self.tokens[*id as usize];
            if !token.kind.is_added() {
                token.kind = Kind::Control; // whatever the source says: it must be found in chat templates
            }
        }
        let is_special = |id: &u32| self.tokens[*id as usize].is_special();
        // Without BOS the first special token takes its place in the order; it is never put before a text then.
        let Some(bos) = self.bos.or_else(|| (0..vocab_size).find(is_special)) else {
            return Err(ConvertError::missing(path, "a special token (at least one must mark the end of a text)"));
        };
        self.add_bos &= self.bos.is_some();
        self.has_bos = self.bos.is_some();
        if self.eos.is_empty() {
            return Err(ConvertError::missing(path, "the id of the token that ends a text (EOS)"));
        }
        let regular = (0..vocab_size).filter(|id| !is_special(id) && *id != bos);
        let special = (0..vocab_size).filter(|id| is_special(id) && *id != bos);
        let old_ids: Vec<u32> = regular.chain([bos]).chain(special).collect();
        let mut new_ids = vec![0; old_ids.len()];
        for (new, old) in old_ids.iter().enumerate() {
            new_ids[*old as usize] = new as u32;
        }
        self.bos = Some(new_ids[bos as usize]);
        if old_ids.iter().enumerate().all(|(new, old)| new as u32 == *old) {
            return Ok(None);
        }
        let pipeline = &mut self.pipeline;
        let around = pipeline.before.iter_mut().chain(&mut pipeline.after);
        let named = pipeline.eos.iter_mut().chain(&mut pipeline.unknown);
        for id in self.eos.iter_mut().chain(around).chain(named).chain(pipeline.merges.as_flattened_mut()) {
            *id = new_ids[*id as usize];
        }
        self.tokens =
            old_ids.iter().map(|old| std::mem::replace(&mut self.tokens[*old as usize], unused_token(0))).collect();
        Ok(Some(old_ids))
    }

    /// The bytes of the `.t` file.
    ///
    /// # Errors
    /// What the format can't hold.
    pub fn emit(&self, path: &Path) -> Result<Vec<u8>, ConvertError> {
        let longest = self.tokens.iter().map(|token| token.bytes.len()).max().unwrap_or(0);
        let header = TokenizerHeader {
            vocab_size: self.tokens.len() as u32,
            max_token_len: longest as u32,
            bos: self.bos,
            eos: self.eos.iter().copied().take(MAX_EOS).collect(),
            add_bos: self.add_bos,
            chat_template: self.chat_template.as_deref().filter(|template| !template.is_empty()),
        };
        let refused = |error| ConvertError::refused(path, "the vocabulary", error, "a .t file can't hold it");
        let mut writer = TokenizerWriter::new(Vec::new(), &header).map_err(refused)?;
        for (id, token) in self.tokens.iter().enumerate() {
            writer.push(token.score.unwrap_or(-(id as f32)), &token.bytes).map_err(refused)?;
        }
        let Pipeline { method, flags, eos, unknown, merges, steps, before, after } = &self.pipeline;
        let id = tokenizer::Id::new;
        let bos = self.bos.filter(|_| self.has_bos);
        let before: Vec<u32> = bos.filter(|_| self.add_bos).into_iter().chain(before.iter().copied()).collect();
        let kinds: Vec<u8> = self.tokens.iter().map(|token| token.added.bits(token.kind)).collect();
        let merges: Vec<Merge> = merges
            .iter()
            .map(|&[left, right, merged]| Merge { left: id(left), right: id(right), merged: id(merged) })
            .collect();
        let pipeline = tokenizer::Pipeline {
            method: *method,
            flags: *flags,
            bos,
            eos: *eos,
            unknown: *unknown,
            kinds: &kinds,
            merges: &merges,
            steps: Steps::parse(&steps.bytes).expect("steps were checked as they were added"),
            before: &around(path, &before)?,
            after: &around(path, after)?,
        };
        writer.pipeline(&pipeline).map_err(refused)?;
        writer.finish().map_err(refused)
    }
}

/// The bytes of a sentencepiece token: U+2581 is a space.
pub fn sentencepiece(text: &str) -> Vec<u8> {
    text.replace('\u{2581}', " ").into_bytes()
}

/// The byte that a piece like `<0x0A>` stands for.
pub fn byte_piece(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && !digits.starts_with('+')).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::format::tokenizer::Method;

    fn vocabulary(special: &[&str], eos: &[u32], chat_template: Option<&str>) -> Vocabulary {
        let token = |text: &str, kind| Token { kind, ..Token::normal(text.into()) };
        let regular = ["a", "b"].map(|text| token(text, Kind::Normal));
        let special = special.iter().map(|text| token(text, Kind::Control));
        Vocabulary {
            tokens: regular.into_iter().chain(special).collect(),
            bos: Some(2),
            eos: eos.to_vec(),
            add_bos: true,
            chat_template: chat_template.map(str::to_owned),
            has_bos: true,
            pipeline: Pipeline::of(Method::Merges),
        }
    }

    #[test]
    fn the_end_token_of_the_chat_template_comes_first() {
        let special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"];
        let mut llama3 = vocabulary(&special, &[3], Some("{{ message }}<|eot_id|>"));
        llama3.complete_eos();
        assert_eq!(llama3.eos, [4, 3]);
        let mut plain = vocabulary(&special, &[3], None);
        plain.complete_eos();
        assert_eq!(plain.eos, [3, 4]);
    }

    #[test]
    fn an_end_token_is_special_whatever_the_source_says() {
        let mut odd = vocabulary(&["<s>", "</s>"], &[0], None);
        assert_eq!(odd.reorder("x".as_ref()).unwrap(), Some(vec![1, 2, 0, 3]));
        assert_eq!((odd.bos, odd.eos), (Some(1), vec![2]));
        assert_eq!(odd.tokens[2].bytes, b"a");
    }

    #[test]
    fn a_vocabulary_without_an_end_is_refused() {
        let mut endless = vocabulary(&["<s>"], &[], None);
        endless.complete_eos();
        let message = endless.reorder("x".as_ref()).unwrap_err().to_string();
        assert_eq!(message, "x: the id of the token that ends a text (EOS) is missing");
    }

    #[test]
    fn byte_pieces_are_two_hex_digits() {
        assert_eq!(byte_piece("<0x0A>"), Some(10));
        assert_eq!(byte_piece("<0xff>"), Some(255));
        for other in ["<0x0A", "<0xA>", "<0x00A>", "0x0A", "<0xZZ>", "<0x+1>"] {
            assert_eq!(byte_piece(other), None, "{other}");
        }
    }
}
