//! Everything that touches an operating system: files, threads, sockets, terminals.
//!
//! Floors, each of which knows only those below it:
//!
//! | floor | holds |
//! |---|---|
//! | [`cli`], [`llm`] | the command line; the short way to all of this for programs |
//! | [`client`] | a server as its clients see it: what the command line asks one over HTTP |
//! | [`serve`] | what programs and browsers talk to: HTTP, and the engine behind it |
//! | [`chat`] | conversations: text to tokens and back, the loop that generates an answer |
//! | [`cluster`] | who computes: a root, alone or with workers, and what a worker does |
//! | [`net`], [`storage`], [`model`] | links between nodes; bytes of weights; model files, opened or made from published ones |
//! | [`machine`] | what the operating system is asked: processors, memory, disk, threads |
//!
//! Beside them, [`synthetic`] makes models to try all of this with, [`bench`](mod@bench) measures them and the machine.

// They panic where nobody reads; `machine::terminal` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod chat;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod llm;
pub mod machine;
pub mod model;
pub mod net;
pub mod serve;
pub mod storage;
pub mod synthetic;
