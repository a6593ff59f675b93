//! `tokenizer.model` of a Hugging Face folder.

#![no_main]

use dair_fuzz::convert::Place;
use std::cell::LazyCell;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::hugging_face(&["tokenizer.json"]));
}

dair_fuzz::target!(32 << 20, 1 << 10, |bytes| {
    PLACE.with(|place| {
        place.put("tokenizer.model", bytes);
        place.convert();
    });
});
