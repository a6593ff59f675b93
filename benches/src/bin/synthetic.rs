//! Writes a synthetic model of a named shape, and its tokenizer beside it: `synthetic SHAPE OUT.m [f32|f16|q40|q80]`.

use dair_core::quant::DType;
use dair_host::synthetic::{PRESETS, preset, write_model, write_tokenizer};
use std::path::Path;
use std::process::ExitCode;

const SEED: u64 = 1;

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

fn run(args: &[String]) -> Result<(), String> {
    let ([shape, out] | [shape, out, _]) = args else {
        let shapes: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        return Err(format!("usage: synthetic SHAPE OUT.m [f32|f16|q40|q80]; shapes: {}", shapes.join(" ")));
    };
    let mut header = preset(shape).ok_or_else(|| format!("unknown shape {shape}"))?;
    if let Some(name) = args.get(2) {
        let dtype = DType::ALL.into_iter().find(|dtype| dtype.name() == name);
        header.weights = dtype.ok_or_else(|| format!("unknown type {name}"))?;
    }
    let out = Path::new(out);
    let bytes = write_model(out, &header, SEED).map_err(|error| format!("{}: {error}", out.display()))?;
    let tokenizer = out.with_extension("t");
    write_tokenizer(&tokenizer, header.vocab_size).map_err(|error| format!("{}: {error}", tokenizer.display()))?;
    println!("{}: {:.1} MB", out.display(), bytes as f64 / 1e6);
    Ok(())
}
