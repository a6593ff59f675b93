//! The three doors to the outside.
