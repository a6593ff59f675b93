//! A wire of a given length for `benches/lab.py`: `delay MS A:B…` sends every Ethernet frame that comes to interface A
//! on B after MS milliseconds, and the other way round. Linux, root. It ends when it is killed.
//!
//! The kernel's netem does the same, where there is one.

#[cfg(any(target_os = "linux", test))]
mod queue;

#[cfg(target_os = "linux")]
mod relay;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(args: &[String]) -> Result<(), String> {
    let usage = || "usage: delay MILLISECONDS A:B…, pairs of interfaces".to_string();
    let (ms, pairs) = args.split_first().ok_or_else(usage)?;
    let ms = ms.parse::<f64>().ok().filter(|ms| (0.0..=10_000.0).contains(ms)).ok_or_else(usage)?;
    let pairs: Vec<_> = pairs.iter().filter_map(|pair| pair.split_once(':')).collect();
    if pairs.is_empty() || pairs.len() + 1 != args.len() {
        return Err(usage());
    }
    relay::relay(std::time::Duration::from_secs_f64(ms / 1e3), &pairs)
}

#[cfg(not(target_os = "linux"))]
fn run(_: &[String]) -> Result<(), String> {
    Err("delay wants Linux".into())
}
