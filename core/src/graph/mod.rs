//! What one node does.

/// Most layers of a model.
pub const MAX_LAYERS: u32 = 256;
/// Most experts of a layer.
pub const MAX_EXPERTS: u32 = 1024;
