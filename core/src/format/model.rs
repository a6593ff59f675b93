//! The `.m` header.
