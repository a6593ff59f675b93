//! The core of dair: everything that is bytes in, bytes out.
//!
//! No `std`, no allocation, no clock, no environment. The caller owns all memory
//! and hands in three doors to the outside ([`io::Storage`], [`io::Links`], [`io::Pool`]).
//!
//! Read the rooms in the order in which data flows:
//!
//! 1. [`format`]: bytes of `.m` and `.t` files become checked values and offsets
//! 2. [`quant`]: the block types that weights and activations are made of
//! 3. [`graph`]: what one node computes; [`plan`] builds it from a header, [`wire`] reads it off a socket
//! 4. [`kernels`]: numbers only, one table of functions per instruction set
//! 5. [`exec`]: graph + memory + kernels = forward pass
//! 6. [`text`]: tokens to text and back, sampling, stop detection
//!
//! `targets/bare-metal` puts them together in some three hundred lines, on a machine without an operating system.
#![no_std]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod exec;
pub mod format;
pub mod graph;
pub mod io;
pub mod kernels;
pub mod plan;
pub mod quant;
pub mod text;
pub mod wire;
