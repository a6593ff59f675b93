//! A timeline of requests and passes, for Perfetto or `chrome://tracing`.
//!
//! Spans are those of [`tracing`]; a program that embeds the server may take them elsewhere. A request's are `request` (from its arrival to
//! its end), in it `waits` and `answer`; the engine's are `pass`, one after the other.

use std::fs::File;
use std::io;
use std::path::Path;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard, TraceStyle};
use tracing_subscriber::layer::SubscriberExt;

/// Writes the timeline as long as it lives, and the rest of it when it goes.
#[must_use = "without it nothing more is written"]
pub struct Trace {
    _flush: FlushGuard,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    /// Begins a timeline of this process in a new file.
    ///
    /// # Errors
    /// Where the file can't be written, or spans go elsewhere already.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let (layer, flush) =
            ChromeLayerBuilder::new().writer(file).trace_style(TraceStyle::Async).include_args(true).build();
        let spans = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(spans).map_err(io::Error::other)?;
        Ok(Self { _flush: flush })
    }
}
