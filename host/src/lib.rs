//! Everything that touches an operating system: files, threads, sockets, terminals.
//!
//! The rooms, in the order in which data flows: [`model`] opens a file through [`storage`]; [`cpu`], [`cores`] and [`pool`] say
//! what computes; [`arena`] is the memory that it computes in; [`root`] drives a model, alone or with workers;
//! [`net`] links them, and [`node`] is what a worker does.
//! [`synthetic`] makes models to try all of this with, [`convert`] makes them from published ones, [`bench`](mod@bench) measures them and
//! the machine; [`cli`] is the command line.

pub mod arena;
pub mod bench;
pub mod cli;
pub mod convert;
pub mod cores;
pub mod cpu;
pub mod disk;
pub mod generate;
pub mod kv;
pub mod memory;
pub mod model;
pub mod net;
pub mod node;
pub mod pool;
pub mod root;
pub mod storage;
pub mod synthetic;
pub mod tables;
pub mod tokenizer;
