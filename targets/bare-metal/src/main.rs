//! How to embed core: a machine without an operating system reads a prompt from its serial line and continues it, by the
//! tokens of `dair generate --temperature 0` on any other machine. `board.rs` and the two files beside it are what a
//! machine has; another one needs others, and this file as it is.
#![no_std]
#![no_main]

mod board;

use board::{fail, take};
use core::fmt::{Display, Write};
use dair_core::exec::{Batch, Engine, Logits, Program, Rooms, Run};
use dair_core::format::{Header, Layout, tokenizer::TokenizerFile};
use dair_core::graph::{Table, Tables};
use dair_core::io::{Alone, Serial};
use dair_core::kernels::KvType;
use dair_core::plan::{self, Cut};
use dair_core::text::{Decoder, EncodeOptions, Sampler, Vocabulary, encode_scratch_len};

/// Tokens of the prompt that are computed together. More are faster, and take more memory.
const BATCH: usize = 16;
const MAX_PROMPT_BYTES: usize = 1024;
const MAX_TOKENS: usize = 64;

/// Where something is wrong, nobody is there to try something else: a line says what, and that is all.
trait OrFail<T> {
    fn or_fail(self) -> T;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_fail(self) -> T {
        self.unwrap_or_else(|error| fail(error))
    }
}

macro_rules! say {
    ($($text:tt)*) => { write!(board::Uart, $($text)*).or_fail() };
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // Bytes become checked values; after this, nothing in flash is doubted any more.
    let (model, tokenizer) = files(board::flash()).or_fail();
    let header = Header::parse(model).or_fail();
    let layout = Layout::new(&header).or_fail();
    layout.check_file(model.len() as u64).or_fail();
    let tokenizer = TokenizerFile::parse(tokenizer).or_fail();
    let (tokens, rows) = (tokenizer.header().vocab_size, header.vocab_size);
    if tokens > rows {
        fail(format_args!("flash: a tokenizer of {tokens} tokens does not belong to a model of {rows}"));
    }
    let vocab = Vocabulary::new(&tokenizer, take("the vocabulary", Vocabulary::index_len(tokens)));

    // The graph of a machine that computes alone. Core says how large each table is, and whose memory it is, is up to us.
    let cut = Cut { batch_max: BATCH as u32, ..Cut::single(&header) };
    let sizes = cut.sizes(&header);
    let tables = Tables {
        pipes: Table::new(take("pipes", sizes.pipes)),
        buffers: Table::new(take("buffers", sizes.buffers)),
        segments: Table::new(take("segments", sizes.segments)),
        ops: Table::new(take("ops", sizes.ops)),
        syncs: Table::new(take("syncs", sizes.syncs)),
        bounds: Table::new(take("bounds", sizes.bounds)),
    };
    let graph = plan::build(&layout, &cut, 0, tables).or_fail();

    // Checked once and laid out: the arena is all that a pass ever writes to. Keys and values are in it.
    let (places, steps) = (take("places", Program::places_len(&graph)), take("steps", graph.ops.len()));
    let program = Program::new(&graph, layout.file_bytes(), KvType::F16, 1, Rooms { places, steps }).or_fail();
    let (arena_bytes, cache_bytes) = (program.arena_bytes(), program.cache_bytes());
    let arena = take("the arena, KV cache included,", arena_bytes);

    // The three doors to the outside: flash is a slice, and a slice is a `Storage`; `Serial` is a `Pool` of one lane; `Alone`
    // are the `Links` of a machine without others.
    let kernels = board::kernels();
    let mut engine = Engine::new(&program, model, &Serial, kernels, arena);
    say!(
        "{} of {} layers, {} weights, {} kernels\n",
        header.arch.name(),
        header.n_layers,
        header.weights,
        kernels.isa()
    );
    say!("arena of {arena_bytes} bytes, of them {cache_bytes} for {} positions\n", program.seq_len());

    // Text to tokens by the rule that core has; models' own tokenizers, which take tables of any size, are in the host.
    let prompt = read_line(take("a prompt", MAX_PROMPT_BYTES));
    let scratch = take("the tokens of a prompt", encode_scratch_len(prompt.len()));
    let prompt = vocab.encode(prompt, EncodeOptions { start: true, special: true }, scratch).or_fail();
    if prompt.is_empty() {
        fail("an empty prompt, and a tokenizer that puts nothing before it: there is nothing to continue");
    }

    // At temperature 0 the most probable token is the next one; the other two numbers do not matter then.
    let mut sampler = Sampler::new(0.0, 1.0, 0).or_fail();
    let candidates = take("the sampler", Sampler::scratch_len(rows));
    let answer: &mut [u32] = take("the answer", MAX_TOKENS);
    let (mut decoder, mut position, mut len) = (Decoder::new(), 0, 0);
    // What was not computed yet: the prompt, then one token after the other.
    let mut rest = prompt;
    let mut token: [u32; 1];
    loop {
        for tokens in rest.chunks(BATCH) {
            let run = Run::new(position, tokens.len() as u32, Logits::Last);
            engine.forward(&mut Alone, Batch { runs: &[run], tokens }).or_fail();
            position += run.rows;
        }
        token = [sampler.sample(engine.last_logits(), &[], candidates).or_fail()];
        rest = &token;
        answer[len] = token[0];
        len += 1;
        decoder.push(&vocab, token[0], &mut board::Uart).or_fail();
        if len == MAX_TOKENS || vocab.header().is_eos(token[0]) || position == program.seq_len() {
            break;
        }
    }
    decoder.flush(&mut board::Uart).or_fail();
    say!("\ntokens:");
    answer[..len].iter().for_each(|token| say!(" {token}"));
    say!("\n");
    board::off(0)
}

/// Model and tokenizer in flash, where flash.sh put them: behind 64 bytes of text that say how long they are.
fn files(flash: &'static [u8]) -> Result<(&'static [u8], &'static [u8]), &'static str> {
    let (text, files) = flash.split_at(64);
    let mut words = str::from_utf8(text).unwrap_or_default().split_ascii_whitespace();
    let is_ours = words.next() == Some("dair-flash");
    let mut bytes = words.map_while(|word| word.parse::<usize>().ok());
    let (true, Some(model), Some(tokenizer)) = (is_ours, bytes.next(), bytes.next()) else {
        return Err("flash: it does not begin as flash.sh has it; make an image, and start again with it");
    };
    let split = files.split_at_checked(model).and_then(|(model, rest)| Some((model, rest.get(..tokenizer)?)));
    split.ok_or("flash: the files that its first line tells of are longer than it is; make the image again")
}

/// What is typed up to the end of the line, shown as it comes.
fn read_line(line: &mut [u8]) -> &[u8] {
    say!("> ");
    for len in 0..line.len() {
        match board::Uart.read() {
            b'\r' | b'\n' => {
                say!("\n");
                return &line[..len];
            }
            byte => {
                line[len] = byte;
                board::Uart.write(byte);
            }
        }
    }
    fail(format_args!("a prompt of {} bytes or more", line.len()))
}
