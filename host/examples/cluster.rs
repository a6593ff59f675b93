//! Fills in a form for each of some texts, all at a time, with the help of workers, which have the same model file.
//!
//!     host-worker --model smollm2.m &
//!     cargo run --release --example cluster -- smollm2.m 127.0.0.1:9990

use dair_host::chat::conversation::{Message, Role};
use dair_host::chat::grammar::Form;
use dair_host::cluster::options::Options;
use dair_host::llm::{Llm, Wish};
use serde_json::json;
use std::error::Error;

const TEXTS: [&str; 3] = ["Anna is 31 and lives in Oslo.", "Bob, 54, Lima.", "In Kyoto lives Chie; she is 12."];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: cluster MODEL.m [WORKER:PORT …]")?;
    let workers = arguments.map(|worker| worker.parse()).collect::<Result<Vec<_>, _>>()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let llm = Llm::load(model.as_ref(), &Options { workers, slots: TEXTS.len() as u32, ..Options::alone(threads) })?;
    let person = json!({
        "type": "object", "required": ["name", "age", "city"], "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "city": { "type": "string", "maxLength": 20 },
        },
    });
    let ask = |text: &str| {
        let message = Message::new(Role::User, format!("Name, age and city in this text, as JSON: {text}"));
        llm.chat(&[message], Wish { temperature: 0.0, form: Some(Form::Schema(person.clone())), ..Wish::default() })
    };
    // All are asked before the first answer is read: they are computed together.
    let answers = TEXTS.iter().map(|text| ask(text)).collect::<Result<Vec<_>, _>>()?;
    for (text, answer) in TEXTS.iter().zip(answers) {
        println!("{text}\n  {}", answer.collect::<Result<String, _>>()?);
    }
    Ok(())
}
