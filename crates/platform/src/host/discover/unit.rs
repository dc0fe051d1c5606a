//! systemd units: `Environment=`, `EnvironmentFile=`, `ExecStart=`.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::script::{node_command, words};
use super::started::{Started, on_host};
use super::tree::text_of;
use crate::host::Commands;

/// The node that a unit starts.
pub(super) fn read(file: &Path, root: &Path) -> Option<Started> {
    let text = text_of(file)?.replace("\\\n", " ");
    let folder = file.parent()?;
    let mut environment = Environment::new();
    let mut working: Option<PathBuf> = None;
    let mut command = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            "Environment" => {
                for word in words(value.trim()) {
                    take(&word.expand(&Environment::new()), &mut environment);
                }
            }
            "EnvironmentFile" => {
                let named = value.trim().trim_start_matches('-').trim_matches('"');
                let found = on_host(named, folder, folder, root).here();
                for line in found.and_then(|path| text_of(&path)).unwrap_or_default().lines() {
                    if !line.trim_start().starts_with(['#', ';']) {
                        take(line.trim(), &mut environment);
                    }
                }
            }
            "WorkingDirectory" => working = on_host(value.trim().trim_start_matches('-'), folder, folder, root).here(),
            "ExecStart" => command = value.trim().trim_start_matches(['-', '@', '+', '!', ':']).to_owned(),
            _ => {}
        }
    }
    let words: Vec<String> = words(&command).iter().map(|word| word.expand(&environment)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // A shell that starts the node.
    let inner: Vec<String> = match words.as_slice() {
        [shell, "-c" | "-lc", line, ..] if shell.ends_with("sh") => {
            let words = super::script::words(line);
            words.iter().map(|word| word.expand(&environment)).skip_while(|word| word == "exec").collect()
        }
        _ => Vec::new(),
    };
    let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
    let (role, arguments) = node_command(&words).or_else(|| node_command(&inner))?;
    let mut started = Started::on_host(role, file, working.as_deref().unwrap_or(folder));
    started.environment = environment;
    started.take_flags(arguments);
    started.starts = true;
    let unit = file.file_stem()?.to_string_lossy().into_owned();
    // Units of a disk of another machine are none of this one's.
    if ["/etc/systemd", "/run/systemd", "/lib/systemd", "/usr/lib/systemd"].iter().any(|own| file.starts_with(own)) {
        started.commands = Commands {
            start: Some(format!("systemctl start {unit}")),
            stop: Some(format!("systemctl stop {unit}")),
            status: Some(format!("systemctl is-active --quiet {unit}")),
            ..Commands::default()
        };
    }
    started.name = Some(unit);
    Some(started)
}

fn take(text: &str, environment: &mut Environment) {
    if let Some((name, value)) = text.split_once('=') {
        environment.insert(name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
    }
}
