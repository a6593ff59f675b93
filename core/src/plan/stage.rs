//! Stages of a cut by layers.

/// Consecutive nodes that share consecutive layers by rows. The numbers of all stages of a plan add up to its nodes and to the
/// model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Nodes.
    pub nodes: u16,
    /// Layers.
    pub layers: u16,
}
