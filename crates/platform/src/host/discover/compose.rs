//! docker-compose files: services, their environment, volumes and bind mounts. Override files are merged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::{Environment, value_at};
use serde_norway::Value;

use super::container::{Container, docker_commands};
use super::normal;
use super::script::{self, WORKING_FOLDER, home};
use super::started::{Mount, Started};
use super::tree::text_of;
use crate::host::Commands;
use crate::shell::words;

/// How far services that extend others are followed.
const MAX_EXTENDS: usize = 8;
/// Most files read that others extend.
const MAX_BASES: usize = 100;
/// What no two files say differently of one node.
const OWN: [&str; 4] =
    ["CORE_PEER_ID", "CORE_PEER_LOCALMSPID", "ORDERER_GENERAL_LOCALMSPID", "FABRIC_CA_SERVER_CA_NAME"];
/// Where docker and podman keep named volumes.
const VOLUMES: [&str; 2] = ["/var/lib/docker/volumes", "/var/lib/containers/storage/volumes"];

/// One compose file.
struct File {
    path: PathBuf,
    folder: PathBuf,
    yaml: Value,
    variables: Environment,
}

/// The nodes of all compose files. `known`: directories that hold data, among which the places of named volumes are looked for.
pub(super) fn read(files: &[PathBuf], root: &Path, known: &[PathBuf], remarks: &mut Vec<String>) -> Vec<Started> {
    let mut all: Vec<File> = Vec::new();
    let mut left: Vec<PathBuf> = files.iter().rev().cloned().collect();
    while let Some(path) = left.pop().filter(|_| all.len() < files.len() + MAX_BASES) {
        match File::read(&path) {
            Ok(Some(file)) if all.iter().all(|known| known.path != file.path) => {
                left.extend(file.included());
                all.push(file);
            }
            Ok(_) => {}
            Err(problem) => remarks.push(format!("{}: {problem}: its services were not read", path.display())),
        }
    }
    // The outermost first: a file below it overrides it.
    all.sort_by(|a, b| (a.folder.components().count(), &a.path).cmp(&(b.folder.components().count(), &b.path)));
    let asked = all.len();
    let mut extended: BTreeSet<(PathBuf, String)> = BTreeSet::new();
    let mut position = 0;
    while position < all.len() {
        let file = &all[position];
        let bases = entries(value_at(&file.yaml, &["services"])).into_iter().filter_map(|(_, service)| {
            let base = file.extended(service)?;
            // One of the same file is a service like the others when it has volumes.
            let of_file = value_at(&file.yaml, &["services", &base.1]);
            let whole = base.0 == file.path && of_file.is_some_and(|base| value_at(base, &["volumes"]).is_some());
            Some((base, whole))
        });
        let bases: Vec<((PathBuf, String), bool)> = bases.collect();
        for (base, whole) in bases {
            if all.iter().all(|known| known.path != base.0) && all.len() < asked + MAX_BASES {
                match File::read(&base.0) {
                    Ok(more) => all.extend(more),
                    Err(problem) => remarks.push(format!(
                        "{}: {problem}: what extends its services was read without it",
                        base.0.display()
                    )),
                }
            }
            if !whole {
                extended.insert(base);
            }
        }
        position += 1;
    }
    let mut services: Vec<(String, Vec<(usize, &Value)>)> = Vec::new();
    for (position, file) in all.iter().enumerate().take(asked) {
        for (name, service) in entries(value_at(&file.yaml, &["services"])) {
            if extended.contains(&(file.path.clone(), name.clone())) {
                continue;
            }
            let container = |part: (usize, &Value)| self::service(&name, &[part], &all, root, known);
            let own = container((position, service));
            let same = services.iter_mut().find(|(known, parts)| {
                *known == name
                    && parts.iter().any(|(first, _)| file.folder.starts_with(&all[*first].folder))
                    && !parts.iter().any(|part| are_apart(&name, &container(*part), &own))
            });
            match same {
                Some((_, parts)) => parts.push((position, service)),
                None => services.push((name, vec![(position, service)])),
            }
        }
    }
    let mut out = Vec::new();
    for (name, parts) in services {
        let Some((first, _)) = parts.first() else { continue };
        let base = &all[*first];
        let container = service(&name, &parts, &all, root, known);
        out.extend(container.started(&base.folder));
    }
    out
}

/// Whether what two files say of services of one name cannot be said of one container.
fn are_apart(service: &str, one: &Container, other: &Container) -> bool {
    let named = |container: &Container| container.name != service;
    let differ = |name: &&str| match (one.environment.get(*name), other.environment.get(*name)) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    };
    let moved = || one.mounts.iter().any(|a| other.mounts.iter().any(|b| a.at == b.at && a.path != b.path));
    (named(one) && named(other) && one.name != other.name)
        || OWN.iter().any(differ)
        || (!one.image.is_empty() && !other.image.is_empty() && moved())
}

/// A service behind the services that it extends, the first of them first.
fn with_bases<'a>(position: usize, service: &'a Value, all: &'a [File], depth: usize) -> Vec<(usize, &'a Value)> {
    let base = || {
        let (path, name) = all[position].extended(service).filter(|_| depth < MAX_EXTENDS)?;
        let at = all.iter().position(|file| file.path == path)?;
        Some(with_bases(at, value_at(&all[at].yaml, &["services", &name])?, all, depth + 1))
    };
    let mut out = base().unwrap_or_default();
    out.push((position, service));
    out
}

/// One service, put together of every file that has something of it.
fn service(name: &str, parts: &[(usize, &Value)], all: &[File], root: &Path, known: &[PathBuf]) -> Container {
    let base = parts.first().map(|(first, _)| &all[*first]);
    let mut out = Container { name: name.to_owned(), ..Container::default() };
    let mut contained = None;
    for (position, service) in parts.iter().flat_map(|(position, service)| with_bases(*position, service, all, 0)) {
        let file = &all[position];
        let text = |key: &str| value_at(service, &[key]).and_then(Value::as_str).map(|text| file.expand(text));
        out.image = text("image").unwrap_or(std::mem::take(&mut out.image));
        contained = text("container_name").or(contained);
        out.hosts.extend(text("hostname"));
        let entry = command(value_at(service, &["entrypoint"]), file);
        let command = command(value_at(service, &["command"]), file);
        if !entry.is_empty() || !command.is_empty() {
            out.command = [entry, command].concat();
        }
        for named in texts(value_at(service, &["env_file"])) {
            let path = normal(&file.folder.join(file.expand(&named)));
            out.environment.extend(environment_file(&path, &file.variables));
            out.reads.extend(path.canonicalize());
        }
        out.environment.extend(environment(value_at(service, &["environment"]), file));
        for volume in value_at(service, &["volumes"]).and_then(Value::as_sequence).into_iter().flatten() {
            let mount = mount(volume, file, base.unwrap_or(file), root, known);
            if let Some(mount) = mount {
                out.mounts.retain(|known| known.at != mount.at);
                out.mounts.push(mount);
            }
        }
        for (kind, usual) in [("secrets", "/run/secrets/"), ("configs", "/")] {
            let given = value_at(service, &[kind]).and_then(Value::as_sequence);
            out.mounts.extend(given.into_iter().flatten().filter_map(|given| file.given(kind, usual, given)));
        }
        for port in value_at(service, &["ports"]).and_then(Value::as_sequence).into_iter().flatten() {
            let published = match port {
                Value::String(text) => {
                    let text = file.expand(text);
                    let mut parts = text.split('/').next().unwrap_or_default().rsplit(':');
                    parts.next();
                    parts.next().and_then(|port| port.parse::<u16>().ok())
                }
                other => value_at(other, &["published"]).and_then(scalar).and_then(|port| port.parse::<u16>().ok()),
            };
            out.ports.extend(published);
        }
    }
    let file = base.map(|file| file.path.display().to_string()).unwrap_or_default();
    out.origin = format!("{file}, service {name}");
    out.hosts.push(name.to_owned());
    out.hosts.extend(contained.clone());
    out.commands = match &contained {
        Some(container) => docker_commands(container),
        None => {
            let files: Vec<String> = parts.iter().map(|(at, _)| format!("-f {}", quoted(&all[*at].path))).collect();
            let compose = format!("docker compose {}", files.join(" "));
            Commands {
                start: Some(format!("{compose} start {name}")),
                stop: Some(format!("{compose} stop {name}")),
                status: Some(format!("{compose} ps --status running -q {name} | grep -q .")),
                log: Some(format!("{compose} logs --no-log-prefix --since {{since}} {name} 2>&1")),
                ..Commands::default()
            }
        }
    };
    out.name = contained.unwrap_or(out.name);
    out
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl File {
    fn read(path: &Path) -> Result<Option<File>, String> {
        let path = normal(&std::path::absolute(path).map_err(|error| error.to_string())?);
        let Some(text) = text_of(&path) else { return Err("it cannot be read as text".to_owned()) };
        let mut yaml: Value = serde_norway::from_str(&text).map_err(|error| format!("it is not YAML ({error})"))?;
        yaml.apply_merge().map_err(|error| format!("its merge keys cannot be followed ({error})"))?;
        if value_at(&yaml, &["services"]).is_none() && value_at(&yaml, &["include"]).is_none() {
            return Ok(None);
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let mut variables = Environment::new();
        // Compose reads `.env` of the project's folder: the file's own, or the one above an overriding file's.
        for ancestor in folder.ancestors().take(3).collect::<Vec<_>>().into_iter().rev() {
            variables.extend(environment_file(&ancestor.join(".env"), &Environment::new()));
        }
        Ok(Some(File { path, folder, yaml, variables }))
    }

    fn expand(&self, text: &str) -> String {
        expand(text, &self.variables)
    }

    /// The file and the service that a service extends.
    fn extended(&self, service: &Value) -> Option<(PathBuf, String)> {
        let extends = value_at(service, &["extends"])?;
        let text = |key: &str| value_at(extends, &[key]).and_then(Value::as_str).map(|text| self.expand(text));
        let path = text("file").map_or_else(|| self.path.clone(), |file| normal(&self.folder.join(file)));
        Some((path, extends.as_str().map(str::to_owned).or_else(|| text("service"))?))
    }

    /// The files that it includes.
    fn included(&self) -> Vec<PathBuf> {
        let all = value_at(&self.yaml, &["include"]).and_then(Value::as_sequence).into_iter().flatten();
        let named = all.flat_map(|one| match value_at(one, &["path"]) {
            Some(paths) => texts(Some(paths)),
            None => texts(Some(one)),
        });
        named.map(|path| normal(&self.folder.join(self.expand(&path)))).collect()
    }

    /// A secret or configuration of the project as a file of a service's container.
    fn given(&self, kind: &str, usual: &str, value: &Value) -> Option<Mount> {
        let text = |key: &str| value_at(value, &[key]).and_then(Value::as_str).map(|text| self.expand(text));
        let name = value.as_str().map(str::to_owned).or_else(|| text("source"))?;
        let target = text("target").unwrap_or_else(|| name.clone());
        let at = if target.starts_with('/') { target } else { format!("{usual}{target}") };
        let file = value_at(&self.yaml, &[kind, &name, "file"]).and_then(Value::as_str)?;
        Some(Mount { at, path: normal(&self.folder.join(self.expand(file))), volume: None })
    }

    fn project(&self) -> String {
        let named = value_at(&self.yaml, &["name"]).and_then(Value::as_str).map(|name| self.expand(name));
        let folder = || self.folder.file_name().map(|name| name.to_string_lossy().to_lowercase());
        named.or_else(|| self.variables.get("COMPOSE_PROJECT_NAME").cloned()).or_else(folder).unwrap_or_default()
    }
}

/// Replaces `${NAME}`, `${NAME:-usual}` and `$NAME`; `$$` is a dollar sign.
fn expand(text: &str, variables: &Environment) -> String {
    if !text.contains('$') {
        return text.to_owned();
    }
    let text = script::expand(&text.replace("$$", "\u{2}"), variables);
    text.replace('\u{2}', "$").replace(WORKING_FOLDER, ".")
}

fn entries(value: Option<&Value>) -> Vec<(String, &Value)> {
    let mapping = value.and_then(Value::as_mapping);
    mapping.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value))).collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        _ => None,
    }
}

/// One text or a list of texts; of a mapping its `path`.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Sequence(items)) => items
            .iter()
            .filter_map(|item| scalar(item).or_else(|| value_at(item, &["path"]).and_then(scalar)))
            .collect(),
        Some(other) => scalar(other).into_iter().collect(),
        None => Vec::new(),
    }
}

fn command(value: Option<&Value>, file: &File) -> Vec<String> {
    match value {
        Some(Value::String(text)) => {
            words(&file.expand(text)).iter().map(|word| script::expand(word, &Environment::new())).collect()
        }
        other => texts(other).iter().map(|text| file.expand(text)).collect(),
    }
}

fn environment(value: Option<&Value>, file: &File) -> Environment {
    let mut out = Environment::new();
    match value {
        Some(Value::Sequence(items)) => {
            for item in items.iter().filter_map(Value::as_str) {
                // A name alone takes the value that compose was started with.
                let (name, value) = match item.split_once('=') {
                    Some((name, value)) => (name, Some(file.expand(value))),
                    None => (item, file.variables.get(item).cloned()),
                };
                out.extend(value.map(|value| (name.trim().to_owned(), value)));
            }
        }
        other => {
            for (name, value) in entries(other) {
                let value = scalar(value).map(|value| file.expand(&value)).or(file.variables.get(&name).cloned());
                out.extend(value.map(|value| (name, value)));
            }
        }
    }
    out
}

/// `NAME=value` lines. Values may be quoted, may have a comment behind them, and may name the variables before them and the project's, unless
/// in single quotes.
pub(super) fn environment_file(path: &Path, project: &Environment) -> Environment {
    let (mut out, mut known) = (Environment::new(), project.clone());
    for line in text_of(path).unwrap_or_default().lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.trim_start_matches("export ").split_once('=') else { continue };
        let quoted =
            |quote: char| value.trim_start().strip_prefix(quote).map(|rest| rest.split(quote).next().unwrap_or(rest));
        let plain = || value.split([' ', '\t']).take_while(|word| !word.starts_with('#'));
        let value = match (quoted('\''), quoted('"')) {
            (Some(literal), _) => literal.to_owned(),
            (_, Some(text)) => expand(text, &known),
            _ => expand(plain().collect::<Vec<_>>().join(" ").trim(), &known),
        };
        known.insert(name.trim().to_owned(), value.clone());
        out.insert(name.trim().to_owned(), value);
    }
    out
}

/// A volume in its short or long form. What lies in memory only is none.
fn mount(value: &Value, file: &File, base: &File, root: &Path, known: &[PathBuf]) -> Option<Mount> {
    let (mut source, at) = match value {
        Value::String(text) => {
            let text = file.expand(text);
            let mut parts = text.split(':');
            let (source, at) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            (source, at)
        }
        other => {
            let text = |key: &str| value_at(other, &[key]).and_then(Value::as_str).map(|text| file.expand(text));
            if text("type").as_deref() == Some("tmpfs") {
                return None;
            }
            (text("source").or(text("src"))?, text("target").or(text("dst")).or(text("destination"))?)
        }
    };
    let at = normal(Path::new(&at)).display().to_string();
    if let Some(inside) = source.strip_prefix('~') {
        source = format!("{}{inside}", home(&file.variables));
    }
    if source.starts_with(['/', '.']) {
        let places = [&file.folder, &base.folder].map(|folder| normal(&folder.join(&source)));
        let below_root = root.join(source.trim_start_matches('/'));
        let here = places.iter().chain(source.starts_with('/').then_some(&below_root)).find(|path| path.exists());
        let path = here.unwrap_or(&places[1]).clone();
        return Some(Mount { at, path, volume: None });
    }
    let declared = value_at(&base.yaml, &["volumes", &source]).or_else(|| value_at(&file.yaml, &["volumes", &source]));
    let text = |path: &[&str]| declared.and_then(|declared| value_at(declared, path)).and_then(scalar);
    let inside = value_at(value, &["volume", "subpath"]).and_then(scalar).map(|inside| file.expand(&inside));
    let mounted = |path: PathBuf| inside.as_ref().map_or(path.clone(), |inside| path.join(inside));
    if let Some(device) = text(&["driver_opts", "device"]).filter(|device| device.starts_with(['/', '.'])) {
        let path = mounted(normal(&file.folder.join(file.expand(&device))));
        return Some(Mount { at, path, volume: Some(source) });
    }
    let external = text(&["external"]).is_some_and(|external| external == "true");
    let name = text(&["name"]).map(|name| file.expand(&name));
    let name = name.unwrap_or_else(|| if external { source.clone() } else { format!("{}_{source}", base.project()) });
    Some(Mount { at, path: mounted(volume_path(&name, &source, root, known)), volume: Some(source) })
}

/// Where a named volume's data lies: where docker has it, or in a copy of that below the root.
pub(super) fn volume_path(name: &str, short: &str, root: &Path, known: &[PathBuf]) -> PathBuf {
    let usual = VOLUMES.map(|folder| Path::new(folder).join(name).join("_data"));
    let below = ["volumes", "docker/volumes", "", &VOLUMES[0][1..], &VOLUMES[1][1..]]
        .map(|folder| root.join(folder).join(name).join("_data"));
    if let Some(path) = usual.iter().chain(&below).find(|path| path.is_dir()) {
        return path.clone();
    }
    let suffix = format!("_{short}");
    let held = known.iter().flat_map(|data| data.ancestors().take_while(|path| path.starts_with(root)));
    let named = |path: &&Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name == short || name.ends_with(&suffix)
    };
    match held.collect::<Vec<_>>().into_iter().find(named) {
        Some(path) if path.join("_data").is_dir() => path.join("_data"),
        Some(path) => path.to_path_buf(),
        None => usual[0].clone(),
    }
}
