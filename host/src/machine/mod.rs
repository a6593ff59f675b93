//! What the operating system is asked: processors, memory, disk, threads, terminals.

pub mod arena;
pub mod cores;
pub mod cpu;
pub mod cpu_name;
pub mod disk;
pub mod file;
pub mod memory;
#[cfg(feature = "tls")]
pub mod pem;
pub mod pool;
pub mod priority;
pub mod service;
pub mod speed;
#[cfg(target_os = "macos")]
pub mod sysctl;
pub mod terminal;
