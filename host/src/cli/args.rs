//! Reading the command line, for both binaries.

use super::Failure;
use crate::machine::terminal::Unwritten;
use clap::Parser;
use std::process::ExitCode;

/// The arguments of this process; else its exit code, when help, the version or what is wrong have been printed.
///
/// # Errors
/// 0 after help and version, 1 where they can't be written, 2 for wrong usage.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| match error.print() {
        Err(unwritten) if !error.use_stderr() => Failure::from(Unwritten::from(unwritten)).report(),
        // What is wrong goes to standard error: where nobody reads it, the exit code still says so.
        _ => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    })
}
