//! A list of workers in a file: what is read is in the list once, and can be called.

#![no_main]

use dair_fuzz::convert::Place;
use dair_host::cluster::nodes_file;
use std::cell::LazyCell;
use std::collections::HashSet;
use std::fs;

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| Place::file("nodes"));
}

dair_fuzz::target!(1 << 20, 256, |bytes| {
    PLACE.with(|place| {
        fs::write(&place.input, bytes).expect("room for the input");
        match nodes_file::read(&place.input) {
            Ok(workers) => {
                let different: HashSet<_> = workers.iter().map(|worker| &worker.address).collect();
                assert!(different.len() == workers.len() && !workers.is_empty());
                for worker in &workers {
                    assert_eq!(worker.address.to_string().parse().as_ref(), Ok(&worker.address));
                }
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    });
});
