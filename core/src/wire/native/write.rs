//! Messages as they are written.

use super::plan::{Written, plan_fields};
use super::{
    BEAT, BYE, Beat, Best, COPY, DIGEST, DRAIN, Digest, ECHO, FAILED, Fingerprint, GO, HASHING, HAVE, Have, JOIN, KEEP,
    LEAVING, LINKED, LINKS, MESSAGE_MAX, PAGES_MAX, PASS, PLAN, Pages, Pass, Plan, READY, REASON_MAX, REFUSED, REST,
    RESTORE, RESTORED, Ready, SessionId, Spent, VERIFY, WATCH, Wanted, Watch,
};
use crate::exec::{CacheCopy, Logits};
use crate::plan::Share;
use crate::wire::bytes::{cut, put_text, put_u32, put_u64};
use crate::wire::dllama::HOST_MAX;
use embedded_io::{ErrorType, Write};

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
