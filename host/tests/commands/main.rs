//! A new user's walk through the `dair` binary, with small synthetic models: what it prints, to which stream, and how it
//! ends when it is given nonsense.

mod answers;
mod help;
mod inspect;
mod model;
mod refusals;
mod run;
