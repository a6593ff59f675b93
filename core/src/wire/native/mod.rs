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
//! Keep                                [keys and values, to disk]
//! Restore                             Restored [keys and values, from disk]
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

mod plan;
mod read;
mod write;

use super::dllama::HOST_MAX;
use crate::exec::{CacheCopy, Run};
use crate::graph::{MAX_BATCH, MAX_NODES};
use crate::kernels::KvType;
use crate::plan::{Share, Stage};
use crate::quant::DType;
use core::ops::RangeInclusive;
use core::time::Duration;
pub use read::{PlanNodes, Tokens, message_len};
pub use write::{
    RESTORED_BYTES, write_beat, write_bye, write_copy, write_digest, write_drain, write_echo, write_failed, write_go,
    write_hashing, write_have, write_join, write_keep, write_leaving, write_link, write_linked, write_pass, write_plan,
    write_ready, write_refused, write_rest, write_restore, write_restored, write_verify, write_watch,
};

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
    /// The first page, of [`PAGE`](crate::exec::PAGE) positions as all are.
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
