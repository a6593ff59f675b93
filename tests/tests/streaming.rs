//! Weights that are streamed give the bits of weights that are mapped, whatever of them is kept, and faults of the disk are errors.

use dair_core::exec::{Batch, Engine, Failure, Logits, Run};
use dair_core::graph::Graph;
use dair_core::io::{Alone, Pool};
use dair_core::kernels::KvType;
use dair_host::machine::arena::ArenaMemory;
use dair_host::machine::cpu::best_kernels;
use dair_host::machine::pool::Threads;
use dair_host::storage::stream::{DirectFile, Figures, Grain, Plan, Source, Stamp, Stream, StreamError};
use dair_host::synthetic::model_bytes;
use dair_tests::models::{self, Case};
use dair_tests::random::{Random, tokens};
use dair_tests::run::{assert_same_bits, feed, logits, with_program};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SEED: u64 = 7;
/// Batches of a sequence: some ask for no logits, which leaves the output matrix out.
const BATCHES: [usize; 4] = [5, 1, 3, 1];
const TOKENS: usize = 23;

/// A file in memory, with faults.
#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    faults: Mutex<Option<(Random, Fault)>>,
    /// Changes with every change of the content.
    version: AtomicU64,
    delay: Duration,
}

/// What goes wrong, at every tenth read.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The system reports an error.
    Error,
    /// The file ends where this piece of it begins.
    Short,
}

/// A disk that a test keeps a hand on.
#[derive(Clone, Debug)]
struct Held(Arc<Disk>);

impl std::ops::Deref for Held {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.0
    }
}

impl Source for Held {
    fn read(&self, at: u64, memory: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(self.delay);
        let is_hit = |(random, fault): &mut (Random, Fault)| (random.below(10) == 0).then_some(*fault);
        match self.faults.lock().unwrap().as_mut().and_then(is_hit) {
            Some(Fault::Error) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Short) => return Ok(0),
            None => {}
        }
        let start = (at as usize).min(self.bytes.len());
        let some = &self.bytes[start..self.bytes.len().min(start + memory.len())];
        memory[..some.len()].copy_from_slice(some);
        Ok(some.len())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let version = self.version.load(Ordering::Relaxed);
        Ok(Stamp { bytes: self.bytes.len() as u64, modified: (version as i64, 0) })
    }

    fn path(&self) -> &Path {
        Path::new("disk.m")
    }
}

fn disk(bytes: &[u8]) -> Held {
    Held(Arc::new(Disk { bytes: bytes.to_vec(), ..Disk::default() }))
}

fn same() -> Box<dyn Fn() -> io::Result<bool> + Send + Sync> {
    Box::new(|| Ok(true))
}

/// Memory for so many percent of what a graph's weights take, and at least for the least.
fn plan(graph: &Graph<'_>, grain: Grain, percent: u64) -> Plan {
    let least = Plan::least(graph, grain);
    let all = *Plan::new(graph, grain, u64::MAX / 4).figures();
    Plan::new(graph, grain, least.max(all.memory_bytes() * percent / 100))
}

struct Setting<'s> {
    case: &'s Case,
    file: &'s [u8],
    pool: &'s Threads,
}

impl Setting<'_> {
    /// Hands an engine to `body` that streams from `source`.
    fn with<R>(
        &self,
        source: Box<dyn Source>,
        (window, percent): (u64, u64),
        stop: Option<&'static AtomicBool>,
        body: impl FnOnce(&mut Engine<'_, Stream, Threads>, &Stream) -> R,
    ) -> R {
        let Self { case, file, pool } = *self;
        with_program(file, (&case.single(), KvType::default(), 0), pool, |program| {
            let plan = plan(program.graph(), Grain { window, lanes: pool.lanes() }, percent);
            let stream = Stream::new(source, same(), plan, stop).unwrap();
            let mut arena = ArenaMemory::new(program.arena_bytes()).unwrap();
            let mut engine = Engine::new(program, &stream, pool, best_kernels(), &mut arena);
            if let Some(stop) = stop {
                engine.stop_on(stop);
            }
            body(&mut engine, &stream)
        })
    }
}

#[test]
fn streamed_weights_give_the_bits_of_mapped_ones() {
    for case in models::all() {
        let file = model_bytes(&case.header, SEED);
        let tokens = tokens(SEED, TOKENS, case.header.vocab_size);
        let pools = [1, 3].map(|lanes| Threads::new(lanes).unwrap());
        let want = logits(&file, (&case.single(), KvType::default()), (&pools[0], best_kernels()), &tokens, &[1]);
        for (pool, window, percent) in [
            (&pools[0], 4 << 10, 0),
            (&pools[1], 4 << 10, 0),
            (&pools[1], 4 << 10, 50),
            (&pools[1], 16 << 10, 80),
            (&pools[0], 1 << 20, 100),
        ] {
            let what = format!("{}, {} lanes, window {window}, {percent} %", case.name, pool.lanes());
            let setting = Setting { case: &case, file: &file, pool };
            setting.with(Box::new(disk(&file)), (window, percent), None, |engine, stream| {
                let got = feed(engine, &mut Alone, &tokens, 0, &BATCHES);
                assert_same_bits(&got, &want, &what);
                let Figures { pass_bytes, place_bytes, expert_bytes, .. } = *stream.figures();
                let again = stream.reading();
                feed(engine, &mut Alone, &tokens[..1], TOKENS as u32, &[1]);
                let read = stream.reading().since(&again).bytes;
                if percent == 100 {
                    // A row of the embedding is all that is still read.
                    assert!(pass_bytes == 0 && place_bytes >= expert_bytes && read <= 8192, "{what}: {read}");
                } else {
                    assert!(read >= pass_bytes, "{what}: {read} of {pass_bytes}");
                }
            });
        }
    }
}

#[test]
fn a_file_on_a_disk_is_streamed() {
    let case = &models::tiny()[0];
    let file = model_bytes(&case.header, SEED);
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("tiny.m");
    std::fs::write(&path, &file).unwrap();
    let pool = Threads::new(2).unwrap();
    let tokens = tokens(SEED, TOKENS, case.header.vocab_size);
    let want = logits(&file, (&case.single(), KvType::default()), (&pool, best_kernels()), &tokens, &[1]);
    let setting = Setting { case, file: &file, pool: &pool };
    let source = DirectFile::open(&path).unwrap();
    setting.with(Box::new(source), (4 << 10, 30), None, |engine, _| {
        assert_same_bits(&feed(engine, &mut Alone, &tokens, 0, &BATCHES), &want, "from a disk");
    });
}

/// Whatever is read wrongly, and when: an error that names file and place, or the right numbers; and right ones again afterwards.
#[test]
fn faults_are_errors_and_never_wrong_numbers() {
    for name in ["tiny-llama", "tiny-qwen3-moe"] {
        let case = models::tiny().into_iter().find(|case| case.name.starts_with(name)).unwrap();
        let file = model_bytes(&case.header, SEED);
        let pool = Threads::new(3).unwrap();
        let tokens = tokens(SEED, 4, case.header.vocab_size);
        let want = logits(&file, (&case.single(), KvType::default()), (&pool, best_kernels()), &tokens, &[1]);
        let disk = disk(&file);
        let setting = Setting { case: &case, file: &file, pool: &pool };
        setting.with(Box::new(disk.clone()), (4 << 10, 40), None, |engine, _| {
            let (mut failures, mut passes) = (0, 0);
            for seed in 0..60u64 {
                let fault = if seed % 2 == 0 { Fault::Error } else { Fault::Short };
                *disk.faults.lock().unwrap() = Some((Random::new(seed), fault));
                let run = Run::new(0, 4, Logits::All);
                match engine.forward(&mut Alone, Batch { runs: &[run], tokens: &tokens }) {
                    Ok(()) => passes += 1,
                    Err(Failure::Storage(StreamError::Read(path, range, error))) => {
                        assert_eq!((path.to_str(), error.raw_os_error()), (Some("disk.m"), Some(5)));
                        assert!(range.end <= file.len() as u64);
                        failures += 1;
                    }
                    Err(Failure::Storage(StreamError::Short(_, range, end))) => {
                        assert!(end < range.end);
                        failures += 1;
                    }
                    Err(other) => panic!("seed {seed}: {other}"),
                }
                *disk.faults.lock().unwrap() = None;
                assert_same_bits(&feed(engine, &mut Alone, &tokens, 0, &[4]), &want, "after a fault");
            }
            assert!(failures > 10, "{failures} failures, {passes} passes");
        });
    }
}

#[test]
fn a_file_that_looks_changed_is_looked_at_and_one_that_is_changed_is_refused() {
    let case = &models::tiny()[0];
    let file = model_bytes(&case.header, SEED);
    let pool = Threads::new(2).unwrap();
    let disk = disk(&file);
    static IS_SAME: AtomicBool = AtomicBool::new(true);
    with_program(&file, (&case.single(), KvType::default(), 0), &pool, |program| {
        let plan = plan(program.graph(), Grain { window: 4 << 10, lanes: 2 }, 0);
        let is_same = Box::new(|| Ok(IS_SAME.load(Ordering::Relaxed)));
        let stream = Stream::new(Box::new(disk.clone()), is_same, plan, None).unwrap();
        let mut arena = ArenaMemory::new(program.arena_bytes()).unwrap();
        let mut engine = Engine::new(program, &stream, &pool, best_kernels(), &mut arena);
        let mut pass = || {
            let run = Run::new(0, 1, Logits::Last);
            engine.forward(&mut Alone, Batch { runs: &[run], tokens: &[1] })
        };
        pass().unwrap();
        // Touched, or copied over itself.
        disk.version.store(1, Ordering::Relaxed);
        pass().unwrap();
        IS_SAME.store(false, Ordering::Relaxed);
        disk.version.store(2, Ordering::Relaxed);
        // What was read ahead was read before the change.
        let error = (0..3).find_map(|_| pass().err()).unwrap();
        assert!(error.to_string().contains("disk.m was changed while it was in use"), "{error}");
    });
}

/// A wait for a slow disk ends soon after the flag is set, wherever in a pass.
#[test]
fn a_flag_ends_a_sweep_that_waits_for_the_disk() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let case = models::tiny()[0].clone();
    let file = model_bytes(&case.header, SEED);
    let pool = Threads::new(2).unwrap();
    let slow = Held(Arc::new(Disk { bytes: file.clone(), delay: Duration::from_millis(300), ..Disk::default() }));
    let setting = Setting { case: &case, file: &file, pool: &pool };
    setting.with(Box::new(slow), (4 << 10, 0), Some(&STOP), |engine, _| {
        let timer = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            STOP.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let run = Run::new(0, 1, Logits::Last);
        let result = engine.forward(&mut Alone, Batch { runs: &[run], tokens: &[1] });
        let over = Instant::now();
        assert!(matches!(result, Err(Failure::Stopped)), "a pass of many reads takes longer than the flag");
        // Far less than what is left of the pass; the bound is loose for busy machines.
        assert!(over.duration_since(timer.join().unwrap()) < Duration::from_secs(2));
    });
}
