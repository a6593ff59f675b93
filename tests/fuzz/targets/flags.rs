//! Values of flags: addresses, sizes, names of instruction sets.

#![no_main]

use dair_host::machine::cpu::parse_isa;
use dair_host::machine::memory::{Budget, parse_bytes};
use dair_host::net::{Address, WorkerAddress, printable};

dair_fuzz::target!(1 << 20, 64, |bytes| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        address.is_loopback();
    }
    if let Ok(worker) = text.parse::<WorkerAddress>() {
        assert_eq!(worker.is_dllama, text.starts_with("dllama://"));
    }
    if let Ok(bytes) = parse_bytes(text) {
        assert!(bytes > 0);
        assert_eq!(parse_bytes(&format!("{bytes}")), Ok(bytes));
    }
    if let Ok(Budget::Share(share)) = text.parse() {
        assert!(share > 0.0 && share <= 1.0);
    }
    let _ = parse_isa(text).map_err(|error| error.to_string());
    assert!(!printable(text).contains(char::is_control));
});
