//! The root that people use: a server that answers over HTTP.
//!
//! ```text
//! clients --http--> Ask --engine, one thread--> Event --http--> clients
//! ```
//!
//! [`engine`] computes answers, all of those in progress together; [`http`] is what clients see. They share nothing but the way
//! that asks go and events come, and the figures. [`trace`] writes a timeline of both.

pub mod engine;
pub mod http;
pub mod trace;
