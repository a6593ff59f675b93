//! The fields of a plan: one list of them, to read and to write.

use super::Plan;
use super::read::Source;
use crate::graph::{MAX_BATCH, MAX_NODES, MAX_SLOTS};
use crate::kernels::KvType;
use crate::quant::DType;
use crate::wire::ReadError;
use core::convert::Infallible;
use core::ops::RangeInclusive;
use embedded_io::Write;

/// Reads the fields of a message, or writes them, so that one list of them is enough.
pub(super) trait Fields {
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
pub(super) struct Written<'w, W>(pub &'w mut W);

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
pub(super) fn plan_fields<F: Fields>(fields: &mut F, plan: &mut Plan) -> Result<(), F::Error> {
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
