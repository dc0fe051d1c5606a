//! Programs of supervisord's configuration files (`[program:…]`).

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::script::run_by;
use super::started::{Started, on_host};
use super::tree::text_of;

const PROGRAM: &str = "[program:";

/// The nodes that a file's programs are; `None` when it has no programs.
pub(super) fn read(file: &Path, root: &Path, known: &[PathBuf]) -> Option<Vec<Started>> {
    let text = text_of(file)?;
    let folder = file.parent()?;
    let text = text.replace("%(here)s", &folder.display().to_string());
    let mut out = Vec::new();
    for program in text.split("\n[").map(|part| part.strip_prefix('[').unwrap_or(part)) {
        let Some((name, body)) = program.strip_prefix(&PROGRAM[1..]).and_then(|rest| rest.split_once(']')) else {
            continue;
        };
        let (mut command, mut environment, mut directory) = (String::new(), Environment::new(), folder.to_path_buf());
        // A line that is indented goes on with the one before it.
        let joined = body.replace("\n ", " ").replace("\n\t", " ").replace("%(program_name)s", name);
        for (key, value) in joined.lines().filter_map(|line| line.split_once('=')) {
            match key.trim() {
                "command" => value.trim().clone_into(&mut command),
                "environment" => environment = pairs(value),
                "directory" => directory = on_host(value.trim(), folder, folder, root).path(),
                _ => {}
            }
        }
        for mut started in run_by(file, &command, &directory, root, known, &environment) {
            started.name = started.name.or(Some(name.to_owned()));
            out.push(started);
        }
    }
    text.lines().any(|line| line.starts_with(PROGRAM)).then_some(out)
}

/// `NAME="value",NAME=value`.
fn pairs(text: &str) -> Environment {
    let mut out = Environment::new();
    let (mut now, mut quote) = (String::new(), None);
    let mut take = |pair: &str| {
        if let Some((name, value)) = pair.split_once('=') {
            out.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    };
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ',') => take(&std::mem::take(&mut now)),
            (_, c) => now.push(c),
        }
    }
    take(&now);
    out
}
