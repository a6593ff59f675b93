//! Why a command ended before its work was done, as one line and an exit code.

use super::interrupt;
use crate::bench::BenchError;
use crate::chat::generate::GenerateError;
use crate::chat::template::TemplateError;
use crate::chat::tokenizer::{OpenError, TextError};
use crate::cluster::error::RootError;
use crate::cluster::key_file::KeyFileError;
use crate::machine::cpu::KernelError;
use crate::machine::terminal::{self, Unwritten};
use crate::model::ModelError;
use crate::model::cache::CacheError;
use crate::model::convert::ConvertError;
use dair_core::plan::PlanError;
use dair_core::text::SampleError;
use std::fmt;
use std::process::ExitCode;

/// What a command tells the user before it ends.
#[derive(Debug)]
pub enum Failure {
    /// No answer; a chat may go on after some of these. Exit code 1.
    Generate(GenerateError),
    /// Something else. Exit code 1.
    Line(String),
    /// The arguments do not go together; only seen when they were read. Exit code 2, as for all wrong usage.
    Usage(String),
    /// The user pressed Ctrl-C. Exit code 130, as shells know it.
    Interrupted,
    /// The reader of standard output has seen enough: no failure, and nothing to say. Exit code 0, so that
    /// `dair inspect … | head` does not fail a script that looks at every part of a pipe.
    ReaderGone,
}

impl Failure {
    /// Tells the user, and returns the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Generate(_) | Self::Line(_) => {
                terminal::note(format_args!("error: {self}"));
                ExitCode::FAILURE
            }
            Self::Usage(_) => {
                terminal::note(format_args!("error: {self}\n\nFor more information, try '--help'."));
                ExitCode::from(2)
            }
            Self::Interrupted => {
                terminal::note(&self);
                ExitCode::from(interrupt::EXIT_CODE)
            }
            Self::ReaderGone => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate(error) => error.fmt(f),
            Self::Line(line) | Self::Usage(line) => f.write_str(line),
            Self::Interrupted => f.write_str(interrupt::LINE),
            Self::ReaderGone => f.write_str("nobody reads standard output"),
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        Self::Generate(error)
    }
}

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self::Line(line)
    }
}

impl From<Unwritten> for Failure {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::ReaderGone => Self::ReaderGone,
            Unwritten::Failed(error) => Self::Line(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Interrupted => Self::Interrupted,
            error => Self::Line(error.to_string()),
        }
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Interrupted => Self::Interrupted,
            error => Self::Line(error.to_string()),
        }
    }
}

/// Errors that are one line already.
macro_rules! line_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Line(error.to_string())
            }
        })*
    };
}

line_from!(
    CacheError,
    KernelError,
    KeyFileError,
    ModelError,
    OpenError,
    PlanError,
    RootError,
    SampleError,
    TemplateError,
    TextError,
    std::io::Error
);
