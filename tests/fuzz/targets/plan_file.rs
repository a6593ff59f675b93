//! A plan in a file: what is read is what a written one has.

#![no_main]

use dair_fuzz::convert::Place;
use dair_host::cluster::planner::file::SavedPlan;
use dair_host::synthetic::preset;
use std::cell::LazyCell;
use std::fs;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::file("plan.json"));
}

dair_fuzz::target!(1 << 20, 256, |bytes| {
    PLACE.with(|place| {
        let (path, header) = (&place.input, preset("tiny-llama").expect("a preset"));
        fs::write(path, bytes).expect("room for the input");
        match SavedPlan::read(path, &header) {
            Ok(plan) => {
                plan.write(path).expect("room for the plan");
                assert_eq!(SavedPlan::read(path, &header).expect("a plan that was written"), plan);
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    });
});
