//! Who computes which part.
