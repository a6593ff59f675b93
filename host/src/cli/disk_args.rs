//! The flag that says whether keys and values are kept on disk.

use super::Failure;
use crate::cluster::pages::Disk;
use crate::machine::memory::parse_bytes;
use crate::model::cache::folder_of_user;
use std::sync::Arc;

/// `--kv-disk`, for the commands that answer more than one request.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DiskArgs {
    /// Keep keys and values on disk, too, up to so many bytes such as 8GiB, in the cache folder (DAIR_CACHE): what was computed of a
    /// conversation is found again later, also after a restart; in a cluster every node needs the flag. What was said can be told
    /// from them
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    kv_disk: Option<u64>,
}

impl DiskArgs {
    /// The folder, if there is to be one.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn open(self) -> Result<Option<Arc<Disk>>, Failure> {
        let Some(limit) = self.kv_disk else { return Ok(None) };
        let folder = folder_of_user().map_err(|error| error.to_string())?.join("kv");
        let disk = Disk::open(&folder, limit);
        Ok(Some(disk.map_err(|error| format!("--kv-disk: cannot make {}: {error}", folder.display()))?))
    }
}
