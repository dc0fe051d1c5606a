//! `fabkeep tag`, `fabkeep hold` and `fabkeep release`.

use std::path::Path;

use fabkeep_store::{MarkChange, Signer};
use serde_json::json;

use super::{key_files, list};
use crate::arguments::{Hold, Identity, Pin, Repo, Tag};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn tag(arguments: &Tag, output: &Output) -> Result<Code, CliError> {
    let change = MarkChange {
        add: arguments.add.iter().cloned().collect(),
        remove: arguments.remove.iter().cloned().collect(),
        hold: None,
    };
    let keys = (&arguments.repo, &arguments.pin, &arguments.identity, arguments.writer.as_deref());
    mark(&arguments.point, keys, &change, output)
}

pub fn hold(arguments: &Hold, output: &Output) -> Result<Code, CliError> {
    change_hold(arguments, true, output)
}

pub fn release(arguments: &Hold, output: &Output) -> Result<Code, CliError> {
    change_hold(arguments, false, output)
}

fn change_hold(arguments: &Hold, hold: bool, output: &Output) -> Result<Code, CliError> {
    let change = MarkChange { hold: Some(hold), ..MarkChange::default() };
    let keys = (&arguments.repo, &arguments.pin, &arguments.identity, arguments.writer.as_deref());
    mark(&arguments.point, keys, &change, output)
}

fn mark(
    point: &str,
    (repo, pin, identity, writer): (&Repo, &Pin, &Identity, Option<&Path>),
    change: &MarkChange,
    output: &Output,
) -> Result<Code, CliError> {
    let repository = key_files::open(&repo.repo, pin.root.as_deref())?;
    let commit = repository.point(point)?;
    let named = identity;
    let identity = key_files::identity_if_any(&repository, named)?;
    let mark = match (&identity, key_files::writer_if_any(&repository, writer)) {
        (Some(identity), _) => repository.mark(&commit.id, change, &Signer::Identity(identity))?,
        (None, Some(writer)) if !change.takes_away() => {
            repository.mark(&commit.id, change, &Signer::Writer(&writer))?
        }
        // The error says where to look for the key that this needs.
        (None, _) => {
            let identity = key_files::identity(&repository, named)?;
            repository.mark(&commit.id, change, &Signer::Identity(&identity))?
        }
    };
    output.json(&json!({"point": commit.id, "tags": mark.tags, "hold": mark.hold}));
    let marks = list::marked(&mark);
    output.line(format!("recovery point {}: {}", commit.id, if marks.is_empty() { "no marks" } else { &marks }));
    Ok(Code::Done)
}
