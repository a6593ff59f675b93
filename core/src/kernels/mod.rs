//! Numbers only: one table of functions per instruction set.
