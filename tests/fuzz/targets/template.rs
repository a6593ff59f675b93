//! A chat template and what a user says, a NUL between them.

#![no_main]

use dair_core::format::tokenizer::TokenizerFile;
use dair_core::text::{EncodeOptions, Vocabulary};
use dair_fuzz::convert::Place;
use dair_host::chat::template::{self, Context};
use dair_host::chat::tokenizer::Tokenizer;
use dair_host::synthetic;
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;
use std::cell::LazyCell;
use std::fs;

struct Room {
    place: Place,
    tokenizer: Tokenizer<'static>,
}

impl Room {
    fn new() -> Self {
        let bytes = synthetic::tokenizer_bytes(synthetic::MIN_VOCAB_SIZE).leak();
        let file = TokenizerFile::parse(bytes).expect("a tokenizer that was written");
        let index = vec![0; Vocabulary::index_len(file.header().vocab_size)].leak();
        let tokenizer = Tokenizer::new(&file, index).expect("a tokenizer that was written");
        Self { place: Place::file("template.jinja"), tokenizer }
    }
}

thread_local! {
    static ROOM: LazyCell<Room> = LazyCell::new(Room::new);
}

// What fuel allows a rendering: 64 MiB of text, and lists of values that are not text.
dair_fuzz::target!(224 << 20, 1 << 12, |bytes| {
    ROOM.with(|room| {
        let [source, said] = dair_fuzz::parts(bytes);
        fs::write(&room.place.input, source).expect("room for the input");
        let vocab = room.tokenizer.vocabulary();
        let path = room.place.input.to_str().expect("a path of letters");
        let template = match template::open(path, Some(vocab)) {
            Ok(template) => template,
            Err(error) => return drop(error.to_string()),
        };
        let said = String::from_utf8_lossy(said);
        let messages = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": said},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi", "tool_calls": [
                {"type": "function", "id": "abcdefghi", "function": {"name": "f", "arguments": {"x": [1, 2.5, null, true]}}}]},
            {"role": "user", "content": "2+2?"},
        ]);
        let tools = json!([{"type": "function", "function": {"name": "f", "description": said, "parameters": {}}}]);
        for (tools, think) in [(None, None), (Some(tools), Some(false))] {
            let context = Context {
                messages: Value::from(Serde(&messages)),
                tools: tools.map(|tools| Value::from(Serde(tools))),
                think,
                add_generation_prompt: true,
            };
            match template.render(context, Some(vocab)) {
                Ok(rendered) if rendered.text.len() < 10_000 => {
                    let ids = room.tokenizer.encode_rendered(&rendered).expect("bytes are tokens here");
                    // What is left of a text without its guard is what its tokens stand for.
                    let plain = rendered.plain();
                    let again = room.tokenizer.encode(plain.as_bytes(), EncodeOptions { start: false, special: false });
                    let both = [ids, again.expect("bytes are tokens here")].map(|ids| text(vocab, &ids));
                    assert_eq!(both, [plain.as_bytes(), plain.as_bytes()]);
                }
                Ok(_) => {}
                Err(error) => drop(error.to_string()),
            }
        }
    });
});

fn text(vocab: &Vocabulary<'_>, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| vocab.bytes(*id).expect("an id of the vocabulary").iter().copied()).collect()
}
