//! Where spans go: to a file, as a timeline for Perfetto or `chrome://tracing`, or to a collector of OpenTelemetry.
//!
//! Spans are those of [`tracing`]; a program that embeds the server may take them elsewhere. A request's are `request` (from its arrival to
//! its end), in it `waits`, `prompt` and `answer`; the engine's are `pass`, one after the other.

use crate::client::ServerUrl;
use std::fs::File;
use std::io;
use std::path::Path;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard, TraceStyle};
use tracing_subscriber::layer::SubscriberExt;

/// Takes spans as long as it lives, and sends or writes the last of them when it goes.
#[must_use = "without it nothing more is written"]
pub struct Trace {
    _flush: Option<FlushGuard>,
    _collected: Option<Collected>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    /// Begins to take the spans of this process: to a new file, and to a collector, as far as they are given.
    ///
    /// # Errors
    /// Where the file can't be written, or spans go elsewhere already.
    pub fn begin(file: Option<&Path>, collector: Option<&ServerUrl>) -> io::Result<Self> {
        let (timeline, flush) = file.map(File::create).transpose()?.map(timeline).unzip();
        let collected = collector.map(|url| Collected::by(url.clone())).transpose()?;
        let spans = tracing_subscriber::registry().with(timeline);
        #[cfg(feature = "otlp")]
        let spans = spans.with(collected.as_ref().map(Collected::layer));
        tracing::subscriber::set_global_default(spans).map_err(io::Error::other)?;
        Ok(Self { _flush: flush, _collected: collected })
    }
}

/// A layer that writes spans to `file`, and what writes the last of them.
fn timeline<S>(file: File) -> (tracing_chrome::ChromeLayer<S>, FlushGuard)
where
    S: tracing::Subscriber + for<'l> tracing_subscriber::registry::LookupSpan<'l> + Send + Sync,
{
    ChromeLayerBuilder::new().writer(file).trace_style(TraceStyle::Async).include_args(true).build()
}

/// Spans on their way to a collector.
#[cfg(feature = "otlp")]
struct Collected(opentelemetry_sdk::trace::SdkTracerProvider);

#[cfg(feature = "otlp")]
impl Collected {
    fn by(url: ServerUrl) -> io::Result<Self> {
        use crate::client::{Collector, TRACES};
        use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
        use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};

        let exporter = SpanExporter::builder().with_http().with_endpoint(format!("{url}{TRACES}"));
        let exporter = exporter.with_http_client(Collector::at(url)).build().map_err(io::Error::other)?;
        let resource = Resource::builder().with_service_name("dair").build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    fn layer<S>(&self) -> tracing_opentelemetry::OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>
    where
        S: tracing::Subscriber + for<'l> tracing_subscriber::registry::LookupSpan<'l>,
    {
        use opentelemetry::trace::TracerProvider;

        // Where in the program a span begins, and on which thread, says little about a server.
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("dair"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
    }
}

#[cfg(feature = "otlp")]
impl Drop for Collected {
    fn drop(&mut self) {
        // Where the collector does not take the last of them, a line has said so.
        let _ = self.0.shutdown();
    }
}

/// Nothing is sent by this build.
#[cfg(not(feature = "otlp"))]
enum Collected {}

#[cfg(not(feature = "otlp"))]
impl Collected {
    fn by(_: ServerUrl) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this build sends no spans: it was made without its feature otlp",
        ))
    }
}
