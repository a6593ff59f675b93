//! Who computes a model: a root, alone or with workers, and what a worker does for it.

pub mod best;
pub mod choose;
pub mod discovery;
pub mod error;
pub mod hashing;
pub mod history;
pub mod key_file;
pub mod kv;
pub mod local;
pub mod lossy;
pub mod measured;
mod members;
pub mod newcomers;
pub mod node;
pub mod nodes_file;
pub mod options;
pub mod pages;
pub mod planner;
mod rejoin;
pub mod room;
pub mod root;
mod session;
pub mod tables;
pub mod workers;
