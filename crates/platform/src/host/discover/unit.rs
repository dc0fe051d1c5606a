//! systemd units with their drop-ins: `Environment=`, `EnvironmentFile=`, `ExecStart=`.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::script::{UNKNOWN, run_by, run_words};
use super::started::{Started, on_host};
use super::tree::text_of;
use crate::host::Commands;
use crate::shell::{is_shell, is_text_option, settled, unwrapped, words};

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
    let text = with_specifiers(&texts.join("\n").replace("\\\n", " "), name, prefix, instance);
    let settings = Settings::read(&text, folder, root);
    let mut started = settings.started(file, root, known)?;
    started.starts = true;
    started.installed = is_installed(file, &real, name);
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

/// Returns a unit's text with its specifiers replaced: what they mean for units of the system. Others depend on the machine or on the run.
fn with_specifiers(text: &str, name: &str, prefix: &str, instance: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('%') => out.push('%'),
            Some('i' | 'I') => out.push_str(instance),
            Some('n') => out.extend([name, ".service"]),
            Some('N') => out.push_str(name),
            Some('p' | 'P') => out.push_str(prefix),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('t') => out.push_str("/run"),
            Some('T') => out.push_str("/tmp"),
            Some('V') => out.push_str("/var/tmp"),
            Some('h') => out.push_str("/root"),
            Some('u') => out.push_str("root"),
            Some(other) if other.is_ascii_alphabetic() => out.push(UNKNOWN),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Whether the machine starts this unit: an administrator put it there, or it is one of a package and is wanted by another.
fn is_installed(file: &Path, real: &Path, name: &str) -> bool {
    let wanted =
        |folder: &Path| folder.to_str().is_some_and(|name| name.ends_with(".wants") || name.ends_with(".requires"));
    let folder = file.parent().unwrap_or(file);
    let folder = if wanted(folder) { folder.parent().unwrap_or(folder) } else { folder };
    if UNIT_FOLDERS[..3].iter().any(|own| folder.ends_with(own)) {
        return true;
    }
    let real = real.parent().unwrap_or(real);
    let folders = unit_folders(real);
    if !UNIT_FOLDERS.iter().any(|own| real.ends_with(own)) {
        return false;
    }
    let mut entries =
        folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
    entries
        .any(|entry| wanted(&entry.path()) && entry.path().join(format!("{name}.service")).symlink_metadata().is_ok())
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
    /// A file that it must have is not here.
    unread: bool,
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
                    words(value).iter().for_each(|word| take(&settled(word), &mut out.environment));
                }
                "EnvironmentFile" if value.is_empty() => out.files.clear(),
                "EnvironmentFile" => {
                    let named = value.trim_start_matches('-').trim_matches('"');
                    let found = matching(named, folder, root);
                    out.unread |= found.is_empty() && !value.starts_with('-');
                    out.files.extend(found);
                }
                "WorkingDirectory" => out.working = find(value),
                "ExecStart" => out.command = value.trim_start_matches(['-', '@', '+', '!', ':']).to_owned(),
                _ => {}
            }
        }
        // Files count more than the unit, wherever it names them.
        for file in &out.files {
            out.unread |= text_of(file).is_none();
            // A backslash at the end of a line: the value goes on in the next one.
            for line in text_of(file).unwrap_or_default().replace("\\\n", "").lines().map(str::trim) {
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
        let mut environment = self.environment.clone();
        let command = unwrapped(self.arguments(), |name, value| {
            environment.insert(name.to_owned(), value.to_owned());
        });
        let mut reads: Vec<PathBuf> = self.files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        let shell = command.first().is_some_and(|program| is_shell(program));
        let script = command.iter().skip(usize::from(shell)).find(|word| !word.starts_with('-'));
        let inline = shell && command.iter().any(|word| is_text_option(word));
        let script = script.filter(|_| !inline).and_then(|named| on_host(named, working, working, root).here());
        let text = script.as_deref().and_then(text_of);
        let found = match text {
            Some(text) => {
                reads.extend(script.as_ref().and_then(|script| script.canonicalize().ok()));
                let beside = script.as_deref().and_then(Path::parent).unwrap_or(working);
                run_by(file, &text, self.working.as_deref().unwrap_or(beside), root, known, &environment)
            }
            None => run_words(file, &command, working, root, known, &environment),
        };
        let mut started = found.into_iter().next()?;
        started.reads.extend(reads);
        Some(started)
    }

    /// The words of the command as systemd makes them: `$NAME` as a word of its own is split, `${NAME}` is not.
    fn arguments(&self) -> Vec<String> {
        let value = |name: &str| match self.environment.get(name) {
            Some(value) => value.clone(),
            None if self.unread => UNKNOWN.to_string(),
            None => String::new(),
        };
        let mut out = Vec::new();
        for word in words(&self.command).iter().map(|word| settled(word)) {
            let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            match word.strip_prefix('$').filter(is_name) {
                Some(name) => out.extend(words(&value(name)).iter().map(|word| settled(word))),
                None => out.push(with_values(&word, value)),
            }
        }
        out
    }
}

/// A word with every `${NAME}` replaced; `$$` is a dollar sign.
fn with_values(word: &str, value: impl Fn(&str) -> String) -> String {
    let (mut out, mut rest) = (String::new(), word);
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let braced = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        rest = match braced {
            Some((name, after)) => {
                out.push_str(&value(name));
                after
            }
            None => {
                out.push('$');
                behind.strip_prefix('$').unwrap_or(behind)
            }
        };
    }
    out + rest
}

/// The files that a path with `*` and `?` in its last part names, or that one file; below the root as on this machine.
fn matching(named: &str, folder: &Path, root: &Path) -> Vec<PathBuf> {
    let Some((above, pattern)) = named.rsplit_once('/').filter(|(_, name)| name.contains(['*', '?'])) else {
        return on_host(named, folder, folder, root).here().into_iter().collect();
    };
    let Some(above) = on_host(above, folder, folder, root).here() else { return Vec::new() };
    let entries = std::fs::read_dir(above).into_iter().flatten().filter_map(Result::ok);
    let fits = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let hidden = name.starts_with('.') && !pattern.starts_with('.');
        !hidden && is_like(&name, pattern) && path.is_file()
    };
    let mut out: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    out.sort();
    out
}

/// Whether a name is as a pattern with `*` and `?` says.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    // For each end of the name: whether the pattern so far fits until there.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for c in pattern {
        for at in (0..=name.len()).rev() {
            fits[at] = match c {
                '*' => fits[..=at].contains(&true),
                c => at > 0 && fits[at - 1] && (c == '?' || c == name[at - 1]),
            };
        }
    }
    fits[name.len()]
}

fn take(text: &str, environment: &mut Environment) {
    if let Some((name, value)) = text.split_once('=') {
        environment.insert(name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
    }
}
