//! Messages as they are read: each field is checked before it is used, and what may be long stays where it is.

use super::plan::plan_fields;
use super::{
    BEAT, BEST_MAX, BYE, Beat, Best, COPY, DIGEST, DRAIN, ECHO, FAILED, Failed, GO, HASHING, HAVE, HasModel, Have,
    JOIN, KEEP, LEAVING, LINKED, LINKS, MESSAGE_MAX, MODELS_MAX, Message, PAGES_MAX, PASS, PLAN, PageName, Pages, Pass,
    Plan, PlanNode, READY, REFUSED, REST, RESTORE, RESTORED, Ready, SILENCE_MS, Spent, VERIFY, VERSION, WATCH, Wanted,
    Watch,
};
use crate::exec::{CacheCopy, Logits, PAGE, Run};
use crate::graph::{MAX_BATCH, MAX_NODES, MAX_SLOTS};
use crate::plan::Share;
use crate::wire::bytes::Reader;
use crate::wire::{Fault, Invalid, Part, ReadError};
use core::convert::Infallible;

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

pub(super) type Source<'r, 'm> = Reader<'r, &'m [u8]>;

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
