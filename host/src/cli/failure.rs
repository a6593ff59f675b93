//! Why a command failed, as one line.

use crate::bench::BenchError;
use crate::chat::generate::GenerateError;
use crate::chat::template::TemplateError;
use crate::chat::tokenizer::OpenError;
use crate::cluster::root::RootError;
use crate::machine::cpu::KernelError;
use crate::model::ModelError;
use crate::model::convert::ConvertError;
use dair_core::plan::PlanError;
use dair_core::text::{EncodeError, SampleError};
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
    ConvertError,
    EncodeError,
    KernelError,
    ModelError,
    OpenError,
    PlanError,
    RootError,
    SampleError,
    TemplateError,
    std::io::Error
);
