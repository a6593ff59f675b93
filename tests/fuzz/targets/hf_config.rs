//! `config.json` of a Hugging Face folder whose tensors and tokens stay.

#![no_main]

use dair_fuzz::convert::Place;
use std::cell::LazyCell;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::hugging_face(&[]));
}

dair_fuzz::target!(32 << 20, 1 << 10, |bytes| {
    PLACE.with(|place| {
        place.put("config.json", bytes);
        place.convert();
    });
});
