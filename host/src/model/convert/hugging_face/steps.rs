//! `normalizer` and `pre_tokenizer` of tokenizer.json as the steps of a `.t` file.

use crate::model::convert::pipeline::{GPT2, PUNCTUATION, StepList};
use dair_core::format::tokenizer::{Behavior, Step};
use fancy_regex::escape;
use serde_json::Value;

/// What the two components say together.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// In the order in which they are done.
    pub steps: StepList,
    /// Text is spelled in the alphabet of bytes.
    pub byte_level: bool,
    /// A blank is put before the text.
    pub blank_prefix: bool,
    /// The steps say so: later ones see bytes.
    spelled: bool,
}

/// A component that can't be expressed: which, what was found, what is allowed.
pub type Refusal = (String, String, &'static str);

const NORMALIZERS: &str =
    "allowed: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace; a GGUF of the model may convert";
const PRE_TOKENIZERS: &str =
    "allowed: Sequence, ByteLevel, Split, Digits, Punctuation, Metaspace; a GGUF of the model may convert";
const BLANK: &str = "\u{2581}";

/// Reads both components.
///
/// # Errors
/// What has no place in a `.t` file.
pub fn read(normalizer: Option<&Value>, pre_tokenizer: Option<&Value>) -> Result<Cut, Refusal> {
    let mut cut = Cut::default();
    normalizer.map_or(Ok(()), |part| cut.normalizer(part))?;
    pre_tokenizer.map_or(Ok(()), |part| cut.pre_tokenizer(part))?;
    Ok(cut)
}

impl Cut {
    fn normalizer(&mut self, part: &Value) -> Result<(), Refusal> {
        let step = match kind(part) {
            "Sequence" => return list(part, "normalizers").iter().try_for_each(|part| self.normalizer(part)),
            "NFC" => Step::Nfc,
            "NFD" => Step::Nfd,
            "NFKC" => Step::Nfkc,
            "NFKD" => Step::Nfkd,
            "Lowercase" => Step::Lowercase,
            "Strip" => {
                for (key, step) in [("strip_left", Step::StripLeft), ("strip_right", Step::StripRight)] {
                    if flag(part, key, true) {
                        self.push("normalizer", step)?;
                    }
                }
                return Ok(());
            }
            "Prepend" => {
                let text = text(part, "prepend");
                self.blank_prefix |= text == BLANK;
                Step::Prepend(text)
            }
            "Replace" => {
                let to = text(part, "content");
                match (pattern(part, "String"), pattern(part, "Regex")) {
                    (Some(from), _) => Step::Replace(from, to),
                    (None, Some(pattern)) => Step::ReplacePattern(pattern, to),
                    (None, None) => return Err(("normalizer.pattern".into(), part.to_string(), NORMALIZERS)),
                }
            }
            other => return Err(("normalizer".into(), format!("{other:?}"), NORMALIZERS)),
        };
        self.push("normalizer", step)
    }

    fn pre_tokenizer(&mut self, part: &Value) -> Result<(), Refusal> {
        match kind(part) {
            "Sequence" => list(part, "pretokenizers").iter().try_for_each(|part| self.pre_tokenizer(part)),
            "ByteLevel" if self.byte_level => Err(("pre_tokenizer".into(), "ByteLevel twice".into(), PRE_TOKENIZERS)),
            "ByteLevel" => {
                if flag(part, "add_prefix_space", true) {
                    self.push("pre_tokenizer", Step::BlankPrefix(" "))?;
                    self.blank_prefix = true;
                }
                if flag(part, "use_regex", true) {
                    self.push("pre_tokenizer", Step::Split(Behavior::Isolated, GPT2))?;
                }
                self.byte_level = true;
                Ok(())
            }
            "Split" => {
                let escaped = pattern(part, "String").map(escape);
                let Some(pattern) = escaped.as_deref().or_else(|| pattern(part, "Regex")) else {
                    return Err(("pre_tokenizer.pattern".into(), part.to_string(), PRE_TOKENIZERS));
                };
                let behavior = behavior(part, "Isolated")?;
                let split = if flag(part, "invert", false) { Step::SplitInverted } else { Step::Split };
                self.push("pre_tokenizer", split(behavior, pattern))
            }
            "Digits" => {
                let pattern = if flag(part, "individual_digits", false) { r"\p{N}" } else { r"\p{N}+" };
                self.push("pre_tokenizer", Step::Split(Behavior::Isolated, pattern))
            }
            "Punctuation" => self.push("pre_tokenizer", Step::Split(behavior(part, "Isolated")?, PUNCTUATION)),
            "Metaspace" => self.metaspace(part),
            other => Err(("pre_tokenizer".into(), format!("{other:?}"), PRE_TOKENIZERS)),
        }
    }

    /// Blanks become a sign, one of which goes before the text, or before each of its pieces.
    fn metaspace(&mut self, part: &Value) -> Result<(), Refusal> {
        let sign = part.get("replacement").and_then(Value::as_str).unwrap_or(BLANK);
        self.push("pre_tokenizer", Step::Replace(" ", sign))?;
        // Before there were schemes, a flag chose between two of them.
        let usual = if flag(part, "add_prefix_space", true) { "always" } else { "never" };
        let prefix = match part.get("prepend_scheme").and_then(Value::as_str).unwrap_or(usual) {
            "always" => Some(Step::BlankPrefix(sign)),
            "first" => Some(Step::FirstPrefix(sign)),
            "never" => None,
            other => {
                let allowed = "allowed: always, first, never";
                return Err(("pre_tokenizer.prepend_scheme".into(), format!("{other:?}"), allowed));
            }
        };
        if let Some(prefix) = prefix {
            self.blank_prefix = true;
            self.push("pre_tokenizer", prefix)?;
        }
        if flag(part, "split", true) {
            self.push("pre_tokenizer", Step::Split(Behavior::MergedWithNext, &escape(sign)))?;
        }
        Ok(())
    }

    fn push(&mut self, field: &str, step: Step<'_>) -> Result<(), Refusal> {
        // Behind ByteLevel, which is the last component of nearly all files, text is spelled in bytes.
        if self.byte_level && !self.spelled {
            self.spelled = true;
            self.push(field, Step::ByteAlphabet)?;
        }
        self.steps.push(step).map_err(|why| (field.into(), format!("{step:?}"), why))
    }
}

fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or("nothing")
}

fn list<'v>(part: &'v Value, key: &str) -> &'v [Value] {
    part.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn flag(part: &Value, key: &str, usual: bool) -> bool {
    part.get(key).and_then(Value::as_bool).unwrap_or(usual)
}

fn text<'v>(part: &'v Value, key: &str) -> &'v str {
    part.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn pattern<'v>(part: &'v Value, kind: &str) -> Option<&'v str> {
    part.get("pattern")?.get(kind)?.as_str()
}

fn behavior(part: &Value, usual: &str) -> Result<Behavior, Refusal> {
    let name = part.get("behavior").and_then(Value::as_str).unwrap_or(usual);
    let allowed = "allowed: Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous";
    Behavior::from_name(name).ok_or_else(|| ("pre_tokenizer.behavior".into(), format!("{name:?}"), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::format::tokenizer::Steps;
    use serde_json::json;

    fn steps(normalizer: Value, pre_tokenizer: Value) -> Result<(Vec<String>, bool, bool), Refusal> {
        let cut = read(Some(&normalizer), Some(&pre_tokenizer))?;
        let steps = Steps::parse(&cut.steps.bytes).unwrap();
        Ok((steps.iter().map(|step| format!("{step:?}")).collect(), cut.byte_level, cut.blank_prefix))
    }

    #[test]
    fn components_become_steps_in_their_order() {
        let sequence = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let (found, byte_level, blank) = steps(sequence, json!({"type": "Sequence", "pretokenizers": []})).unwrap();
        assert_eq!(found, [r#"Prepend("▁")"#, r#"Replace(" ", "▁")"#]);
        assert!(!byte_level && blank);
        let digits = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]});
        let (found, byte_level, blank) = steps(json!({"type": "NFC"}), digits).unwrap();
        assert_eq!(found[..2], ["Nfc", r#"Split(Isolated, "\\p{N}")"#]);
        assert!(found[2].starts_with("Split(Isolated, \"'s|'t") && byte_level && !blank);
        let (found, _, _) = steps(
            json!({"type": "Strip", "strip_left": false}),
            json!({"type": "Split", "pattern": {"String": "a.b"}, "behavior": "Removed", "invert": true}),
        )
        .unwrap();
        assert_eq!(found, ["StripRight", r#"SplitInverted(Removed, "a\\.b")"#]);
        let (found, _, blank) =
            steps(json!({"type": "NFKC"}), json!({"type": "Metaspace", "prepend_scheme": "first", "split": false}))
                .unwrap();
        assert_eq!(
            (found, blank),
            (["Nfkc", r#"Replace(" ", "▁")"#, r#"FirstPrefix("▁")"#].map(String::from).to_vec(), true)
        );
    }

    #[test]
    fn what_has_no_place_is_refused_by_name() {
        let none = || json!({"type": "Sequence"});
        let cases = [
            (json!({"type": "Precompiled", "precompiled_charsmap": "AA=="}), none(), "Precompiled"),
            (json!({"type": "BertNormalizer"}), none(), "BertNormalizer"),
            (json!({"type": "Replace", "content": "x"}), none(), "Replace"),
            (none(), json!({"type": "WhitespaceSplit"}), "WhitespaceSplit"),
            (none(), json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Dropped"}), "Dropped"),
            (none(), json!({"type": "Metaspace", "prepend_scheme": "often"}), "often"),
            (
                none(),
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Metaspace"}]}),
                "Replace",
            ),
        ];
        for (normalizer, pre_tokenizer, name) in cases {
            let (_, found, _) = steps(normalizer, pre_tokenizer).unwrap_err();
            assert!(found.contains(name), "{found} lacks {name}");
        }
    }
}
