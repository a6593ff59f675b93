//! Graph + memory + kernels = forward pass.
