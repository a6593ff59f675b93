//! Offsets of tensors.
