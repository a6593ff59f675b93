//! `dair list`: models that were pulled, and those that can be.

use super::{Failure, table};
use crate::machine::terminal;
use crate::model::catalogue::{self, MODELS};
use crate::model::store::{Name, Pulled, Store};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const EXAMPLES: &str = "\
Examples:
  dair list
  dair list --catalogue
  dair list --json | jq -r '.models[].name'";

/// List the models that were pulled, or the catalogue of those that can be.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// List what dair pull knows by name instead, whether it is here or not
    #[arg(long, alias = "all")]
    catalogue: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let store = Store::of_user()?;
    let printed = match (args.catalogue, args.json) {
        (true, true) => terminal::print_line(catalogue_json(&store)),
        (true, false) => terminal::print(catalogue_text(&store)),
        (false, true) => {
            let models: Vec<_> = store.list().iter().map(to_json).collect();
            terminal::print_line(json!({ "models": models }))
        }
        (false, false) => {
            let models = store.list();
            if models.is_empty() {
                terminal::note("no model was pulled yet; dair list --catalogue shows those that can be");
                return Ok(());
            }
            terminal::print(to_text(&models))
        }
    };
    Ok(printed?)
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// What there is to be said of the state of a model.
fn state(pulled: &Pulled) -> &'static str {
    match (pulled.model(), &pulled.record) {
        (Some(_), _) => "complete",
        (None, Some(record)) if record.is_complete => "damaged",
        (None, _) => "unfinished",
    }
}

fn date(unix_s: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_s)).filter(|_| unix_s > 0);
    // Years of more than four digits have no such date.
    let time = time.filter(|_| unix_s < 253_402_300_800);
    time.map_or("-".into(), |time| humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned())
}

fn to_text(models: &[Pulled]) -> String {
    let mut rows = vec![["NAME", "SIZE", "STATE", "DATE", "LICENCE", "SOURCE"].map(String::from).to_vec()];
    for pulled in models {
        let record = pulled.record.as_ref();
        rows.push(vec![
            pulled.name.to_string(),
            size(pulled.disk_bytes),
            state(pulled).to_owned(),
            date(record.map_or(0, |record| record.pulled_unix_s)),
            // What it is called; where it stands follows in `--json`.
            record
                .and_then(|record| record.licence.as_ref()?.rsplit_once(", "))
                .map_or("-", |(name, _)| name)
                .to_owned(),
            record.map_or("-".into(), |record| record.source.clone()),
        ]);
    }
    table::aligned(&rows)
}

fn to_json(pulled: &Pulled) -> Value {
    let record = pulled.record.as_ref();
    json!({
        "name": pulled.name.as_str(),
        "state": state(pulled),
        "model": pulled.model(),
        "disk_bytes": pulled.disk_bytes,
        "pulled_unix_s": record.map(|record| record.pulled_unix_s).filter(|time| *time > 0),
        "licence": record.and_then(|record| record.licence.as_ref()),
        "source": record.map(|record| &record.source),
        "files": record.map(|record| &record.files),
    })
}

/// What of a model of the catalogue is here.
fn found(store: &Store, name: &str) -> Option<Pulled> {
    store.find(&Name::new(name).ok()?)
}

fn catalogue_text(store: &Store) -> String {
    let mut rows = vec![["NAME", "SIZE", "HERE", "LICENCE"].map(String::from).to_vec()];
    for entry in MODELS {
        let here = found(store, entry.name).map_or("-", |pulled| state(&pulled));
        let licence = format!("{}, {}", entry.licence.name, entry.licence.url);
        rows.push(vec![entry.name.to_owned(), size(entry.bytes), here.to_owned(), licence]);
    }
    table::aligned(&rows)
}

fn catalogue_json(store: &Store) -> Value {
    let models: Vec<_> = MODELS
        .iter()
        .map(|entry| {
            let files: Vec<_> =
                entry.files().into_iter().map(|file| json!({"name": file.name, "parts": file.parts})).collect();
            json!({
                "name": entry.name,
                "bytes": entry.bytes,
                "licence": entry.licence.name,
                "licence_url": entry.licence.url,
                "state": found(store, entry.name).map(|pulled| state(&pulled)),
                "files": files,
            })
        })
        .collect();
    json!({ "base": catalogue::BASE, "models": models })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_dates_are_short() {
        assert_eq!(
            (size(999), size(98_362_432), size(238_000_000_000)),
            ("1.0 kB".into(), "98.4 MB".into(), "238.0 GB".into())
        );
        assert_eq!(date(1_772_359_200), "2026-03-01");
        assert_eq!((date(0), date(u64::MAX)), ("-".into(), "-".into()));
    }
}
