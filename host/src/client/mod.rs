//! A server as its clients see it: what `dair chat --server` and `dair top` ask over HTTP.
//!
//! [`ServerUrl`] says where it is, [`Server`] asks it, [`chat`] reads an answer as it comes, out of the [`events`] of a stream;
//! [`download`] fetches files.
//! Whatever a server sends has a limit, and whatever it does wrong is one line.

mod agent;
pub mod chat;
#[cfg(feature = "otlp")]
mod collector;
pub mod download;
mod error;
pub mod events;
mod key;
mod server;
mod trust;
mod url;

#[cfg(feature = "otlp")]
pub use collector::{Collector, PATH as TRACES};
pub use error::{ClientError, Why, one_line};
pub use key::{ApiKey, KeyError};
pub use server::Server;
pub use trust::{Trust, TrustError};
pub use url::{ServerUrl, UrlError};
