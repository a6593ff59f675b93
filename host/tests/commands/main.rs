//! A new user's walk through the binaries, with small synthetic models: what it prints, to which stream, and how it
//! ends when it is given nonsense.

mod answers;
mod bench;
mod chat;
mod endings;
#[path = "../shared/files.rs"]
mod files;
mod guesses;
mod habits;
mod help;
mod inspect;
mod keys;
mod logs;
mod manual;
mod model;
mod namespaces;
mod network;
mod opening;
mod plan;
mod published;
mod pull;
mod refusals;
mod remote;
mod run;
mod sampling;
mod screen;
mod serve;
mod server;
mod setup;
mod streaming;
mod survival;
mod tokens;
mod top;
mod typing;
