//! `dair top`: what a server and its cluster are doing.
//!
//! [`figures`] names what a server says and how it reads, for [`text`], which is printed once, and for [`view`], which [`live`] keeps
//! on a terminal.

mod figures;
mod live;
mod text;
mod view;

use super::Failure;
use crate::client::{ApiKey, ClientError, Server, ServerUrl, Trust, Why};
use crate::machine::terminal;
use figures::Cluster;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

const EXAMPLES: &str = "\
On a terminal the view is renewed once a second; q or Esc ends it. In a pipe it is printed once.

Examples:
  dair top
  dair top http://10.0.0.2:8080 --api-key-file my-key
  dair top https://box:8443 --ca box.pem
  dair top --once
  dair top --json | jq .rates";

/// Watch a server and its cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where dair serve listens
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: ServerUrl,
    /// File with the API key that the server wants [default: environment variable DAIR_API_KEY]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Believe the certificates of this PEM file, or whom they sign, and no others [default: public authorities]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the figures once
    #[arg(long)]
    once: bool,
    /// Print once what the server says, as one JSON object on a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let key = ApiKey::find(args.api_key_file.as_deref()).map_err(|error| error.to_string())?;
    let trust = Trust::find(&args.url, args.ca.as_deref()).map_err(|error| error.to_string())?;
    let server = Server { url: args.url.clone(), key, trust };
    // A wrong URL or key is said at once; whoever goes away later is waited for.
    let cluster = ask(&server).map_err(|error| error.to_string())?;
    if args.json {
        return Ok(terminal::print_line(cluster.object())?);
    }
    if args.once || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(terminal::print(text::text(&cluster))?);
    }
    live::watch(server, cluster)
}

/// What the server says now.
fn ask(server: &Server) -> Result<Cluster, ClientError> {
    let foreign = || ClientError { url: server.url.to_string(), why: Why::Foreign("it says nothing of a cluster") };
    Cluster::of(server.get("/cluster")?).ok_or_else(foreign)
}
