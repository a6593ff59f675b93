//! What is to be pulled: a model of the catalogue, or one that a URL leads to.

use super::{Args, name};
use crate::cli::Failure;
use crate::client::download::{Place, PlaceError};
use crate::model::catalogue::{self, Entry};
use crate::model::convert::gguf::PartName;
use crate::model::store::Name;
use std::path::Path;

/// A model to be pulled.
pub struct What {
    /// What it is called here.
    pub name: Name,
    /// Where it comes from, for people.
    pub source: String,
    /// Its entry in the catalogue, if it has one.
    pub entry: Option<&'static Entry>,
    /// Its files, the model last.
    pub files: Vec<File>,
}

/// A file of it.
pub struct File {
    /// What it is called here.
    pub name: String,
    /// Where its parts are.
    pub parts: Vec<Place>,
    /// Its checksum, where it was known before.
    pub blake3: Option<&'static str>,
}

impl File {
    fn one(name: String, place: Place) -> Self {
        Self { name, parts: vec![place], blake3: None }
    }
}

fn misused(error: PlaceError) -> Failure {
    Failure::Usage(error.to_string())
}

impl What {
    /// What a command line asks for.
    pub fn of(args: &Args) -> Result<Self, Failure> {
        if args.what.contains("://") { Self::of_url(args) } else { Self::of_catalogue(args) }
    }

    fn of_catalogue(args: &Args) -> Result<Self, Failure> {
        let name = name(&args.what)?;
        if let Some(flag) = args.name.as_ref().map(|_| "--name").or(args.tokenizer.as_ref().map(|_| "--tokenizer")) {
            return Err(Failure::Usage(format!("{flag} goes with a URL; {name} is a name of the catalogue")));
        }
        let entry = catalogue::find(name.as_str())
            .ok_or_else(|| format!("{name} is not in the catalogue: dair list --catalogue shows it; or give a URL"))?;
        let base = args.base.clone().map_or_else(|| catalogue::BASE.parse(), Ok).map_err(misused)?;
        let mut files = Vec::new();
        for published in entry.files() {
            let parts =
                published.parts.iter().map(|part| base.join(part)).collect::<Result<_, _>>().map_err(misused)?;
            files.push(File { name: published.name, parts, blake3: None });
        }
        if let Some(model) = files.last_mut() {
            model.blake3 = entry.blake3;
        }
        Ok(Self { name, source: base.to_string(), entry: Some(entry), files })
    }

    fn of_url(args: &Args) -> Result<Self, Failure> {
        if args.base.is_some() {
            return Err(Failure::Usage("--base goes with a name of the catalogue, not with a URL".into()));
        }
        let model: Place = args.what.parse().map_err(misused)?;
        let file = model.file_name().to_owned();
        let (stem, ending) = file.rsplit_once('.').unwrap_or((&file, ""));
        let split = PartName::of(Path::new(&file));
        let stem = if split.is_some() { &stem[..stem.len() - "-00001-of-00001".len()] } else { stem };
        let text = args.name.as_deref().unwrap_or(stem);
        let name = Name::new(text).map_err(|error| Failure::Usage(format!("{error}; give one by --name")))?;
        let files = match (ending, split) {
            ("gguf", _) if args.tokenizer.is_some() => {
                return Err(Failure::Usage("--tokenizer goes with a .m file; a GGUF file has its own".into()));
            }
            ("gguf", None) => vec![File::one(format!("{name}.gguf"), model.clone())],
            // All parts of the model lie beside each other; the conversion finds them by their names.
            ("gguf", Some(split)) => {
                let (parts, count) = (split.parts(), split.count);
                let here = |no: usize| format!("{name}-{:05}-of-{count:05}.gguf", no + 1);
                let files = parts
                    .enumerate()
                    .map(|(no, part)| Ok(File::one(here(no), model.with_file_name(&part.display().to_string())?)));
                files.collect::<Result<_, _>>().map_err(misused)?
            }
            ("m", _) => {
                let tokenizer = match &args.tokenizer {
                    Some(tokenizer) => tokenizer.clone(),
                    None => model.with_file_name(&format!("{stem}.t")).map_err(misused)?,
                };
                let tokenizer = File::one(format!("{name}.t"), tokenizer);
                vec![tokenizer, File::one(format!("{name}.m"), model.clone())]
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "{model}: the URL of a .m or a .gguf file is needed (at Hugging Face: the one of the download, with /resolve/)"
                )));
            }
        };
        Ok(Self { name, source: model.to_string(), entry: None, files })
    }

    /// Whether a URL was given.
    pub fn is_url(&self) -> bool {
        self.entry.is_none()
    }

    /// Where the model is asked for.
    pub fn origin(&self) -> &Place {
        &self.files.last().expect("a model has a file").parts[0]
    }
}
