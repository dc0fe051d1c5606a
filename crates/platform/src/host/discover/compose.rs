//! Services of docker-compose files: their environment, volumes and bind mounts, put together of every file that has something of them.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::{Environment, value_at};
use serde_norway::Value;

use super::container::{Container, Containers, docker_commands};
use super::normal;
use super::project::{File, Given, Project, projects};
use super::remark::Remarks;
use super::script::{self, WORKING_FOLDER, home};
use super::started::Mount;
use super::tree::text_of;
use crate::host::Commands;
use crate::shell::{settled, words};

/// How far services that extend others, or have their volumes, are followed.
const MAX_EXTENDS: usize = 8;
/// What no two files say differently of one node.
const OWN: [&str; 4] =
    ["CORE_PEER_ID", "CORE_PEER_LOCALMSPID", "ORDERER_GENERAL_LOCALMSPID", "FABRIC_CA_SERVER_CA_NAME"];
/// Where docker and podman keep named volumes.
const VOLUMES: [&str; 2] = ["/var/lib/docker/volumes", "/var/lib/containers/storage/volumes"];

/// The nodes of all compose files. `known`: directories that hold data, among which the places of named volumes are looked for.
pub(super) fn read(
    files: &[PathBuf],
    given: Given<'_>,
    root: &Path,
    known: &[PathBuf],
    remarks: &mut Remarks,
) -> Containers {
    let (projects, extended) = projects(files, given, root, remarks);
    let mut out = Containers::default();
    for project in &projects {
        for name in project.services() {
            let only_extended = |(position, _): &(usize, &Value)| {
                extended.contains(&(project.files[*position].path.clone(), name.clone()))
            };
            if project.parts(&name).iter().all(only_extended) {
                continue;
            }
            let folder = project.files.first().map_or(Path::new("/"), |first| &first.folder);
            out.add(service(&name, project, root, known), folder);
        }
    }
    out
}

/// Whether what is said of two services of one name cannot be said of one container.
pub(super) fn is_otherwise(service: &str, one: &Container, other: &Container) -> bool {
    let named = |container: &Container| container.name != service;
    let differ = |name: &&str| match (one.environment.get(*name), other.environment.get(*name)) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    };
    (named(one) && named(other) && one.name != other.name) || OWN.iter().any(differ)
}

/// Whether two services have something else at the same place.
pub(super) fn is_placed_otherwise(one: &Container, other: &Container) -> bool {
    one.mounts.iter().any(|a| other.mounts.iter().any(|b| a.at == b.at && a.path != b.path))
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
pub(super) fn service(name: &str, project: &Project, root: &Path, known: &[PathBuf]) -> Container {
    service_in(name, project, root, known, 0)
}

fn service_in(name: &str, project: &Project, root: &Path, known: &[PathBuf], depth: usize) -> Container {
    let (parts, all) = (project.parts(name), &project.files);
    let mut out = Container { name: name.to_owned(), ..Container::default() };
    let mut contained = None;
    let (mut entry, mut arguments) = (Vec::new(), Vec::new());
    let mut of_others: Vec<Mount> = Vec::new();
    for (position, service) in parts.iter().flat_map(|(position, service)| with_bases(*position, service, all, 0)) {
        let file = &all[position];
        let text = |key: &str| value_at(service, &[key]).and_then(Value::as_str).map(|text| file.expand(text));
        out.image = text("image").unwrap_or(std::mem::take(&mut out.image));
        contained = text("container_name").or(contained);
        out.hosts.extend(text("hostname"));
        for (_, network) in entries(value_at(service, &["networks"])) {
            out.hosts.extend(texts(value_at(network, &["aliases"])).iter().map(|alias| file.expand(alias)));
        }
        for (key, kept) in [("entrypoint", &mut entry), ("command", &mut arguments)] {
            let given = command(value_at(service, &[key]), file);
            if !given.is_empty() {
                *kept = given;
            }
        }
        for named in texts(value_at(service, &["env_file"])) {
            let path = normal(&file.folder.join(file.expand(&named)));
            out.environment.extend(environment_file(&path, &file.variables));
            out.reads.extend(path.canonicalize());
        }
        out.environment.extend(environment(value_at(service, &["environment"]), file));
        for volume in value_at(service, &["volumes"]).and_then(Value::as_sequence).into_iter().flatten() {
            let mount = mount(volume, file, project, root, known);
            if let Some(mount) = mount {
                out.mounts.retain(|known| known.at != mount.at);
                out.mounts.push(mount);
            }
        }
        for other in texts(value_at(service, &["volumes_from"])) {
            let other = file.expand(&other);
            let other = other.split(':').next().unwrap_or_default();
            if depth < MAX_EXTENDS && other != name && !other.is_empty() {
                of_others.extend(service_in(other, project, root, known, depth + 1).mounts);
            }
        }
        for (kind, usual) in [("secrets", "/run/secrets/"), ("configs", "/")] {
            let given = value_at(service, &[kind]).and_then(Value::as_sequence);
            out.mounts
                .extend(given.into_iter().flatten().filter_map(|given| file_given(project, file, kind, usual, given)));
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
    out.command = [entry, arguments].concat();
    // What it has itself hides what it has of others.
    of_others.retain(|mount| !out.mounts.iter().any(|own| own.at == mount.at));
    out.mounts.extend(of_others);
    let origin: Vec<String> = parts.iter().map(|(at, _)| all[*at].path.display().to_string()).collect();
    out.origin = format!("{}, service {name}", origin.join(" with "));
    out.hosts.push(name.to_owned());
    out.hosts.extend(contained.clone());
    let folder = all.first().map(|first| first.folder.display().to_string()).unwrap_or_default();
    let reached = out.hosts.iter().map(|host| (format!("project {} in {folder}", project.name), host.clone()));
    out.aliases = reached.collect();
    out.commands = match &contained {
        Some(container) => docker_commands(container),
        None => {
            // The first file's folder is the project's: none of them may be left out.
            let mut words = vec!["docker compose".to_owned()];
            words.extend(project.named_outside.then(|| format!("-p {}", project.name)));
            words.extend(all.iter().take(project.named).map(|file| format!("-f {}", quoted(&file.path))));
            let compose = words.join(" ");
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

/// A secret or configuration of the project as a file of a service's container.
fn file_given(project: &Project, file: &File, kind: &str, usual: &str, value: &Value) -> Option<Mount> {
    let text = |key: &str| value_at(value, &[key]).and_then(Value::as_str).map(|text| file.expand(text));
    let name = value.as_str().map(str::to_owned).or_else(|| text("source"))?;
    let target = text("target").unwrap_or_else(|| name.clone());
    let at = if target.starts_with('/') { target } else { format!("{usual}{target}") };
    let (declaring, declared) = project.declared(kind, &name)?;
    let path = value_at(declared, &["file"]).and_then(Value::as_str)?;
    Some(Mount { at, path: normal(&declaring.folder.join(declaring.expand(path))), volume: None })
}

/// Replaces `${NAME}`, `${NAME:-usual}` and `$NAME`; `$$` is a dollar sign.
pub(super) fn expand(text: &str, variables: &Environment) -> String {
    if !text.contains('$') {
        return text.to_owned();
    }
    let text = script::expand(&text.replace("$$", "\u{2}"), variables);
    text.replace('\u{2}', "$").replace(WORKING_FOLDER, ".")
}

pub(super) fn entries(value: Option<&Value>) -> Vec<(String, &Value)> {
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
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
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
        Some(Value::String(text)) => words(&file.expand(text)).iter().map(|word| settled(word)).collect(),
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
fn mount(value: &Value, file: &File, project: &Project, root: &Path, known: &[PathBuf]) -> Option<Mount> {
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
        let place = normal(&file.folder.join(&source));
        let below_root = root.join(source.trim_start_matches('/'));
        let here = [&place, &below_root].into_iter().find(|path| path.exists());
        let path = here.filter(|_| source.starts_with('/')).unwrap_or(&place).clone();
        return Some(Mount { at, path, volume: None });
    }
    let (declaring, declared) = project.declared("volumes", &source).unzip();
    let declaring = declaring.unwrap_or(file);
    let text = |path: &[&str]| {
        let text = declared.and_then(|declared| value_at(declared, path)).and_then(scalar);
        text.map(|text| declaring.expand(&text))
    };
    let inside = value_at(value, &["volume", "subpath"]).and_then(scalar).map(|inside| file.expand(&inside));
    let mounted = |path: PathBuf| inside.as_ref().map_or(path.clone(), |inside| path.join(inside));
    if let Some(device) = text(&["driver_opts", "device"]).filter(|device| device.starts_with(['/', '.'])) {
        let path = mounted(normal(&declaring.folder.join(device)));
        return Some(Mount { at, path, volume: Some(source) });
    }
    // Another project's: by its own name, or by the one that older files give it.
    let of_others = text(&["external", "name"]);
    let external = of_others.is_some() || text(&["external"]).is_some_and(|external| external == "true");
    let usual = || if external { source.clone() } else { format!("{}_{source}", project.name) };
    let name = text(&["name"]).or(of_others).unwrap_or_else(usual);
    Some(Mount { at, path: mounted(volume_path(&name, root, known)), volume: Some(source) })
}

/// Where a named volume's data lies: where docker has it, or in a copy of that below the root.
pub(super) fn volume_path(name: &str, root: &Path, known: &[PathBuf]) -> PathBuf {
    let usual = VOLUMES.map(|folder| Path::new(folder).join(name).join("_data"));
    let below = ["volumes", "docker/volumes", "", &VOLUMES[0][1..], &VOLUMES[1][1..]]
        .map(|folder| root.join(folder).join(name).join("_data"));
    if let Some(path) = usual.iter().chain(&below).find(|path| path.is_dir()) {
        return path.clone();
    }
    let mut held = known.iter().flat_map(|data| data.ancestors().take_while(|path| path.starts_with(root)));
    // Never one whose name only ends so: that is another project's.
    match held.find(|path| path.file_name().is_some_and(|known| known == name)) {
        Some(path) if path.join("_data").is_dir() => path.join("_data"),
        Some(path) => path.to_path_buf(),
        None => usual[0].clone(),
    }
}
