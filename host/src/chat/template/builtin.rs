//! Templates for models whose tokenizer file has none that can be used.

use crate::chat::special::SpecialTexts;

/// A template that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// What `--template` calls it.
    pub name: &'static str,
    /// Its Jinja source.
    pub source: &'static str,
    /// A model's own template that has all of these texts lays messages out like this.
    marks: &'static [&'static str],
    /// A vocabulary that has all of these tokens was trained with it; empty where tokens do not tell.
    tokens: &'static [&'static str],
}

macro_rules! builtin {
    ($name:literal, $marks:expr, $tokens:expr) => {
        Builtin {
            name: $name,
            source: include_str!(concat!("builtin/", $name, ".jinja")),
            marks: &$marks,
            tokens: &$tokens,
        }
    };
}

/// All of them. Where the marks of several are there, the first one counts.
pub const BUILTINS: [Builtin; 13] = [
    builtin!("llama3", ["<|start_header_id|>"], ["<|start_header_id|>", "<|eot_id|>"]),
    builtin!("deepseek3", ["<｜Assistant｜>"], ["<｜User｜>", "<｜Assistant｜>"]),
    builtin!("chatml", ["<|im_start|>"], ["<|im_start|>", "<|im_end|>"]),
    builtin!("gemma", ["<start_of_turn>"], ["<start_of_turn>", "<end_of_turn>"]),
    builtin!("phi3", ["<|assistant|>", "<|end|>"], ["<|user|>", "<|assistant|>", "<|end|>"]),
    builtin!("zephyr", ["<|assistant|>"], []),
    builtin!("mistral-v7", ["[SYSTEM_PROMPT]"], ["[INST]", "[SYSTEM_PROMPT]"]),
    builtin!("llama2", ["[INST]", "<<SYS>>"], []),
    builtin!("mistral-v3", ["[INST] ", "[AVAILABLE_TOOLS]"], []),
    builtin!("mistral-tekken", ["[INST]", "[AVAILABLE_TOOLS]"], []),
    builtin!("mistral", ["[INST]"], []),
    builtin!("vicuna", ["ASSISTANT:"], []),
    builtin!("alpaca", ["### Response:"], []),
];

/// Names of all of them, for messages.
pub fn names() -> String {
    BUILTINS.map(|builtin| builtin.name).join(", ")
}

/// The one of this name, in whichever case.
pub fn of_name(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name.eq_ignore_ascii_case(name))
}

/// The one that lays messages out as this template does, by what it writes.
pub fn of_template(source: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.marks.iter().all(|mark| source.contains(mark)))
}

/// The one with whose tokens a vocabulary was made.
pub fn of_vocabulary(special: &SpecialTexts<'_>) -> Option<&'static Builtin> {
    let has = |token: &&str| special.at(token.as_bytes()).is_some_and(|(text, _)| text == token.as_bytes());
    BUILTINS.iter().find(|builtin| !builtin.tokens.is_empty() && builtin.tokens.iter().all(has))
}
