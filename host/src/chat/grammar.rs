//! Answers that must have a form: JSON, JSON of a schema, a text of a regular expression or of a grammar.
//!
//! [llguidance](https://github.com/guidance-ai/llguidance) reads the form and says after every token which ones may follow; all others are
//! taken out of the logits before one is drawn. So an answer that ends by itself always has the form, whatever the model wants to say.

use super::tokenizer::Tokenizer;
use dair_core::text::{EncodeOptions, Vocabulary};
use llguidance::api::TopLevelGrammar;
use llguidance::regex_to_lark;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// The logit of a token that is never drawn. It stays finite under penalties and temperatures.
pub const NEVER: f32 = -1e30;

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Any JSON object.
    Object,
    /// JSON of a schema.
    Schema(Value),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// A text of a grammar in [llguidance's variant of Lark](https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
    Grammar(String),
}

impl Form {
    /// One of these texts.
    pub fn one_of(texts: &[String]) -> Self {
        let all: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        Self::Grammar(format!("start: {}", all.join(" | ")))
    }

    /// What a rule of a grammar consists of whose texts have this form.
    pub fn rule(&self) -> String {
        match self {
            Self::Object => format!("%json {}", schema(&json!({ "type": "object" }))),
            Self::Schema(value) => format!("%json {}", schema(value)),
            Self::Regex(regex) => format!("/{}/", regex_to_lark(regex, "")),
            Self::Grammar(text) => format!("%lark {{\n{text}\n}}"),
        }
    }

    /// The same behind reasoning, which ends with `mark`.
    fn after_reasoning(&self, mark: &Mark) -> String {
        let lazily = if mark.is_token { "" } else { "[lazy]" };
        format!(
            "start: thought body\nthought{lazily}: /(?s:.*)/ {}\nbody: /\\s{{0,4}}/ answer\nanswer: {}",
            mark.text,
            self.rule()
        )
    }
}

/// A text as grammars have it.
pub fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text that means something to the model, as grammars have it: the token that it is, or its characters where no token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How a rule has it.
    pub text: String,
    /// It is a token. Other text ends there by itself.
    pub is_token: bool,
}

impl Mark {
    /// Of a vocabulary.
    pub fn of(vocab: &Vocabulary<'_>, text: &str) -> Self {
        let found = vocab.find_special(text.as_bytes());
        let found = found.filter(|id| vocab.bytes(*id) == Some(text.as_bytes()) && is_control(vocab, *id));
        match found {
            Some(id) => Self { text: format!("<[{id}]>"), is_token: true },
            None => Self { text: literal(text), is_token: false },
        }
    }
}

/// Why there is no such form, or an answer can't go on in it: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormError(String);

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FormError {}

impl FormError {
    /// What the library says, in one line.
    fn of(error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("<state>"));
        let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        Self(line.chars().take(LINE_MAX).collect())
    }
}

/// Longest line of an error, in characters: schemas are quoted in it.
const LINE_MAX: usize = 300;

/// Blanks that JSON may have between its parts. A model that has nothing to say would go on with them for ever.
const BLANKS: &str = r"[ \n\t]{0,8}";

/// Stack of the thread that reads a form; what is not used of it takes no memory.
const STACK_BYTES: usize = 128 << 20;

/// Reads forms for one tokenizer.
pub struct Forms {
    factory: ParserFactory,
    vocab: &'static Vocabulary<'static>,
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forms").finish_non_exhaustive()
    }
}

impl Forms {
    /// Prepares the tables of a tokenizer: some 0.1 s for 128,000 tokens.
    ///
    /// # Errors
    /// No token ends a text.
    pub fn new(tokenizer: &'static Tokenizer<'static>) -> Result<Self, FormError> {
        let environment: TokEnv = Arc::new(Environment::new(tokenizer)?);
        let mut factory = ParserFactory::new_simple(&environment).map_err(|error| FormError::of(&error))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, vocab: tokenizer.vocabulary() })
    }

    /// Reads a form. Where the prompt leaves the model reasoning, `reasoning_ends` is what that ends with, and the form begins
    /// behind it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, form: &Form, reasoning_ends: Option<&str>) -> Result<Constraint, FormError> {
        // The library goes down as deep as rules are within each other.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("form".into()).stack_size(STACK_BYTES);
            let reading = thread.spawn_scoped(scope, || self.read_here(form, reasoning_ends));
            let reading = reading.map_err(|error| FormError(format!("no thread to read it: {error}")))?;
            reading.join().unwrap_or_else(|_| Err(FormError("too intricate to be read".into())))
        })
    }

    fn read_here(&self, form: &Form, reasoning_ends: Option<&str>) -> Result<Constraint, FormError> {
        let grammar = match (reasoning_ends, form) {
            (Some(mark), form) => TopLevelGrammar::from_lark(form.after_reasoning(&Mark::of(self.vocab, mark))),
            (None, Form::Grammar(text)) => TopLevelGrammar::from_lark(text.clone()),
            (None, form) => TopLevelGrammar::from_lark(format!("start: {}", form.rule())),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(FormError::of(&error)),
            None => Ok(Constraint(matcher)),
        }
    }
}

/// What a schema may say besides its properties that has to do with others.
const OTHERS: [&str; 8] =
    ["additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if"];

/// An object has the properties that its schema lists, unless that says something of others. JSON Schema would let it have any, and
/// small models come to no end with them.
fn close(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let lists = object.get("properties").is_some_and(Value::is_object);
    if lists && !OTHERS.iter().any(|other| object.contains_key(*other)) {
        object.insert("additionalProperties".into(), false.into());
    }
    for (name, inner) in object {
        match (&name[..], inner) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(all)) => {
                all.values_mut().for_each(close);
            }
            ("items" | "additionalProperties", inner @ Value::Object(_)) => close(inner),
            ("prefixItems" | "items", Value::Array(all)) => all.iter_mut().for_each(close),
            // Alternatives that stand beside properties do not have those.
            ("anyOf" | "oneOf", Value::Array(all)) if !lists => all.iter_mut().for_each(close),
            _ => {}
        }
    }
}

/// A schema with how the JSON is to be laid out; a schema says itself by `x-guidance` where it wants that otherwise.
fn schema(value: &Value) -> Value {
    let mut schema = value.clone();
    close(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": BLANKS }));
    }
    schema
}

/// Where an answer is in its form.
pub struct Constraint(Matcher);

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        // Answers in one form are in different places of it, on their way to different ends.
        Self(self.0.deep_clone())
    }
}

impl Constraint {
    /// Takes all tokens out of the logits that may not follow.
    ///
    /// # Errors
    /// The form is too intricate to go on.
    pub fn narrow(&mut self, logits: &mut [f32]) -> Result<(), FormError> {
        let mask = self.0.compute_mask_or_eos().map_err(|error| FormError::of(&error))?;
        let words = mask.as_slice();
        for (logits, word) in logits.chunks_mut(32).zip(words.iter().chain(std::iter::repeat(&0))) {
            match *word {
                u32::MAX => {}
                0 => logits.fill(NEVER),
                word => {
                    let out = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    out.for_each(|(_, logit)| *logit = NEVER);
                }
            }
        }
        Ok(())
    }

    /// Takes the token that was drawn; whether the form is complete, and nothing can follow.
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn push(&mut self, token: u32) -> Result<bool, FormError> {
        self.0.consume_token(token).map_err(|error| FormError::of(&error))?;
        Ok(self.0.is_stopped())
    }
}

/// The tokenizer, as the library wants it.
struct Environment {
    trie: TokTrie,
    tokenizer: &'static Tokenizer<'static>,
}

/// Longer tokens are not in the tables, and never drawn in an answer that has a form.
const TOKEN_BYTES_MAX: usize = 1000;

impl Environment {
    fn new(tokenizer: &'static Tokenizer<'static>) -> Result<Self, FormError> {
        let vocab = tokenizer.vocabulary();
        let eos = &vocab.header().eos;
        let Some(first) = eos.first() else {
            return Err(FormError("no token of this model ends a text, so no answer can have a form".into()));
        };
        let words: Vec<Vec<u8>> = (0..vocab.vocab_size()).map(|id| word(vocab, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab.vocab_size(), *first), &words);
        Ok(Self { trie: trie.with_eos_tokens(eos), tokenizer })
    }
}

/// The bytes of a token; those of one that means something to the model besides its text are marked.
fn word(vocab: &Vocabulary<'_>, id: u32) -> Vec<u8> {
    let bytes = vocab.bytes(id).filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX).unwrap_or_default();
    if is_control(vocab, id) { [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat() } else { bytes.to_vec() }
}

/// Whether a token is no text: it ends or begins something.
pub fn is_control(vocab: &Vocabulary<'_>, id: u32) -> bool {
    let header = vocab.header();
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.trim().chars().nth(1).is_none());
    header.bos == Some(id) || header.is_eos(id) || header.is_special(id) && !vocab.bytes(id).is_some_and(is_text)
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        // A tokenizer that puts a blank before every text, and the beginning of a character, are of no use here.
        let tokens = self.tokenizer.encode(bytes, EncodeOptions { start: false, special: false });
        let is_same = |tokens: &Vec<u32>| {
            let vocab = self.tokenizer.vocabulary();
            tokens.iter().flat_map(|id| vocab.bytes(*id).unwrap_or_default()).eq(bytes)
        };
        tokens.ok().filter(is_same).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::chat::tests::{Tokens, lasting};
    use dair_core::text::{Candidate, Sampler};
    use jsonschema::validator_for;

    /// A tokenizer with marks that are tokens, and words.
    pub fn tokenizer() -> &'static Tokenizer<'static> {
        let regular = [" \"", "\":", "{\"", "\"}", "true", "name", "the", ", "];
        lasting(&Tokens { regular: &regular, special: &["<s>", "</s>", "<tool_call>", "</tool_call>"], eos: 1 })
    }

    /// What a model says that is as likely to say one thing as another, and whether it came to an end.
    pub fn chatter(tokenizer: &Tokenizer<'_>, mut constraint: Constraint, seed: u64) -> (String, bool) {
        let vocab = tokenizer.vocabulary();
        let mut sampler = Sampler::new(1.0, 1.0, seed).unwrap();
        let mut candidates = vec![Candidate::default(); vocab.vocab_size() as usize];
        let mut ids = Vec::new();
        while ids.len() < 2000 {
            let mut logits = vec![0.0; vocab.vocab_size() as usize];
            constraint.narrow(&mut logits).unwrap();
            let token = sampler.sample(&mut logits, &ids, &mut candidates).unwrap();
            ids.push(token);
            if constraint.push(token).unwrap() || vocab.header().is_eos(token) {
                let text: Vec<u8> = ids
                    .iter()
                    .filter(|id| !vocab.header().is_eos(**id))
                    .flat_map(|id| vocab.bytes(*id).unwrap())
                    .copied()
                    .collect();
                return (String::from_utf8(text).unwrap(), true);
            }
        }
        (tokenizer.decode_text(&ids), false)
    }

    #[test]
    fn whatever_a_model_says_is_json_of_the_schema() {
        let tokenizer = tokenizer();
        let forms = Forms::new(tokenizer).unwrap();
        let schemas = [
            json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0,
                "maximum": 150}, "on": {"type": "boolean"}}, "required": ["name", "age"], "additionalProperties": false}),
            json!({"type": "array", "items": {"enum": ["a", "b", 3, null]}, "minItems": 1, "maxItems": 4}),
            json!({"anyOf": [{"type": "null"}, {"type": "object", "properties": {"at": {"type": "string", "format": "date"}},
                "required": ["at"], "additionalProperties": false}]}),
        ];
        for schema in schemas {
            let validator = validator_for(&schema).unwrap();
            let constraint = forms.read(&Form::Schema(schema.clone()), None).unwrap();
            for seed in 0..40 {
                let (text, is_over) = chatter(tokenizer, constraint.clone(), seed);
                let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                assert!(is_over && validator.is_valid(&value), "{text}");
            }
        }
    }

    #[test]
    fn objects_have_the_properties_that_are_listed() {
        let mut schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}, "c": {"type": "array", "items": {"properties": {}}},
            "d": {"properties": {"e": {}}, "additionalProperties": true}, "f": {"const": {"properties": {}}},
            "g": {"anyOf": [{"properties": {}}, {"type": "null"}]}}, "$defs": {"b": {"properties": {"x": {"type": "integer"}}}}});
        close(&mut schema);
        let closed = |path: &str| schema.pointer(path).unwrap().get("additionalProperties") == Some(&json!(false));
        for path in ["", "/$defs/b", "/properties/c/items", "/properties/g/anyOf/0"] {
            assert!(closed(path), "{path} in {schema}");
        }
        for path in ["/properties/d", "/properties/f/const", "/properties/g", "/properties/a"] {
            assert!(!closed(path), "{path} in {schema}");
        }
    }

    #[test]
    fn texts_match_expressions_choices_and_grammars() {
        let tokenizer = tokenizer();
        let forms = Forms::new(tokenizer).unwrap();
        for seed in 0..20 {
            let say = |form: Form, mark: Option<&str>| chatter(tokenizer, forms.read(&form, mark).unwrap(), seed).0;
            let version = say(Form::Regex(r"v[0-9]{1,3}\.[0-9]".into()), None);
            assert!(version.starts_with('v') && version.contains('.'), "{version}");
            let choice = say(Form::one_of(&["the first".into(), "an \"other\"".into()]), None);
            assert!(["the first", "an \"other\""].contains(&&choice[..]), "{choice}");
            assert!(["ab", "abab"].contains(&&say(Form::Grammar("start: x x?\nx: \"ab\"".into()), None)[..]));
            // Behind reasoning, which ends with a mark.
            let thought = say(Form::one_of(&["yes".into()]), Some("</tool_call>"));
            assert!(thought.contains("</tool_call>") && thought.ends_with("yes"), "{thought}");
            let thought = say(Form::one_of(&["yes".into()]), Some("e"));
            assert!(thought.ends_with("yes"), "{thought}");
        }
    }

    #[test]
    fn a_form_that_is_none_is_refused_in_one_line() {
        let forms = Forms::new(tokenizer()).unwrap();
        for form in [
            Form::Schema(json!({"type": "elephant"})),
            Form::Schema(json!({"$ref": "https://elsewhere.example/schema"})),
            Form::Schema(json!({"type": "string", "pattern": "("})),
            Form::Regex("(".into()),
            Form::Grammar("start: x".into()),
            Form::Grammar("no grammar at all".into()),
            Form::Grammar("start: %json {".into()),
        ] {
            let error = forms.read(&form, None).unwrap_err().to_string();
            assert!(
                !error.is_empty() && error.lines().count() == 1 && error.chars().count() <= LINE_MAX,
                "{form:?}: {error}"
            );
        }
    }
}
