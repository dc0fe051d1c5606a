//! Projects of docker compose: which files belong together and in which order, and what their paths, variables and names begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fabkeep_ledger::node_settings::{Environment, value_at};
use fabkeep_network::Remedy;
use serde_norway::Value;

use super::compose::{self, entries, environment_file, expand, texts};
use super::normal;
use super::remark::{Remark, Remarks};
use super::tree::text_of;

/// Most files read that others include or extend.
const MAX_BASES: usize = 100;
/// The file that compose takes in a folder, and the one that it puts over it: of each the first that is there.
const USUAL: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];
/// What a service has that can be started without another file's part of it.
const WHOLE: [&str; 3] = ["image", "build", "extends"];

/// One compose file of a project.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: PathBuf,
    /// Where its relative paths begin: for every file that compose is started with, the folder of the first of them.
    pub folder: PathBuf,
    pub yaml: Rc<Value>,
    pub variables: Environment,
}

/// The files that compose is started with together.
#[derive(Debug, Clone)]
pub(super) struct Project {
    /// Those that it is started with in their order, what they include, and what those extend.
    pub files: Vec<File>,
    /// How many of them it is started with.
    pub named: usize,
    /// How many of them have services of the project.
    pub own: usize,
    pub name: String,
    /// The name is given by the environment that fabkeep runs in.
    pub named_outside: bool,
    /// Services whose parts belong to another project.
    without: BTreeSet<String>,
}

/// How the files are known.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// Named in this order, by a person with this environment.
    InOrder(&'a Environment),
    /// Found below a root: their names and what is in them say which belong together.
    Found,
}

/// A compose file as it was read.
#[derive(Clone)]
struct Source {
    path: PathBuf,
    yaml: Rc<Value>,
}

/// Whether a file's services can be a part of a project.
enum Fit {
    No,
    Yes,
    /// It says of this service what the project says otherwise.
    Contradicts(String),
}

impl Source {
    fn read(path: &Path) -> Result<Option<Source>, String> {
        let path = normal(&std::path::absolute(path).map_err(|error| error.to_string())?);
        let Some(text) = text_of(&path) else { return Err("it cannot be read as text".to_owned()) };
        let mut yaml: Value = serde_norway::from_str(&text).map_err(|error| format!("it is not YAML ({error})"))?;
        yaml.apply_merge().map_err(|error| format!("its merge keys cannot be followed ({error})"))?;
        let is_compose = value_at(&yaml, &["services"]).is_some() || value_at(&yaml, &["include"]).is_some();
        Ok(is_compose.then(|| Source { path, yaml: Rc::new(yaml) }))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn file_name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn services(&self) -> Vec<(String, &Value)> {
        entries(value_at(&self.yaml, &["services"]))
    }

    /// Whether none of its services can be started without another file.
    fn only_adds(&self) -> bool {
        let services = self.services();
        !services.is_empty() && !services.iter().any(|(_, service)| is_whole(service))
    }

    fn has(&self, name: &str) -> bool {
        value_at(&self.yaml, &["services", name]).is_some()
    }
}

fn is_whole(service: &Value) -> bool {
    WHOLE.iter().any(|key| value_at(service, &[key]).is_some())
}

/// The projects of these files, and the services that are only extended, which are no node of their own.
pub(super) fn projects(
    files: &[PathBuf],
    given: Given<'_>,
    root: &Path,
    remarks: &mut Remarks,
) -> (Vec<Project>, BTreeSet<(PathBuf, String)>) {
    let mut sources: Vec<Source> = Vec::new();
    for path in files {
        match Source::read(path) {
            Ok(Some(source)) if sources.iter().all(|known| known.path != source.path) => sources.push(source),
            Ok(_) => {}
            Err(problem) => remarks.push(format!("{}: {problem}: its services were not read", path.display())),
        }
    }
    let groups = match given {
        Given::InOrder(environment) => in_order(sources, environment, root, remarks),
        Given::Found => found(sources, root, remarks),
    };
    let nothing = Environment::new();
    let environment = match given {
        Given::InOrder(environment) => environment,
        Given::Found => &nothing,
    };
    let mut extended = BTreeSet::new();
    let projects = groups.into_iter().map(|(sources, without)| {
        let mut project = Project { without, ..Project::of(&sources, None, environment) };
        project.include(remarks);
        project.extend(&mut extended, remarks);
        project
    });
    (projects.collect(), extended)
}

type Group = (Vec<Source>, BTreeSet<String>);

/// All files are one project as compose reads a command line, but for those that cannot be.
fn in_order(sources: Vec<Source>, environment: &Environment, root: &Path, remarks: &mut Remarks) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    for source in sources {
        let mut at = None;
        for (position, (group, _)) in out.iter().enumerate() {
            match fit(group, &source, environment, root, true) {
                Fit::No => continue,
                Fit::Yes => {}
                Fit::Contradicts(service) => remarks.push(format!(
                    "{} and {} both define the service {service} with an image, and have its volumes in different places: they \
                     were read as one project, in which the second counts; if they are two projects, name them in two runs",
                    names_of(group),
                    source.path.display()
                )),
            }
            at = Some(position);
            break;
        }
        match at {
            Some(position) => out[position].0.push(source),
            None => out.push((vec![source], BTreeSet::new())),
        }
    }
    out
}

fn names_of(group: &[Source]) -> String {
    group.iter().map(|source| source.path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// In each folder the file that compose takes with the one that it puts over it; then those that only add to others.
fn found(mut sources: Vec<Source>, root: &Path, remarks: &mut Remarks) -> Vec<Group> {
    let nothing = Environment::new();
    let (mut included_files, mut extended_files) = (BTreeSet::new(), BTreeSet::new());
    for source in &sources {
        let project = Project::of(std::slice::from_ref(source), None, &nothing);
        let Some(file) = project.files.first() else { continue };
        included_files.extend(included(file).into_iter().flat_map(|(paths, _)| paths));
        let bases = source.services().into_iter().filter_map(|(_, service)| Some(file.extended(service)?.0));
        extended_files.extend(bases.filter(|path| *path != source.path));
    }
    sources.retain(|source| !included_files.contains(&source.path));
    sources.sort_by(|a, b| (a.path.components().count(), &a.path).cmp(&(b.path.components().count(), &b.path)));
    let mut folders: BTreeMap<PathBuf, Vec<Source>> = BTreeMap::new();
    for source in sources {
        folders.entry(source.folder().to_path_buf()).or_default().push(source);
    }
    let (mut out, mut rest): (Vec<Group>, Vec<Source>) = (Vec::new(), Vec::new());
    for (folder, mut all) in folders {
        let mut take = |name: &str| {
            let path = normal(&folder.join(name));
            all.iter().position(|source| source.path == path).map(|position| all.remove(position))
        };
        let settings = environment_file(&folder.join(".env"), &nothing);
        let mut group: Vec<Source> = match settings.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
            Some(list) => {
                let mark = settings.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
                list.split(mark).filter_map(&mut take).collect()
            }
            None => {
                let base = USUAL.iter().find_map(|name| take(name));
                let over = if base.is_some() { OVERRIDES.iter().find_map(|name| take(name)) } else { None };
                base.into_iter().chain(over).collect()
            }
        };
        if group.first().is_some_and(|first| first.only_adds()) {
            rest.append(&mut group);
        } else if !group.is_empty() {
            out.push((group, BTreeSet::new()));
        }
        rest.append(&mut all);
    }
    out.sort_by_key(|(group, _)| group.first().map_or(0, |first| first.path.components().count()));
    rest.sort_by(|a, b| (a.path.components().count(), &a.path).cmp(&(b.path.components().count(), &b.path)));
    // Those that stand alone first: what only adds may add to any of them.
    let (adding, whole): (Vec<Source>, Vec<Source>) = rest.into_iter().partition(Source::only_adds);
    for source in whole.into_iter().chain(adding) {
        let mut fits = Vec::new();
        let mut without = BTreeSet::new();
        // What others extend is read with them.
        let groups = if extended_files.contains(&source.path) { &[] } else { out.as_slice() };
        for (position, (group, _)) in groups.iter().enumerate() {
            match fit(group, &source, &nothing, root, false) {
                Fit::Yes => fits.push(position),
                Fit::No => {}
                Fit::Contradicts(service) => {
                    let what = format!(
                        "{} says of the service {service} otherwise than {}, and nothing shows whether compose is started with \
                         both: its part was left out",
                        source.path.display(),
                        names_of(group)
                    );
                    remarks.push(Remark { what, remedy: Some(Remedy::NameComposeFiles) });
                    without.insert(service);
                }
            }
        }
        match fits.as_slice() {
            [] => out.push((vec![source], without)),
            [position] => out[*position].0.push(source),
            [position, ..] if !source.only_adds() => out[*position].0.push(source),
            several => {
                let what = format!(
                    "{} adds to services of several projects ({}), and nothing shows with which of them compose is started: it was \
                     left out",
                    source.path.display(),
                    several.iter().map(|position| names_of(&out[*position].0)).collect::<Vec<_>>().join("; ")
                );
                remarks.push(Remark { what, remedy: Some(Remedy::NameComposeFiles) });
            }
        }
    }
    out
}

/// Whether a file belongs to a project. `named`: a person named them together.
fn fit(group: &[Source], source: &Source, environment: &Environment, root: &Path, named: bool) -> Fit {
    let Some(first) = group.first() else { return Fit::No };
    let elsewhere = source.folder() != first.folder();
    let services = source.services();
    let shared = services.iter().filter(|(name, _)| group.iter().any(|known| known.has(name)));
    let shared: Vec<&(String, &Value)> = shared.collect();
    if named && shared.is_empty() {
        // Two folders' own files with nothing in common are two projects.
        let own = elsewhere && USUAL.contains(&source.file_name()) && USUAL.contains(&first.file_name());
        return if own { Fit::No } else { Fit::Yes };
    }
    if shared.is_empty() || (!named && !source.folder().starts_with(first.folder())) {
        return Fit::No;
    }
    let alone = std::slice::from_ref(source);
    let project = Project::of(group, None, environment);
    let moved = Project::of(alone, Some(first.folder()), environment);
    let own = Project::of(alone, None, environment);
    let mut contradicts = None;
    for (name, service) in shared {
        let whole = is_whole(service);
        let known = compose::service(name, &project, root, &[]);
        let other = compose::service(name, &moved, root, &[]);
        let otherwise = compose::is_otherwise(name, &known, &other);
        let placed = compose::is_placed_otherwise(&known, &other)
            || (elsewhere && !named && compose::is_placed_otherwise(&known, &compose::service(name, &own, root, &[])));
        let both =
            whole && group.iter().any(|source| value_at(&source.yaml, &["services", name]).is_some_and(is_whole));
        match named {
            true if both && otherwise => return Fit::No,
            true if both && placed && !source.file_name().contains("override") => contradicts = Some(name.clone()),
            true => {}
            false if (otherwise || placed) && whole => {
                if otherwise || both {
                    return Fit::No;
                }
            }
            false if otherwise || placed => contradicts = Some(name.clone()),
            false => {}
        }
    }
    contradicts.map_or(Fit::Yes, Fit::Contradicts)
}

impl Project {
    /// The project of these files. `folder`: where their paths begin, else in the folder of the first.
    fn of(sources: &[Source], folder: Option<&Path>, environment: &Environment) -> Project {
        let folder = folder.or_else(|| sources.first().map(Source::folder)).unwrap_or(Path::new("/")).to_path_buf();
        let mut variables = environment_file(&folder.join(".env"), environment);
        variables.extend(environment.clone());
        let file = |source: &Source| File {
            path: source.path.clone(),
            folder: folder.clone(),
            yaml: source.yaml.clone(),
            variables: variables.clone(),
        };
        let files: Vec<File> = sources.iter().map(file).collect();
        let given = variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned();
        let of_file =
            || files.iter().rev().find_map(|file| Some(file.expand(value_at(&file.yaml, &["name"])?.as_str()?)));
        let of_folder = || folder_name(&folder.file_name().unwrap_or_default().to_string_lossy());
        let name = given.or_else(of_file).unwrap_or_else(of_folder);
        let named_outside = environment.get("COMPOSE_PROJECT_NAME").is_some_and(|given| *given == name);
        let (named, own) = (files.len(), files.len());
        Project { files, named, own, name, named_outside, without: BTreeSet::new() }
    }

    /// Reads what its files include.
    fn include(&mut self, remarks: &mut Remarks) {
        let mut position = 0;
        while position < self.files.len() {
            for (paths, folder) in included(&self.files[position]) {
                let outer = self.files[position].variables.clone();
                let mut variables = environment_file(&folder.join(".env"), &outer);
                variables.extend(outer);
                for path in paths {
                    if self.files.iter().any(|known| known.path == path) || self.files.len() >= self.named + MAX_BASES {
                        continue;
                    }
                    match Source::read(&path) {
                        Ok(Some(Source { path, yaml })) => {
                            let (folder, variables) = (folder.clone(), variables.clone());
                            self.files.push(File { path, folder, yaml, variables });
                        }
                        Ok(None) => {}
                        Err(problem) => {
                            remarks.push(format!("{}: {problem}: its services were not read", path.display()));
                        }
                    }
                }
            }
            position += 1;
        }
        self.own = self.files.len();
    }

    /// Reads what its services extend.
    fn extend(&mut self, extended: &mut BTreeSet<(PathBuf, String)>, remarks: &mut Remarks) {
        let mut position = 0;
        while position < self.files.len() {
            let file = &self.files[position];
            let bases = entries(value_at(&file.yaml, &["services"])).into_iter().filter_map(|(_, service)| {
                let base = file.extended(service)?;
                // One of the same file is a service like the others when it has volumes.
                let of_file = value_at(&file.yaml, &["services", &base.1]);
                let whole = base.0 == file.path && of_file.is_some_and(|base| value_at(base, &["volumes"]).is_some());
                Some((base, whole))
            });
            let bases: Vec<((PathBuf, String), bool)> = bases.collect();
            let variables = file.variables.clone();
            for (base, whole) in bases {
                let known = self.files.iter().any(|known| known.path == base.0);
                if !known && self.files.len() < self.own + MAX_BASES {
                    match Source::read(&base.0) {
                        Ok(Some(source)) => self.files.push(File {
                            folder: source.folder().to_path_buf(),
                            path: source.path,
                            yaml: source.yaml,
                            variables: variables.clone(),
                        }),
                        Ok(None) => {}
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
    }

    /// The parts of a service, the one that counts least first.
    pub fn parts(&self, name: &str) -> Vec<(usize, &Value)> {
        let own = self.files.iter().enumerate().take(self.own);
        own.filter_map(|(position, file)| Some((position, value_at(&file.yaml, &["services", name])?))).collect()
    }

    /// The names of its services.
    pub fn services(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for file in self.files.iter().take(self.own) {
            for (name, _) in entries(value_at(&file.yaml, &["services"])) {
                if !out.contains(&name) && !self.without.contains(&name) {
                    out.push(name);
                }
            }
        }
        out
    }

    /// What it declares of a volume, a secret or a configuration, and the file that does.
    pub fn declared(&self, kind: &str, name: &str) -> Option<(&File, &Value)> {
        self.files.iter().rev().find_map(|file| Some((file, value_at(&file.yaml, &[kind, name])?)))
    }
}

/// What a file includes: the files, and the folder in which their paths begin.
fn included(file: &File) -> Vec<(Vec<PathBuf>, PathBuf)> {
    let all = value_at(&file.yaml, &["include"]).and_then(Value::as_sequence).into_iter().flatten();
    let place = |path: &String| normal(&file.folder.join(file.expand(path)));
    all.filter_map(|one| {
        let paths = value_at(one, &["path"]).map_or_else(|| texts(Some(one)), |paths| texts(Some(paths)));
        let paths: Vec<PathBuf> = paths.iter().map(place).collect();
        let folder = value_at(one, &["project_directory"]).and_then(Value::as_str).map(|path| place(&path.to_owned()));
        let folder = folder.or_else(|| paths.first()?.parent().map(Path::to_path_buf))?;
        Some((paths, folder))
    })
    .collect()
}

/// The name that compose gives the project of a folder.
fn folder_name(folder: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let name: String = folder.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

impl File {
    pub fn expand(&self, text: &str) -> String {
        expand(text, &self.variables)
    }

    /// The file and the service that a service extends.
    pub fn extended(&self, service: &Value) -> Option<(PathBuf, String)> {
        let extends = value_at(service, &["extends"])?;
        let text = |key: &str| value_at(extends, &[key]).and_then(Value::as_str).map(|text| self.expand(text));
        let path = text("file").map_or_else(|| self.path.clone(), |file| normal(&self.folder.join(file)));
        Some((path, extends.as_str().map(str::to_owned).or_else(|| text("service"))?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_project_is_named_as_compose_names_it() {
        for (folder, name) in
            [("Net.Prod v2", "netprodv2"), ("net", "net"), ("_-Net_1", "net_1"), ("net-2", "net-2"), ("Fäb", "fb")]
        {
            assert_eq!(folder_name(folder), name, "{folder}");
        }
    }

    #[test]
    fn the_environment_counts_before_the_projects_settings() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        std::fs::write(&file, "services:\n  p0: {image: '${WHERE}-${OTHER}'}\n").unwrap();
        std::fs::write(folder.path().join(".env"), "WHERE=a\nOTHER=b\nCOMPOSE_PROJECT_NAME=c\n").unwrap();
        for (more, name, image, command) in [
            (("WHERE", "d"), "c", "d-b", "docker compose -f "),
            (("COMPOSE_PROJECT_NAME", "e"), "e", "a-b", "docker compose -p e -f "),
        ] {
            let environment = Environment::from([(more.0.to_owned(), more.1.to_owned())]);
            let given = Given::InOrder(&environment);
            let (found, _) = projects(std::slice::from_ref(&file), given, folder.path(), &mut Remarks::default());
            let service = compose::service("p0", &found[0], folder.path(), &[]);
            assert_eq!((found[0].name.as_str(), service.image.as_str()), (name, image));
            assert!(service.commands.stop.as_ref().unwrap().starts_with(command), "{:?}", service.commands);
        }
    }
}
