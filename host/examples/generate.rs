//! Answers a question on this machine, and prints the answer as it comes.
//!
//!     cargo run --release --example generate -- smollm2.m 'What is the capital of France?'

use dair_host::chat::conversation::{Message, Role};
use dair_host::cluster::options::Options;
use dair_host::llm::{Llm, LlmError, Wish};
use std::io::Write;

fn main() -> Result<(), LlmError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(question)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: generate MODEL.m QUESTION");
        std::process::exit(2);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let llm = Llm::load(model.as_ref(), &Options::alone(threads))?;
    for piece in llm.chat(&[Message::new(Role::User, question)], Wish::default())? {
        print!("{}", piece?);
        let _ = std::io::stdout().flush();
    }
    println!();
    Ok(())
}
