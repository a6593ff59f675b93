//! The flag that says what the cluster's key is, for both binaries.

use crate::cluster::key_file::{self, Found};
use std::path::PathBuf;

/// Where the key of the cluster is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyArgs {
    /// The cluster's key, as `dair key new` wrote it; given twice, the second one is accepted, too, while keys are replaced
    /// [default: environment variable DAIR_KEY, or the file that DAIR_KEY_FILE names, systemd's credential dair-key,
    /// ~/.config/dair/key]
    #[arg(long = "key", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl KeyArgs {
    /// The keys of this node, if it has any.
    ///
    /// # Errors
    /// One line about a place whose keys can't be used.
    pub fn find(&self) -> Result<Option<Found>, String> {
        key_file::find(&self.files).map_err(|error| error.to_string())
    }
}
