//! `tokenizer.json` of a Hugging Face folder.

#![no_main]

use dair_fuzz::convert::Place;
use std::cell::LazyCell;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::hugging_face(&[]));
}

dair_fuzz::target!(96 << 20, 1 << 10, |bytes| {
    PLACE.with(|place| {
        place.put("tokenizer.json", bytes);
        place.convert();
    });
});
