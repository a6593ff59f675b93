//! Our own dialect: every node has the model file, so that a plan, tokens and activations are all that crosses.
//!
//! ```text
//! root -> worker                      worker -> root                worker -> lower worker
//! CALL                                GREETING, PLAIN, Have
//! Echo, …                             Echo, …
//! Verify                              Hashing, …, Digest or Refused
//! Plan                                Ready or Refused
//! Go                                                                LINK, Link
//!                                     Linked
//! Pass, …                             [activations, see `crate::io::Links`]
//! Rest                                [logits that were not sent before]
//! Copy                                [keys and values of one sequence, to another one]
//! Bye
//! ```
//! Signs of life have a connection of their own, so that they need not wait for passes. It begins when the plan is sent:
//! ```text
//! CALL                                GREETING, Have
//! Watch                               [Refused, where there is no such session]
//! Beat, …                             [Failed, Leaving] Beat, …
//! Bye
//! ```
//! Whoever wants a worker to finish what it does and end, calls it and says `Drain`, which it answers by `Leaving`.
//! A worker that a root is to know of calls that root and says `Join` with its port, which is answered by `Bye`.
//!
//! A message is its length in bytes (u32, of what follows), its kind (u8) and its fields, little-endian; strings carry their
//! length, NUL included. Its length is limited before memory is taken for it, and every field before it is used.
//!
//! With a key, [`SECURED`] stands in the place of [`PLAIN`], and a handshake behind it, by which both sides prove that they know the
//! key; then all that is drawn here is encrypted, with the call once more before it. Behind [`LINK`] the handshake follows at once.
//!
//! Which dialect a worker speaks, a root asks by a datagram with [`CALL`] to the worker's port, which is answered by
//! [`GREETING`]. A connection would end a C++ worker, unless its root goes on as it expects.

use super::bytes::{Reader, cut, put_text, put_u32, put_u64};
use super::dllama::HOST_MAX;
use super::{Fault, Invalid, Part, ReadError};
use crate::exec::{CacheCopy, Logits, PAGE, Run};
use crate::graph::{MAX_BATCH, MAX_NODES, MAX_SLOTS};
use crate::kernels::KvType;
use crate::plan::{Share, Stage};
use crate::quant::DType;
use core::convert::Infallible;
use core::ops::RangeInclusive;
use core::time::Duration;
use embedded_io::{ErrorType, Write};

/// What both sides of a session must have in common: other versions are refused.
pub const VERSION: u32 = 6;

/// First bytes of a root: as no root of the `dllama` dialect begins, whose index is below the number of workers.
pub const CALL: [u8; 8] = *b"\x01\0\0\0dair";
/// First bytes of a link from another worker.
pub const LINK: [u8; 8] = *b"\x01\0\0\0link";
/// First bytes that a worker answers to a [`CALL`].
pub const GREETING: [u8; 4] = *b"DAIR";
/// Behind a [`GREETING`]: what follows is not encrypted.
pub const PLAIN: u8 = 0;
/// Behind a [`GREETING`]: what follows is a handshake by which both sides prove that they know the cluster's key, and then
/// encrypted. Behind a [`LINK`] of such a cluster the handshake follows at once.
pub const SECURED: u8 = 1;

/// Most bytes of a message.
pub const MESSAGE_MAX: u32 = 128 << 10;
/// Most models that a worker tells of.
pub const MODELS_MAX: usize = 64;
/// Longest name of a model in bytes.
pub const NAME_MAX: usize = 255;
/// Most logits of a row that a node may be asked for, where not all are wanted.
pub const BEST_MAX: u32 = 128;
/// Longest text in bytes about whom a worker serves.
pub const BUSY_MAX: usize = 160;
/// Longest reason of a refusal in bytes.
pub const REASON_MAX: usize = 500;
/// Most pages that a message names.
pub const PAGES_MAX: usize = 8000;
/// Longest name of an instruction set in bytes.
pub const ISA_MAX: usize = 31;

/// What a model file is known by.
pub type Fingerprint = [u8; 32];
/// BLAKE3 of a whole model file.
pub type Digest = [u8; 32];

/// What a session is known by: links between workers prove to belong to it.
pub type SessionId = [u8; 16];

/// A model that a worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HasModel {
    /// Of its size, its header and samples of its content.
    pub fingerprint: Fingerprint,
    /// Of its header alone: says what differs where the fingerprint does.
    pub header: Fingerprint,
    /// Of all its bytes, where the worker knows it already.
    pub digest: Option<Digest>,
    /// Bytes of the file.
    pub bytes: u64,
    /// What people call it.
    pub name: heapless::String<NAME_MAX>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// [`VERSION`] of its dialect; where it is another one, nothing else is known.
    pub version: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Bytes of weights per second that it multiplies with one token; 0 if that was not measured.
    pub speed: u64,
    /// Instruction set of its kernels.
    pub isa: heapless::String<ISA_MAX>,
    /// Bytes per second that it reads of its disk; 0 if that was not measured.
    pub disk_speed: u64,
    /// Bytes that it may take for a KV cache, activations and repacked weights.
    pub memory: u64,
    /// Whom it serves, for people; empty while it is free.
    pub busy: heapless::String<BUSY_MAX>,
    /// Its model files.
    pub models: heapless::Vec<HasModel, MODELS_MAX>,
}

/// What all nodes of a session agree on, but for the nodes themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// [`VERSION`] of the root's dialect.
    pub version: u32,
    /// This session.
    pub session: SessionId,
    /// Its number among the sessions of its root.
    pub epoch: u32,
    /// The model.
    pub fingerprint: Fingerprint,
    /// The receiver's place among the nodes; the root is 0.
    pub node: u32,
    /// Nodes.
    pub nodes: u32,
    /// Type of the inputs of products.
    pub activation: DType,
    /// Type in which every node keeps keys and values.
    pub kv: KvType,
    /// Most rows of a pass.
    pub batch_max: u32,
    /// Positions of the KV cache, for each sequence.
    pub seq_len: u32,
    /// Sequences that it has room for.
    pub slots: u32,
    /// Passes of so many rows are computed in two halves, whose exchanges travel while the other one computes.
    pub halve_from: u32,
    /// Whether workers repack weights where they have the memory: it pays where many tokens follow.
    pub repack: bool,
    /// Whether activations in Q80 cross the network in Q40.
    pub lossy: bool,
    /// Where matrices are cut by columns, in equal parts: the type of the partial sums.
    pub columns: Option<DType>,
    /// Which nodes compute which layers; none where all compute all.
    pub stages: heapless::Vec<Stage, { MAX_NODES as usize }>,
}

/// A node of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// What it computes.
    pub share: Share,
    /// Where other workers reach it; of the root, which nobody calls, it counts for nothing.
    pub host: heapless::String<HOST_MAX>,
    /// TCP port.
    pub port: u16,
}

/// A worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Bytes of its KV cache and activations.
    pub arena_bytes: u64,
    /// Bytes of weights that it repacked.
    pub repacked_bytes: u64,
    /// It has a disk for keys and values.
    pub keeps: bool,
}

/// A sign of life. A root asks for it again and again, and a worker answers with what it did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Passes of one row that it computed; of the root 0.
    pub passes: u64,
    /// Microseconds that it computed in them, the waits for other nodes left out; of the root 0.
    pub busy_us: u64,
    /// What all passes took, whatever their rows; of the root nothing.
    pub spent: Spent,
}

/// How the time of passes was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Passes.
    pub passes: u64,
    /// Microseconds of computing.
    pub compute_us: u64,
    /// Microseconds of waiting for other nodes.
    pub exchange_us: u64,
    /// Microseconds of waiting for a disk.
    pub disk_us: u64,
}

impl Spent {
    /// One more pass, which took that long; of it, nodes were waited for, and a disk.
    pub fn add(&mut self, total: Duration, exchange: Duration, disk: Duration) {
        let micros = |time: Duration| time.as_micros() as u64;
        self.passes += 1;
        self.compute_us += micros(total.saturating_sub(exchange).saturating_sub(disk));
        self.exchange_us += micros(exchange);
        self.disk_us += micros(disk);
    }

    /// What is more than in `before`; nothing where another session has begun.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            passes: self.passes.saturating_sub(before.passes),
            compute_us: self.compute_us.saturating_sub(before.compute_us),
            exchange_us: self.exchange_us.saturating_sub(before.exchange_us),
            disk_us: self.disk_us.saturating_sub(before.disk_us),
        }
    }
}

/// A forward pass; the tokens of its rows follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// The session's, as in its [`Plan`]: a pass of another one is not for this graph.
    pub epoch: u32,
    /// Of logits, what the root wants: all of them, or each node's best.
    pub wanted: Wanted,
    /// Rows of each sequence, all together no more than [`MAX_BATCH`].
    pub runs: heapless::Vec<Run, { MAX_BATCH as usize }>,
}

impl Pass {
    /// Rows of all runs.
    pub fn rows(&self) -> u32 {
        self.runs.iter().map(|run| run.rows).sum()
    }
}

/// Which logits of a row a root wants of the other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Wanted {
    /// All of them.
    #[default]
    All,
    /// The best of each node.
    Best(Best),
}

/// The best logits of a node's part of a row: pairs of logit and token, the best first, of equal ones the lower token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// How many, up to [`BEST_MAX`].
    pub count: u32,
    /// Only tokens below this one count: a model may have more rows than tokens.
    pub below: u32,
    /// With what logits are multiplied for the sums over all of them that follow the pairs
    /// ([`Octaves`](crate::text::Octaves)); 0 where none are wanted.
    pub scale: f32,
}

/// How a root watches over a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The session, as in its [`Plan`].
    pub session: SessionId,
    /// Milliseconds of silence after which a root gives a worker up: [`SILENCE_MS`]. A worker waits twice as long, so that it is the
    /// root who knows first.
    pub silence_ms: u32,
}

/// Allowed for [`Watch::silence_ms`]: shorter ones would be missed by a machine that is busy.
pub const SILENCE_MS: RangeInclusive<u32> = 100..=3_600_000;

/// Why a worker can't go on with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The node whose fault it is, as far as this one can tell; itself, too.
    pub node: u32,
    /// For people.
    pub reason: heapless::String<REASON_MAX>,
}

/// What a page of keys and values is known by: all tokens from the first of its sequence to the last of its own, hashed.
pub type PageName = [u8; 16];

/// Pages of a sequence that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages<'p> {
    /// The place of the sequence in the KV cache.
    pub slot: u32,
    /// The first page, of [`PAGE`] positions as all are.
    pub first: u32,
    /// What they are, at most [`PAGES_MAX`].
    pub names: &'p [PageName],
}

/// A message. What may be long stays where it was read.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is no heap here, and few messages are alive at a time
pub enum Message<'m> {
    /// A worker says what it has.
    Have(Have),
    /// A root says who computes what.
    Plan(Plan, PlanNodes<'m>),
    /// A worker can compute its part.
    Ready(Ready),
    /// A worker can't, and says why.
    Refused(heapless::String<REASON_MAX>),
    /// Everybody is ready: link up.
    Go,
    /// All links of a worker are there.
    Linked,
    /// A worker says who it is to another one.
    Link(SessionId, u32),
    /// A root announces a pass.
    Pass(Pass, Tokens<'m>),
    /// Somebody is there.
    Beat(Beat),
    /// The root wants all logits of the last pass after all.
    Rest,
    /// The session ends.
    Bye,
    /// A root wants the digest of the model with this fingerprint.
    Verify(Fingerprint),
    /// A worker reads the file for it: bytes so far.
    Hashing(u64),
    /// A worker knows it.
    Digest(Digest),
    /// To be sent back as it is: how long that takes, says how far away a worker is.
    Echo(&'m [u8]),
    /// A root watches over a session by this connection.
    Watch(Watch),
    /// A worker's session is over, and not because its root has said so.
    Failed(Failed),
    /// A worker is to finish what it does, and to end.
    Drain,
    /// A worker ends when its session does.
    Leaving,
    /// A worker listens on this port of the machine that it calls from.
    Join(u16),
    /// The beginning of a sequence becomes that of another one, before the next pass.
    Copy(CacheCopy),
    /// Every node keeps its part of these pages on its disk, as far as it has room.
    Keep(Pages<'m>),
    /// Every node gets its part of these pages from its disk.
    Restore(Pages<'m>),
    /// A worker has got so many of them, from the first on.
    Restored(u32),
}

const HAVE: u8 = 1;
const PLAN: u8 = 2;
const READY: u8 = 3;
const REFUSED: u8 = 4;
const GO: u8 = 5;
const LINKED: u8 = 6;
const LINKS: u8 = 7;
const PASS: u8 = 8;
const BYE: u8 = 9;
const BEAT: u8 = 10;
const REST: u8 = 11;
const VERIFY: u8 = 12;
const HASHING: u8 = 13;
const DIGEST: u8 = 14;
const ECHO: u8 = 15;
const WATCH: u8 = 16;
const FAILED: u8 = 17;
const DRAIN: u8 = 18;
const LEAVING: u8 = 19;
const JOIN: u8 = 20;
const COPY: u8 = 21;
const KEEP: u8 = 22;
const RESTORE: u8 = 23;
const RESTORED: u8 = 24;

/// Nodes of a plan, each checked when it is read.
#[derive(Clone, Debug)]
pub struct PlanNodes<'m> {
    rest: &'m [u8],
    left: u32,
}

impl Iterator for PlanNodes<'_> {
    type Item = Result<PlanNode, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut read = || {
            let mut reader = Reader::new(&mut self.rest, Part::Message);
            let [layers, head, port] =
                [reader.u16("share of layers")?, reader.u16("share of the head")?, reader.u16("port")?];
            let host = reader.text(["length of a host", "host"], 0)?;
            if self.left == 0 && !self.rest.is_empty() {
                let bytes = self.rest.len() as u64;
                let reader = Reader::new(&mut self.rest, Part::Message);
                return Err(reader.invalid("length", Fault::TooLong { bytes }).into());
            }
            Ok(PlanNode { share: Share { layers, head }, host, port })
        };
        Some(read().map_err(invalid))
    }
}

/// Tokens of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'m>(&'m [u8]);

impl Tokens<'_> {
    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id))
    }
}

/// Reads from memory fail only where it ends.
fn invalid(error: ReadError<Infallible>) -> Invalid {
    match error {
        ReadError::Invalid(invalid) => invalid,
        ReadError::Closed(spot) => Invalid { spot, fault: Fault::Short },
        ReadError::Io { error, .. } => match error {},
    }
}

/// Checks the length of a message, which is read before anything else of it.
///
/// # Errors
/// None, or more than [`MESSAGE_MAX`].
pub fn message_len(bytes: [u8; 4]) -> Result<usize, Invalid> {
    let mut bytes = &bytes[..];
    Reader::new(&mut bytes, Part::Message).within("length", 1..=MESSAGE_MAX).map(|len| len as usize).map_err(invalid)
}

impl<'m> Message<'m> {
    /// Reads a message without its length. Numbers of nodes, rows and models are within their limits; whether they fit the
    /// model is for others to say.
    ///
    /// # Errors
    /// A kind that is unknown, a field that is not allowed, bytes that are missing or too many.
    pub fn parse(bytes: &'m [u8]) -> Result<Self, Invalid> {
        let mut rest = bytes;
        Self::read(&mut rest).map_err(invalid)
    }

    fn read(rest: &mut &'m [u8]) -> Result<Self, ReadError<Infallible>> {
        let mut reader = Reader::new(rest, Part::Message);
        let [kind] = reader.array("kind")?;
        let message = match kind {
            HAVE => {
                let have = read_have(&mut reader)?;
                if have.version != VERSION {
                    *rest = &[];
                }
                Self::Have(have)
            }
            PLAN => {
                let plan = read_plan(&mut reader)?;
                let nodes = PlanNodes { rest: core::mem::take(rest), left: plan.nodes };
                return Ok(Self::Plan(plan, nodes));
            }
            READY => Self::Ready(Ready {
                arena_bytes: reader.u64("bytes of the arena")?,
                repacked_bytes: reader.u64("repacked bytes")?,
                keeps: reader.within("disk for keys and values", 0..=1)? == 1,
            }),
            REFUSED => Self::Refused(reader.text(["length of the reason", "reason"], 0)?),
            GO => Self::Go,
            LINKED => Self::Linked,
            LINKS => Self::Link(reader.array("session")?, reader.within("node", 1..=MAX_NODES - 1)?),
            PASS => {
                let pass = read_pass(&mut reader)?;
                let tokens = tail(rest, 4 * pass.rows() as usize, "bytes of tokens")?;
                Self::Pass(pass, Tokens(tokens))
            }
            BYE => Self::Bye,
            REST => Self::Rest,
            BEAT => Self::Beat(Beat {
                passes: reader.u64("passes")?,
                busy_us: reader.u64("microseconds")?,
                spent: Spent {
                    passes: reader.u64("passes")?,
                    compute_us: reader.u64("microseconds")?,
                    exchange_us: reader.u64("microseconds")?,
                    disk_us: reader.u64("microseconds")?,
                },
            }),
            VERIFY => Self::Verify(reader.array("fingerprint")?),
            HASHING => Self::Hashing(reader.u64("hashed bytes")?),
            DIGEST => Self::Digest(reader.array("digest")?),
            ECHO => Self::Echo(core::mem::take(rest)),
            WATCH => Self::Watch(Watch {
                session: reader.array("session")?,
                silence_ms: reader.within("milliseconds of silence", SILENCE_MS)?,
            }),
            FAILED => Self::Failed(Failed {
                node: reader.within("node", 0..=MAX_NODES - 1)?,
                reason: reader.text(["length of the reason", "reason"], 0)?,
            }),
            DRAIN => Self::Drain,
            LEAVING => Self::Leaving,
            JOIN => Self::Join(reader.within("port", 1..=u32::from(u16::MAX))? as u16),
            COPY => {
                let slot = 0..=MAX_SLOTS - 1;
                Self::Copy(CacheCopy {
                    from: reader.within("slot to copy from", slot.clone())?,
                    to: reader.within("slot to copy to", slot)?,
                    positions: reader.u32("positions")?,
                })
            }
            KEEP => Self::Keep(read_pages(rest)?),
            RESTORE => Self::Restore(read_pages(rest)?),
            RESTORED => Self::Restored(reader.within("pages", 0..=PAGES_MAX as u32)?),
            found => {
                let fault = Fault::Range { found: found.into(), min: HAVE.into(), max: RESTORED.into() };
                return Err(reader.invalid("kind", fault).into());
            }
        };
        if rest.is_empty() {
            return Ok(message);
        }
        let bytes = rest.len() as u64;
        Err(Reader::new(rest, Part::Message).invalid("length", Fault::TooLong { bytes }).into())
    }
}

type Source<'r, 'm> = Reader<'r, &'m [u8]>;

/// Takes so many bytes, which stay where they are.
fn tail<'m>(rest: &mut &'m [u8], len: usize, field: &'static str) -> Result<&'m [u8], ReadError<Infallible>> {
    let Some((bytes, behind)) = rest.split_at_checked(len) else {
        let fault = Fault::Differs { found: rest.len() as u64, expected: len as u64 };
        return Err(Reader::new(rest, Part::Message).invalid(field, fault).into());
    };
    *rest = behind;
    Ok(bytes)
}

fn read_have(reader: &mut Source<'_, '_>) -> Result<Have, ReadError<Infallible>> {
    let version = reader.u32("version")?;
    if version != VERSION {
        // What follows is that version's.
        return Ok(Have { version, ..Have::default() });
    }
    let mut have = Have {
        version,
        threads: reader.u32("threads")?,
        speed: reader.u64("speed")?,
        isa: reader.text(["length of an instruction set", "instruction set"], 0)?,
        disk_speed: reader.u64("speed of the disk")?,
        memory: reader.u64("memory")?,
        busy: reader.text(["length of who is served", "who is served"], 0)?,
        ..Have::default()
    };
    for _ in 0..reader.within("number of models", 0..=MODELS_MAX as u32)? {
        let model = HasModel {
            fingerprint: reader.array("fingerprint")?,
            header: reader.array("fingerprint of the header")?,
            digest: match reader.within("number of digests", 0..=1)? {
                0 => None,
                _ => Some(reader.array("digest")?),
            },
            bytes: reader.u64("bytes of a model")?,
            name: reader.text(["length of a name", "name"], 0)?,
        };
        have.models.push(model).unwrap_or_else(|_| unreachable!("their number was checked"));
    }
    Ok(have)
}

/// Reads the fields of a message, or writes them, so that one list of them is enough.
trait Fields {
    type Error;

    /// Bytes of a known number.
    fn bytes(&mut self, field: &'static str, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// Says that a number is not allowed, where it was read.
    fn check(&self, field: &'static str, found: u32, allowed: RangeInclusive<u32>) -> Result<(), Self::Error>;

    fn half(&mut self, field: &'static str, number: &mut u16) -> Result<(), Self::Error> {
        let mut bytes = number.to_le_bytes();
        self.bytes(field, &mut bytes)?;
        *number = u16::from_le_bytes(bytes);
        Ok(())
    }

    fn word(&mut self, field: &'static str, allowed: RangeInclusive<u32>, number: &mut u32) -> Result<(), Self::Error> {
        let mut bytes = number.to_le_bytes();
        self.bytes(field, &mut bytes)?;
        *number = u32::from_le_bytes(bytes);
        self.check(field, *number, allowed)
    }

    /// One of some values, by its place among them.
    fn choice<T: Copy + PartialEq>(
        &mut self,
        field: &'static str,
        all: &[T],
        value: &mut T,
    ) -> Result<(), Self::Error> {
        let place = all.iter().position(|one| one == value).expect("messages are given what they have a number for");
        let mut place = place as u32;
        self.word(field, 0..=all.len() as u32 - 1, &mut place)?;
        *value = all[place as usize];
        Ok(())
    }
}

impl Fields for Source<'_, '_> {
    type Error = ReadError<Infallible>;

    fn bytes(&mut self, field: &'static str, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(field, bytes)
    }

    fn check(&self, field: &'static str, found: u32, allowed: RangeInclusive<u32>) -> Result<(), Self::Error> {
        self.allow(field, found, allowed)
    }
}

/// Writes fields, which are what they should be.
struct Written<'w, W>(&'w mut W);

impl<W: Write> Fields for Written<'_, W> {
    type Error = W::Error;

    fn bytes(&mut self, _: &'static str, bytes: &mut [u8]) -> Result<(), W::Error> {
        self.0.write_all(bytes)
    }

    fn check(&self, _: &'static str, _: u32, _: RangeInclusive<u32>) -> Result<(), W::Error> {
        Ok(())
    }
}

/// All of a plan, behind its version.
fn plan_fields<F: Fields>(fields: &mut F, plan: &mut Plan) -> Result<(), F::Error> {
    const ALL: RangeInclusive<u32> = 0..=u32::MAX;
    fields.bytes("session", &mut plan.session)?;
    fields.word("epoch", ALL, &mut plan.epoch)?;
    fields.bytes("fingerprint", &mut plan.fingerprint)?;
    fields.word("number of nodes", 2..=MAX_NODES, &mut plan.nodes)?;
    fields.word("node", 1..=plan.nodes - 1, &mut plan.node)?;
    fields.choice("type of activations", &[DType::F32, DType::Q80], &mut plan.activation)?;
    fields.choice("type of the KV cache", &KvType::ALL, &mut plan.kv)?;
    fields.word("rows of a pass", 1..=MAX_BATCH, &mut plan.batch_max)?;
    fields.word("positions", 1..=u32::MAX, &mut plan.seq_len)?;
    fields.word("sequences", 1..=MAX_SLOTS, &mut plan.slots)?;
    fields.word("rows to be halved", 2..=u32::MAX, &mut plan.halve_from)?;
    fields.choice("repacking", &[false, true], &mut plan.repack)?;
    fields.choice("lossy exchange", &[false, true], &mut plan.lossy)?;
    fields.choice("type of partial sums", &[None, Some(DType::F32), Some(DType::Q80)], &mut plan.columns)?;
    let mut stages = plan.stages.len() as u32;
    fields.word("number of stages", 0..=plan.nodes, &mut stages)?;
    plan.stages.resize_default(stages as usize).unwrap_or_else(|_| unreachable!("their number was checked"));
    for stage in &mut plan.stages {
        fields.half("nodes of a stage", &mut stage.nodes)?;
        fields.half("layers of a stage", &mut stage.layers)?;
    }
    Ok(())
}

fn read_plan(reader: &mut Source<'_, '_>) -> Result<Plan, ReadError<Infallible>> {
    // What follows is this version's.
    reader.exactly("version", VERSION)?;
    let mut plan = Plan { version: VERSION, ..Plan::default() };
    plan_fields(reader, &mut plan)?;
    Ok(plan)
}

fn read_pass(reader: &mut Source<'_, '_>) -> Result<Pass, ReadError<Infallible>> {
    let epoch = reader.u32("epoch")?;
    let wanted = match reader.within("number of best logits", 0..=BEST_MAX)? {
        0 => Wanted::All,
        count => {
            let (below, scale) = (reader.u32("bound of tokens")?, reader.f32("scale of logits")?);
            if !scale.is_finite() || scale < 0.0 {
                let fault = Fault::Range { found: scale.to_bits().into(), min: 0, max: f32::MAX.to_bits().into() };
                return Err(reader.invalid("scale of logits, in bits", fault).into());
            }
            Wanted::Best(Best { count, below, scale })
        }
    };
    let mut pass = Pass { epoch, wanted, ..Pass::default() };
    for _ in 0..reader.within("number of runs", 1..=MAX_BATCH)? {
        let (slot, position) = (reader.u32("slot")?, reader.u32("position")?);
        let rows = reader.within("rows", 1..=MAX_BATCH - pass.rows().min(MAX_BATCH - 1))?;
        let logits = match reader.within("wanted logits", 0..=2)? {
            0 => Logits::None,
            1 => Logits::Last,
            _ => Logits::All,
        };
        pass.runs
            .push(Run { slot, position, rows, logits })
            .unwrap_or_else(|_| unreachable!("their number was checked"));
    }
    reader.same("rows beyond a pass", pass.rows().saturating_sub(MAX_BATCH).into(), 0)?;
    Ok(pass)
}

fn read_pages<'m>(rest: &mut &'m [u8]) -> Result<Pages<'m>, ReadError<Infallible>> {
    let mut reader = Reader::new(rest, Part::Message);
    let slot = reader.within("slot", 0..=MAX_SLOTS - 1)?;
    let first = reader.within("first page", 0..=u32::MAX / PAGE)?;
    let count = reader.within("number of pages", 1..=PAGES_MAX as u32)?;
    let len = count as usize * size_of::<PageName>();
    let names = tail(rest, len, "names of pages")?;
    Ok(Pages { slot, first, names: names.as_chunks().0 })
}

/// Writes a [`Have`].
///
/// # Errors
/// Those of the writer.
pub fn write_have<W: Write>(writer: &mut W, have: &Have) -> Result<(), W::Error> {
    frame(writer, HAVE, |writer| {
        put_u32(writer, have.version)?;
        put_u32(writer, have.threads)?;
        put_u64(writer, have.speed)?;
        put_text(writer, &have.isa)?;
        put_u64(writer, have.disk_speed)?;
        put_u64(writer, have.memory)?;
        put_text(writer, &have.busy)?;
        put_u32(writer, have.models.len() as u32)?;
        have.models.iter().try_for_each(|model| {
            writer.write_all(&model.fingerprint)?;
            writer.write_all(&model.header)?;
            put_u32(writer, model.digest.is_some().into())?;
            writer.write_all(model.digest.as_ref().map_or(&[], |digest| digest.as_slice()))?;
            put_u64(writer, model.bytes)?;
            put_text(writer, &model.name)
        })
    })
}

/// Writes a [`Plan`] and its nodes, the root first: share, host, port.
///
/// # Errors
/// Those of the writer.
///
/// # Panics
/// If `nodes` does not yield the plan's number of nodes, or a host is longer than [`HOST_MAX`].
pub fn write_plan<'n, W: Write>(
    writer: &mut W,
    plan: &Plan,
    nodes: impl Iterator<Item = (Share, &'n str, u16)> + Clone,
) -> Result<(), W::Error> {
    assert_eq!(nodes.clone().count(), plan.nodes as usize, "nodes of a plan");
    frame(writer, PLAN, |writer| {
        put_u32(writer, plan.version)?;
        plan_fields(&mut Written(writer), &mut plan.clone())?;
        nodes.clone().try_for_each(|(share, host, port)| {
            assert!(host.len() <= HOST_MAX, "host of {} bytes", host.len());
            for number in [share.layers, share.head, port] {
                writer.write_all(&number.to_le_bytes())?;
            }
            put_text(writer, host)
        })
    })
}

/// Writes a [`Ready`].
///
/// # Errors
/// Those of the writer.
pub fn write_ready<W: Write>(writer: &mut W, ready: &Ready) -> Result<(), W::Error> {
    frame(writer, READY, |writer| {
        put_u64(writer, ready.arena_bytes)?;
        put_u64(writer, ready.repacked_bytes)?;
        put_u32(writer, ready.keeps.into())
    })
}

/// Writes why a worker refuses; what exceeds [`REASON_MAX`] is cut.
///
/// # Errors
/// Those of the writer.
pub fn write_refused<W: Write>(writer: &mut W, reason: &str) -> Result<(), W::Error> {
    frame(writer, REFUSED, |writer| put_text(writer, cut(reason, REASON_MAX)))
}

/// Writes that all are ready.
///
/// # Errors
/// Those of the writer.
pub fn write_go<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, GO, |_| Ok(()))
}

/// Writes that a worker has its links.
///
/// # Errors
/// Those of the writer.
pub fn write_linked<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, LINKED, |_| Ok(()))
}

/// Writes who a worker is to another one.
///
/// # Errors
/// Those of the writer.
pub fn write_link<W: Write>(writer: &mut W, session: &SessionId, node: u32) -> Result<(), W::Error> {
    frame(writer, LINKS, |writer| {
        writer.write_all(session)?;
        put_u32(writer, node)
    })
}

/// Writes a pass.
///
/// # Errors
/// Those of the writer.
///
/// # Panics
/// If there is not a token for each row.
pub fn write_pass<W: Write>(writer: &mut W, pass: &Pass, tokens: &[u32]) -> Result<(), W::Error> {
    assert_eq!(tokens.len(), pass.rows() as usize, "tokens of a pass");
    let logits = |logits| match logits {
        Logits::None => 0,
        Logits::Last => 1,
        Logits::All => 2,
    };
    frame(writer, PASS, |writer| {
        let runs = pass.runs.iter().flat_map(|run| [run.slot, run.position, run.rows, logits(run.logits)]);
        put_u32(writer, pass.epoch)?;
        match pass.wanted {
            Wanted::All => put_u32(writer, 0)?,
            Wanted::Best(Best { count, below, scale }) => {
                [count, below, scale.to_bits()].into_iter().try_for_each(|word| put_u32(writer, word))?;
            }
        }
        put_u32(writer, pass.runs.len() as u32)?;
        runs.chain(tokens.iter().copied()).try_for_each(|word| put_u32(writer, word))
    })
}

/// Writes a [`Beat`].
///
/// # Errors
/// Those of the writer.
pub fn write_beat<W: Write>(writer: &mut W, beat: &Beat) -> Result<(), W::Error> {
    frame(writer, BEAT, |writer| {
        let Beat { passes, busy_us, spent } = beat;
        let Spent { passes: all, compute_us, exchange_us, disk_us } = spent;
        [passes, busy_us, all, compute_us, exchange_us, disk_us]
            .into_iter()
            .try_for_each(|value| put_u64(writer, *value))
    })
}

/// Writes that all logits of the last pass are wanted.
///
/// # Errors
/// Those of the writer.
pub fn write_rest<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, REST, |_| Ok(()))
}

/// Writes that the beginning of a sequence becomes that of another one.
///
/// # Errors
/// Those of the writer.
pub fn write_copy<W: Write>(writer: &mut W, copy: CacheCopy) -> Result<(), W::Error> {
    let CacheCopy { from, to, positions } = copy;
    frame(writer, COPY, |writer| [from, to, positions].into_iter().try_for_each(|word| put_u32(writer, word)))
}

/// Writes that nodes keep pages.
///
/// # Errors
/// Those of the writer.
pub fn write_keep<W: Write>(writer: &mut W, pages: &Pages<'_>) -> Result<(), W::Error> {
    frame(writer, KEEP, |writer| put_pages(writer, pages))
}

/// Writes that nodes get pages.
///
/// # Errors
/// Those of the writer.
pub fn write_restore<W: Write>(writer: &mut W, pages: &Pages<'_>) -> Result<(), W::Error> {
    frame(writer, RESTORE, |writer| put_pages(writer, pages))
}

/// Writes how many pages a worker has got.
///
/// # Errors
/// Those of the writer.
pub fn write_restored<W: Write>(writer: &mut W, pages: u32) -> Result<(), W::Error> {
    frame(writer, RESTORED, |writer| put_u32(writer, pages))
}

/// Bytes of what [`write_restored`] writes.
pub const RESTORED_BYTES: usize = 9;

fn put_pages<W: Write>(writer: &mut W, pages: &Pages<'_>) -> Result<(), W::Error> {
    let Pages { slot, first, names } = *pages;
    assert!((1..=PAGES_MAX).contains(&names.len()), "{} pages", names.len());
    [slot, first, names.len() as u32].into_iter().try_for_each(|word| put_u32(writer, word))?;
    writer.write_all(names.as_flattened())
}

/// Writes bytes to be sent back.
///
/// # Errors
/// Those of the writer.
pub fn write_echo<W: Write>(writer: &mut W, bytes: &[u8]) -> Result<(), W::Error> {
    frame(writer, ECHO, |writer| writer.write_all(bytes))
}

/// Writes that the session ends.
///
/// # Errors
/// Those of the writer.
pub fn write_bye<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, BYE, |_| Ok(()))
}

/// Writes that the digest of a model is wanted.
///
/// # Errors
/// Those of the writer.
pub fn write_verify<W: Write>(writer: &mut W, fingerprint: &Fingerprint) -> Result<(), W::Error> {
    frame(writer, VERIFY, |writer| writer.write_all(fingerprint))
}

/// Writes how many bytes of a model are hashed.
///
/// # Errors
/// Those of the writer.
pub fn write_hashing<W: Write>(writer: &mut W, bytes: u64) -> Result<(), W::Error> {
    frame(writer, HASHING, |writer| put_u64(writer, bytes))
}

/// Writes the digest of a model.
///
/// # Errors
/// Those of the writer.
pub fn write_digest<W: Write>(writer: &mut W, digest: &Digest) -> Result<(), W::Error> {
    frame(writer, DIGEST, |writer| writer.write_all(digest))
}

/// Writes a [`Watch`].
///
/// # Errors
/// Those of the writer.
pub fn write_watch<W: Write>(writer: &mut W, watch: &Watch) -> Result<(), W::Error> {
    frame(writer, WATCH, |writer| {
        writer.write_all(&watch.session)?;
        put_u32(writer, watch.silence_ms)
    })
}

/// Writes why a session is over; what exceeds [`REASON_MAX`] of the reason is cut.
///
/// # Errors
/// Those of the writer.
pub fn write_failed<W: Write>(writer: &mut W, node: u32, reason: &str) -> Result<(), W::Error> {
    frame(writer, FAILED, |writer| {
        put_u32(writer, node)?;
        put_text(writer, cut(reason, REASON_MAX))
    })
}

/// Writes that a worker is to end.
///
/// # Errors
/// Those of the writer.
pub fn write_drain<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, DRAIN, |_| Ok(()))
}

/// Writes that a worker is about to end.
///
/// # Errors
/// Those of the writer.
pub fn write_leaving<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    frame(writer, LEAVING, |_| Ok(()))
}

/// Writes on which port a worker listens.
///
/// # Errors
/// Those of the writer.
pub fn write_join<W: Write>(writer: &mut W, port: u16) -> Result<(), W::Error> {
    frame(writer, JOIN, |writer| put_u32(writer, port.into()))
}

/// What a body is written to: first to be counted, then to go out.
enum Sink<'w, W> {
    Count(u32),
    Out(&'w mut W),
}

impl<W: Write> ErrorType for Sink<'_, W> {
    type Error = W::Error;
}

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, W::Error> {
        match self {
            Self::Count(count) => {
                *count += bytes.len() as u32;
                Ok(bytes.len())
            }
            Self::Out(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<(), W::Error> {
        match self {
            Self::Count(_) => Ok(()),
            Self::Out(writer) => writer.flush(),
        }
    }
}

/// Writes a message around its body.
fn frame<W: Write>(
    writer: &mut W,
    kind: u8,
    body: impl Fn(&mut Sink<'_, W>) -> Result<(), W::Error>,
) -> Result<(), W::Error> {
    let mut counted = Sink::Count(1);
    body(&mut counted)?;
    let Sink::Count(len) = counted else { unreachable!("a sink does not change its kind") };
    assert!(len <= MESSAGE_MAX, "message of {len} bytes");
    put_u32(writer, len)?;
    writer.write_all(&[kind])?;
    body(&mut Sink::Out(writer))
}
