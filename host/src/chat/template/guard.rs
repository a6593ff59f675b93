//! What a message says never becomes a control token.
//!
//! Before a template runs, a guard character is put into whatever is spelled like a control token in the messages: behind
//! its first character, so that a template still cuts, trims and compares them as ever. What the template itself writes has
//! no guard. So a special token in the rendered text is the template's, and guards are dropped where the text is encoded.

use crate::chat::special::SpecialTexts;
use minijinja::Value;
use minijinja::value::ValueKind;

/// Texts that models write around parts of their answers. Templates look for them in what the assistant said, and there
/// they are the tokens that the model sampled.
const KEPT: [&str; 10] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "[THINK]",
    "[/THINK]",
    "[TOOL_CALLS]",
    "<|python_tag|>",
];

/// Deepest nesting of messages and tools. JSON files are refused before that.
const MAX_DEPTH: usize = 128;

/// Characters that may be guards: those that Unicode keeps for a program's own use come first, then the private ones.
fn candidates() -> impl Iterator<Item = char> {
    ('\u{FDD0}'..='\u{FDEF}').chain('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}')
}

/// Messages and tools, made safe.
#[derive(Debug)]
pub struct Guarded {
    /// The messages.
    pub messages: Value,
    /// The tools.
    pub tools: Option<Value>,
    /// The guard, if there is one in them.
    pub guard: Option<char>,
}

/// Puts a guard into everything that spells a control token; `None` where no character is left to be one.
pub fn guard(messages: &Value, tools: Option<&Value>, control: &SpecialTexts<'_>) -> Option<Guarded> {
    let mut spelled = false;
    let mut used = std::collections::BTreeSet::new();
    let mut look = |text: &str| {
        spelled |= (0..text.len()).any(|i| control.at(&text.as_bytes()[i..]).is_some());
        used.extend(text.chars().filter(|c| *c >= '\u{FDD0}'));
    };
    visit(messages, 0, &mut look);
    tools.into_iter().for_each(|tools| visit(tools, 0, &mut look));
    let guard = candidates().find(|c| !used.contains(c))?;
    if !spelled {
        return Some(Guarded { messages: messages.clone(), tools: tools.cloned(), guard: None });
    }
    let guards = Guards { control, guard };
    Some(Guarded {
        messages: guards.messages(messages),
        tools: tools.map(|tools| guards.value(tools, &[], 0)),
        guard: Some(guard),
    })
}

fn visit(value: &Value, depth: usize, look: &mut impl FnMut(&str)) {
    match value.kind() {
        ValueKind::String => look(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Map if depth < MAX_DEPTH => {
            for item in value.try_iter().into_iter().flatten() {
                if value.kind() == ValueKind::Map {
                    visit(&value.get_item(&item).unwrap_or_default(), depth + 1, look);
                }
                visit(&item, depth + 1, look);
            }
        }
        _ => {}
    }
}

struct Guards<'g> {
    control: &'g SpecialTexts<'g>,
    guard: char,
}

impl Guards<'_> {
    fn messages(&self, messages: &Value) -> Value {
        if messages.kind() != ValueKind::Seq {
            return self.value(messages, &[], 0);
        }
        let message = |message: Value| {
            let role = message.get_attr("role").unwrap_or_default();
            let kept = if role.as_str() == Some("assistant") { &KEPT[..] } else { &[] };
            self.value(&message, kept, 1)
        };
        messages.try_iter().into_iter().flatten().map(message).collect()
    }

    fn value(&self, value: &Value, kept: &[&str], depth: usize) -> Value {
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), kept).into(),
            ValueKind::Seq | ValueKind::Map if depth >= MAX_DEPTH => Value::UNDEFINED,
            ValueKind::Seq => {
                value.try_iter().into_iter().flatten().map(|item| self.value(&item, kept, depth + 1)).collect()
            }
            ValueKind::Map => Value::from_pairs(value.try_iter().into_iter().flatten().map(|key| {
                let inner = value.get_item(&key).unwrap_or_default();
                (self.value(&key, &[], depth + 1), self.value(&inner, kept, depth + 1))
            })),
            _ => value.clone(),
        }
    }

    fn text(&self, text: &str, kept: &[&str]) -> String {
        let mut guarded = String::with_capacity(text.len());
        for (i, c) in text.char_indices() {
            guarded.push(c);
            let rest = &text[i..];
            if self
                .control
                .at(rest.as_bytes())
                .is_some_and(|(special, _)| !kept.iter().any(|k| k.as_bytes() == special))
            {
                guarded.push(self.guard);
            }
        }
        guarded
    }
}
