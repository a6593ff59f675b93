//! Tokens to text and back, sampling, stop detection.
