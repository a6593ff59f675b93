//! Which nodes compute what: the cut with the least predicted time per token ([`dair_core::plan::cost`]) that fits everybody's memory.

pub mod published;
