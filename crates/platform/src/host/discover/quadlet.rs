//! Podman's units of containers (`*.container`): what they say is what a command line of `podman run` would.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::run::{self, Line};
use super::script::expand;
use super::started::Started;
use super::tree::text_of;
use crate::shell::words;

/// Keys of a unit, and the options of `podman run` that say the same.
const OPTIONS: [(&str, &str); 8] = [
    ("ContainerName", "--name"),
    ("Entrypoint", "--entrypoint"),
    ("EnvironmentFile", "--env-file"),
    ("HostName", "--hostname"),
    ("Mount", "--mount"),
    ("NetworkAlias", "--network-alias"),
    ("PublishPort", "--publish"),
    ("Volume", "--volume"),
];

/// The node that a unit's container runs.
pub(super) fn read(file: &Path, root: &Path, known: &[PathBuf]) -> Option<Started> {
    let unit = file.file_stem()?.to_str()?;
    let folder = file.parent()?;
    let text = text_of(file)?.replace("\\\n", " ").replace("%N", unit).replace("%%", "%");
    let (mut options, mut image, mut command) = (vec!["run".to_owned()], None, Vec::new());
    // Podman's own name, where the unit gives none.
    options.extend(["--name".to_owned(), format!("systemd-{unit}")]);
    let none = Environment::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == "[Container]") else { continue };
        let (key, value) = (key.trim(), value.trim());
        let expanded = words(value).into_iter().map(|word| expand(&word, &none));
        match key {
            "Image" => image = Some(value.to_owned()),
            "Exec" => command = expanded.collect(),
            "Environment" => expanded.for_each(|pair| options.extend(["--env".to_owned(), pair])),
            "PodmanArgs" => options.extend(expanded),
            _ => {
                let Some((_, option)) = OPTIONS.iter().find(|(known, _)| *known == key) else { continue };
                // A unit of a volume is one of the volume with its name.
                let value = match value.split_once(".volume:") {
                    Some((volume, at)) => format!("systemd-{volume}:{at}"),
                    None => value.to_owned(),
                };
                options.extend([(*option).to_owned(), value]);
            }
        }
    }
    options.push(image?);
    options.extend(command);
    let all: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut container = run::container(&all, &Line { folder, root, known, environment: &none })?;
    container.origin = file.display().to_string();
    container.started(folder)
}
