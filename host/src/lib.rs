//! Everything that touches an operating system.
