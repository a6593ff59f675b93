//! Whether two nodes have the same model, and what differs where they do not.

use super::{Model, fingerprint};
use crate::net::printable;
use dair_core::wire::native::{Digest, HasModel};
use std::{fmt, io};

/// What the file of `model` is known by on other machines. Its digest is told where it is known already.
///
/// # Errors
/// Where the file can't be read.
pub fn identity(model: &Model, digest: Option<Digest>) -> io::Result<HasModel> {
    let mut name = heapless::String::new();
    let path = model.path.file_name().unwrap_or(model.path.as_os_str()).to_string_lossy();
    // A longer one is cut: it is for people.
    let _ = path.chars().filter(|c| *c != '\0').try_for_each(|c| name.push(c));
    Ok(HasModel {
        fingerprint: fingerprint::fingerprint(&model.path)?,
        header: fingerprint::header(model),
        digest,
        bytes: model.file.len() as u64,
        name,
    })
}

/// Why no model of another node is the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The model of the same name has another size.
    Size {
        /// Its name.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Bytes of the one that is wanted.
        wanted: u64,
    },
    /// The model of this name has the same size and another header.
    Header(String),
    /// The model of this name has the same size and header, and other weights.
    Content(String),
    /// Nothing is like it; names and bytes of what is there.
    Other(Vec<(String, u64)>),
}

impl Difference {
    /// The file that was looked at, if one was.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Size { name, .. } | Self::Header(name) | Self::Content(name) => Some(name),
            Self::Other(_) => None,
        }
    }

    /// What differs, in one word: `size`, `header`, `content` or `model`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Size { .. } => "size",
            Self::Header(_) => "header",
            Self::Content(_) => "content",
            Self::Other(_) => "model",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { name, bytes, wanted } => write!(f, "its {name} has {bytes} bytes, this one {wanted}"),
            Self::Header(name) => write!(f, "its {name} has the same size, but another header"),
            Self::Content(name) => write!(f, "its {name} has the same size and header, but other content"),
            Self::Other(models) if models.is_empty() => f.write_str("it has no model file"),
            Self::Other(models) => {
                let models: Vec<_> = models.iter().map(|(name, bytes)| format!("{name} ({bytes} bytes)")).collect();
                write!(f, "it has {}", models.join(", "))
            }
        }
    }
}

/// Which of `models` is the one that is `wanted`.
///
/// # Errors
/// What differs: of the model that has size and header of the one that is wanted, else of the one of its name.
pub fn find<'m>(wanted: &HasModel, models: &'m [HasModel]) -> Result<&'m HasModel, Difference> {
    let name = |model: &HasModel| printable(&model.name);
    if let Some(found) = models.iter().find(|model| model.fingerprint == wanted.fingerprint) {
        return match wanted.digest.zip(found.digest) {
            // What the fingerprint's samples do not see.
            Some((own, theirs)) if own != theirs => Err(Difference::Content(name(found))),
            _ => Ok(found),
        };
    }
    let is_alike = |model: &&HasModel| (model.bytes, model.header) == (wanted.bytes, wanted.header);
    let mut namesakes = models.iter().filter(|model| model.name == wanted.name);
    if let Some(alike) = namesakes.clone().find(is_alike).or_else(|| models.iter().find(is_alike)) {
        return Err(Difference::Content(name(alike)));
    }
    Err(match namesakes.next() {
        Some(found) if found.bytes != wanted.bytes => {
            Difference::Size { name: name(found), bytes: found.bytes, wanted: wanted.bytes }
        }
        Some(found) => Difference::Header(name(found)),
        None => Difference::Other(models.iter().map(|model| (name(model), model.bytes)).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, bytes: u64, header: u8, content: u8) -> HasModel {
        let (fingerprint, header) = ([content ^ header ^ bytes as u8; 32], [header; 32]);
        HasModel { fingerprint, header, digest: None, bytes, name: name.try_into().unwrap() }
    }

    #[test]
    fn what_differs_is_said_of_the_model_that_is_most_like_it() {
        let wanted = model("a.m", 64, 1, 2);
        let of = |models: &[HasModel]| find(&wanted, models).map(|model| model.name.to_string());
        let said = |models: &[HasModel]| of(models).unwrap_err().to_string();
        assert_eq!(of(&[model("b.m", 1, 1, 2), model("c.m", 64, 1, 2)]), Ok("c.m".into()), "names do not count");
        assert_eq!(said(&[model("a.m", 65, 1, 2)]), "its a.m has 65 bytes, this one 64");
        assert_eq!(said(&[model("a.m", 64, 4, 2)]), "its a.m has the same size, but another header");
        let content = "its a.m has the same size and header, but other content";
        assert_eq!(said(&[model("b.m", 64, 1, 8), model("a.m", 64, 1, 8)]), content);
        assert_eq!(said(&[model("b.m", 64, 1, 8), model("a.m", 65, 1, 2)]), content.replace("a.m", "b.m"));
        assert_eq!(
            said(&[model("b.m", 1, 1, 2), model("c\n.m", 2, 1, 2)]),
            "it has b.m (1 bytes), c\u{FFFD}.m (2 bytes)"
        );
        assert_eq!(said(&[]), "it has no model file");
    }

    #[test]
    fn digests_that_both_know_must_agree() {
        let with = |digest: Option<u8>| HasModel { digest: digest.map(|byte| [byte; 32]), ..model("a.m", 64, 1, 2) };
        for (own, theirs, is_same) in
            [(Some(1), Some(1), true), (Some(1), None, true), (None, Some(1), true), (Some(1), Some(2), false)]
        {
            let found = find(&with(own), &[with(theirs)]).map(|_| ()).map_err(|difference| difference.word());
            assert_eq!(found, if is_same { Ok(()) } else { Err("content") });
        }
    }
}
