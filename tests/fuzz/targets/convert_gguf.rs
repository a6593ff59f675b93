//! A whole GGUF file, converted.

#![no_main]

use dair_fuzz::convert::Place;
use std::cell::LazyCell;
use std::fs;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::file("in.gguf"));
}

dair_fuzz::target!(32 << 20, 1 << 10, |bytes| {
    PLACE.with(|place| {
        fs::write(&place.input, bytes).expect("room for the input");
        place.convert();
    });
});
