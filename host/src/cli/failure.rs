//! Why a command failed, as one line.

use crate::bench::BenchError;
use crate::convert::ConvertError;
use crate::cpu::KernelError;
use crate::generate::GenerateError;
use crate::model::ModelError;
use crate::root::RootError;
use crate::tokenizer::OpenError;
use dair_core::plan::PlanError;
use dair_core::text::{ChatError, EncodeError, SampleError};
use std::fmt;

/// What a command tells the user before it ends with exit code 1.
#[derive(Debug)]
pub enum Failure {
    /// No answer; a chat may go on after some of these.
    Generate(GenerateError),
    /// Everything else.
    Line(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate(error) => error.fmt(f),
            Self::Line(line) => f.write_str(line),
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
    BenchError,
    ChatError,
    ConvertError,
    EncodeError,
    KernelError,
    ModelError,
    OpenError,
    PlanError,
    RootError,
    SampleError,
    std::io::Error
);
