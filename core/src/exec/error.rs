//! Why a graph is refused.

use crate::graph::{Name, Op, Printable};
use crate::quant::DType;
use core::fmt;

/// What is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphError {
    /// The op; empty where it is the graph as a whole.
    pub op: Name,
    /// Its layer.
    pub layer: u32,
    /// What was looked at.
    pub what: &'static str,
    /// The value found.
    pub found: u64,
    /// How it relates to `allowed` when it is right.
    pub rule: &'static str,
    /// The value allowed.
    pub allowed: u64,
}

impl GraphError {
    pub(super) fn of(op: &Op, what: &'static str, found: u64, rule: &'static str, allowed: u64) -> Self {
        Self { op: op.name.clone(), layer: op.layer, what, found, rule, allowed }
    }

    pub(super) fn too_large(found: u64) -> Self {
        let rule = "must not exceed";
        Self { op: Name::new(), layer: 0, what: "memory in bytes", found, rule, allowed: usize::MAX as u64 }
    }

    pub(super) fn broken_blocks(width: u32, dtype: DType) -> Self {
        let (rule, allowed) = ("must be a multiple of", dtype.block_len());
        Self { op: Name::new(), layer: 0, what: "width of a quantised row", found: width.into(), rule, allowed }
    }
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("graph: ")?;
        if !self.op.is_empty() {
            write!(f, "op {} of layer {}: ", Printable(&self.op), self.layer)?;
        }
        write!(f, "{} is {}; it {} {}", self.what, self.found, self.rule, self.allowed)
    }
}

impl core::error::Error for GraphError {}
