//! The one place that makes HTTP agents.

use super::trust::Trust;
use std::time::Duration;
use ureq::Agent;
use ureq::config::{ConfigBuilder, RedirectAuthHeaders};
use ureq::typestate::AgentScope;

/// What stands before `://` of servers that can be asked.
pub const SCHEMES: &[&str] = if cfg!(feature = "tls") { &["http", "https"] } else { &["http"] };

/// A connection is there within so long.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// For the whole answer.
    Whole(Duration),
    /// For each piece of it.
    Piece(Duration),
}

/// Most places that a file may lead to, one after the other.
const REDIRECTS: u32 = 5;

/// An agent; for a server on this machine it takes no proxy, whatever the environment says.
pub fn agent(patience: Patience, is_local: bool, trust: &Trust) -> Agent {
    // A key goes where the user sends it, and nowhere else.
    config(patience, is_local, trust).max_redirects(0).build().into()
}

/// An agent for files, which lie elsewhere than where their addresses lead at first: it goes there, with a token to the same host
/// alone, and, where it `stays_encrypted`, in no other way.
pub fn downloading(patience: Patience, is_local: bool, stays_encrypted: bool, trust: &Trust) -> Agent {
    config(patience, is_local, trust)
        .max_redirects(REDIRECTS)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .https_only(stays_encrypted)
        .build()
        .into()
}

fn config(patience: Patience, is_local: bool, trust: &Trust) -> ConfigBuilder<AgentScope> {
    let (whole, piece) = match patience {
        Patience::Whole(limit) => (Some(limit), None),
        Patience::Piece(limit) => (None, Some(limit)),
    };
    let mut config = Agent::config_builder()
        .user_agent(concat!("dair/", env!("CARGO_PKG_VERSION")))
        // What a server says about an error stands in its body.
        .http_status_as_error(false)
        // A connection that was idle may be dead, and a new one costs a millisecond.
        .max_idle_connections(0)
        .timeout_connect(Some(CONNECT))
        .timeout_global(whole)
        .timeout_per_read(piece)
        .timeout_per_write(piece);
    if is_local {
        config = config.proxy(None);
    }
    #[cfg(feature = "tls")]
    {
        config = config.tls_config(trust.config());
    }
    #[cfg(not(feature = "tls"))]
    let _ = trust;
    config
}
