//! `tokenizer_config.json`, `generation_config.json` and the index of tensors, a NUL between them.

#![no_main]

use dair_fuzz::convert::Place;
use std::cell::LazyCell;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::hugging_face(&[]));
}

dair_fuzz::target!(32 << 20, 1 << 10, |bytes| {
    PLACE.with(|place| {
        let [tokenizer, generation, index] = dair_fuzz::parts(bytes);
        place.put("tokenizer_config.json", tokenizer);
        place.put("generation_config.json", if generation.is_empty() { b"{}" } else { generation });
        let map = if index.is_empty() { &br#"{"weight_map": {"": "model.safetensors"}}"#[..] } else { index };
        place.put("model.safetensors.index.json", map);
        place.convert();
    });
});
