//! systemd units with their drop-ins: `Environment=`, `EnvironmentFile=`, `ExecStart=`.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::script::{expand, is_elsewhere, node_command, run_by};
use super::started::{Started, on_host};
use super::tree::text_of;
use crate::host::Commands;
use crate::shell::{is_shell, is_text_option, words};

/// Where units lie on a disk, the folder that counts most first.
const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The node that a unit starts. A template is none; its instances are links to it.
pub(super) fn read(file: &Path, root: &Path, known: &[PathBuf]) -> Option<Started> {
    let name = file.file_name()?.to_str()?.strip_suffix(".service")?;
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    if name.ends_with('@') {
        return None;
    }
    let folder = file.parent()?;
    // A link may name a path of another machine's disk.
    let linked = || on_host(std::fs::read_link(file).ok()?.to_str()?, folder, folder, root).here();
    let real = file.canonicalize().ok().or_else(linked)?;
    let folders = unit_folders(real.parent()?);
    let same = folders.iter().map(|folder| folder.join(format!("{name}.service"))).find(|path| path.is_file());
    if same.is_some_and(|first| first.canonicalize().ok() != real.canonicalize().ok()) {
        // Another unit of this name counts instead.
        return None;
    }
    let mut texts = vec![text_of(&real)?];
    texts.extend(drop_ins(&folders, name, prefix).iter().filter_map(|path| text_of(path)));
    let text = texts.join("\n").replace("\\\n", " ").replace("%i", instance).replace("%I", instance);
    let text = text.replace("%n", &format!("{name}.service")).replace("%N", name).replace("%p", prefix);
    let settings = Settings::read(&text.replace("%%", "%"), folder, root);
    let mut started = settings.started(file, root, known)?;
    started.starts = true;
    // Units of a disk of another machine are none of this one's.
    if ["/etc/systemd", "/run/systemd", "/lib/systemd", "/usr/lib/systemd"].iter().any(|own| file.starts_with(own)) {
        started.commands = Commands {
            start: Some(format!("systemctl start {name}")),
            stop: Some(format!("systemctl stop {name}")),
            status: Some(format!("systemctl is-active --quiet {name}")),
            ..Commands::default()
        };
    }
    started.name = Some(name.to_owned());
    Some(started)
}

/// The folders that units of the disk of this one may lie in.
fn unit_folders(folder: &Path) -> Vec<PathBuf> {
    let is_disk = |disk: &&Path| UNIT_FOLDERS.iter().any(|own| disk.join(own) == folder);
    match folder.ancestors().filter(is_disk).last() {
        Some(disk) => UNIT_FOLDERS.iter().map(|own| disk.join(own)).collect(),
        None => vec![folder.to_path_buf()],
    }
}

/// The files that change a unit, in the order in which they are read: by their names, one of a name in the folder that counts most.
fn drop_ins(folders: &[PathBuf], name: &str, prefix: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    let own = [format!("{name}.service.d"), format!("{prefix}@.service.d")];
    for changes in own.iter().take(if name.contains('@') { 2 } else { 1 }) {
        for folder in folders {
            let entries = std::fs::read_dir(folder.join(changes)).into_iter().flatten().filter_map(Result::ok);
            let files =
                entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf"));
            for file in files {
                if !out.iter().any(|known| known.file_name() == file.file_name()) {
                    out.push(file);
                }
            }
        }
    }
    out.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    out
}

/// What of a unit says how a node is started.
#[derive(Default)]
struct Settings {
    environment: Environment,
    files: Vec<PathBuf>,
    working: Option<PathBuf>,
    command: String,
}

impl Settings {
    fn read(text: &str, folder: &Path, root: &Path) -> Self {
        let mut out = Settings::default();
        let find = |named: &str| on_host(named.trim_start_matches('-').trim_matches('"'), folder, folder, root).here();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
                continue;
            };
            match key {
                // An empty value takes back what stands before it.
                "Environment" if value.is_empty() => out.environment.clear(),
                "Environment" => {
                    words(value).iter().for_each(|word| take(&expand(word, &Environment::new()), &mut out.environment));
                }
                "EnvironmentFile" if value.is_empty() => out.files.clear(),
                "EnvironmentFile" => out.files.extend(find(value)),
                "WorkingDirectory" => out.working = find(value),
                "ExecStart" => out.command = value.trim_start_matches(['-', '@', '+', '!', ':']).to_owned(),
                _ => {}
            }
        }
        // Files count more than the unit, wherever it names them.
        for file in &out.files {
            for line in text_of(file).unwrap_or_default().lines().map(str::trim) {
                if !line.starts_with(['#', ';']) {
                    take(line, &mut out.environment);
                }
            }
        }
        out
    }

    /// The node that the command starts: itself, or a script that it runs.
    fn started(self, file: &Path, root: &Path, known: &[PathBuf]) -> Option<Started> {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let working = self.working.as_deref().unwrap_or(folder);
        let expanded: Vec<String> = words(&self.command).iter().map(|word| expand(word, &self.environment)).collect();
        let expanded: Vec<&str> = expanded.iter().map(String::as_str).collect();
        let mut reads: Vec<PathBuf> = self.files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        let here = expanded.first().is_some_and(|program| !is_elsewhere(program));
        if let Some((role, arguments)) = node_command(&expanded).filter(|_| here) {
            let mut started = Started::on_host(role, file, working);
            started.environment = self.environment;
            started.take_flags(arguments);
            started.reads = reads;
            return Some(started);
        }
        let shell = expanded.first().is_some_and(|program| is_shell(program));
        let script = expanded.iter().skip(usize::from(shell)).find(|word| !word.starts_with('-'));
        let inline = shell && expanded.iter().any(|word| is_text_option(word));
        let script = script.filter(|_| !inline).and_then(|named| on_host(named, working, working, root).here());
        reads.extend(script.as_ref().and_then(|script| script.canonicalize().ok()));
        let text = script.as_deref().and_then(text_of);
        let beside = script.as_deref().and_then(Path::parent).unwrap_or(working);
        let beside = self.working.as_deref().unwrap_or(beside);
        let text = text.unwrap_or_else(|| self.command.clone());
        let mut started = run_by(file, &text, beside, root, known, &self.environment).into_iter().next()?;
        started.reads.extend(reads);
        Some(started)
    }
}

fn take(text: &str, environment: &mut Environment) {
    if let Some((name, value)) = text.split_once('=') {
        environment.insert(name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
    }
}
