//! Finds places that a restore must not write to: another node's directory under a second path (a link, a bind mount), data of captured
//! nodes around a copy, the repository that is read.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, NodeDirectory, NodeId, Remedy, Rule};
use fabkeep_platform::{Host, Mounts, Platform, may_be_shared};
use fabkeep_store::NameKey;

use super::Places;
use super::plan::{Plan, PlannedDirectory};
use super::prove::is_as_captured;
use super::staging::resolve;
use crate::EngineError;
use crate::error::io;
use crate::point::RecoveryPoint;

/// A directory as the system knows it under whichever path: the nearest folder that exists, and what is missing below it.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    missing: PathBuf,
}

impl Identity {
    fn of(path: &Path) -> Option<Identity> {
        path.ancestors().find_map(|above| {
            let found = above.metadata().ok()?;
            let missing = path.strip_prefix(above).ok()?.to_path_buf();
            Some(Identity { device: found.dev(), inode: found.ino(), missing })
        })
    }
}

/// A directory, or a mount inside it.
struct Root {
    path: PathBuf,
    /// Its own identity, and those of all folders above it, under every path that mounts show it under.
    identities: Vec<Identity>,
}

impl Root {
    fn new(path: &Path, mounts: &Mounts) -> Root {
        let own = Identity::of(path);
        let aliases = mounts.aliases(path).into_iter().filter(|alias| Identity::of(alias) == own);
        let identities = aliases.flat_map(|alias| alias.ancestors().filter_map(Identity::of).collect::<Vec<_>>());
        Root { path: path.to_path_buf(), identities: identities.collect() }
    }

    /// A directory and the mounts inside it.
    fn all(path: &Path, mounts: &Mounts) -> Vec<Root> {
        let inside = mounts.at_or_below(path).map(|mount| mount.point.as_path()).filter(|point| *point != path);
        std::iter::once(path).chain(inside).map(|path| Root::new(path, mounts)).collect()
    }

    /// Whether it is the other one, or lies in it.
    fn is_in(&self, other: &Root) -> bool {
        other.identities.first().is_some_and(|identity| self.identities.contains(identity))
    }

    /// How it lies to another one, as part of a sentence. `nested`: one may lie in the other by its path, as one node's data in another's.
    fn relation(&self, other: &Root, nested: bool) -> Option<&'static str> {
        let by_path =
            |inner: &Root, outer: &Root| nested && inner.path != outer.path && inner.path.starts_with(&outer.path);
        match (self.is_in(other), other.is_in(self)) {
            (true, true) => Some("is the same directory as"),
            (true, _) if !by_path(self, other) => Some("lies in"),
            (_, true) if !by_path(other, self) => Some("contains"),
            _ => None,
        }
    }
}

/// Another directory than the one that is restored.
struct Other {
    /// Its position in the plan, if it is restored too.
    planned: Option<usize>,
    id: NodeId,
    roots: Vec<Root>,
}

/// Returns the nodes that have the same directory and are not restored.
fn used_by_others<'h>(host: &'h Host, planned: &'h PlannedDirectory) -> impl Iterator<Item = &'h NodeId> {
    let others = host.network().nodes().filter(|node| node.id != planned.id && !planned.shared.contains(&node.id));
    let is_it = |known: &NodeDirectory| {
        may_be_shared(known.role)
            && resolve(&planned.id, Path::new(&known.path)).is_ok_and(|path| path == planned.staging.place)
    };
    others.filter(move |node| node.directories.iter().any(is_it)).map(|node| &node.id)
}

/// Returns whether a node that is not restored has the same directory.
pub(super) fn is_used_by_others(host: &Host, planned: &PlannedDirectory) -> bool {
    used_by_others(host, planned).next().is_some()
}

/// What is there of a directory that another node uses too stays only if it is what was captured.
fn shared(planned: &PlannedDirectory, other: &NodeId, point: &RecoveryPoint, names: &NameKey) -> Finding {
    let place = planned.staging.place.display();
    let captured = &point.nodes[planned.node].directories[planned.directory];
    if is_as_captured(planned, captured, names) {
        return Finding::note(
            Rule::NotOverwritten,
            &planned.id,
            format!("{place} is used by {other} too; it equals the captured directory and stays as it is"),
            "no action is needed",
        );
    }
    Finding::error(
        Rule::NotOverwritten,
        &planned.id,
        format!("{place} is used by {other} too, which is not restored, and differs from the captured directory"),
        Remedy::RestoreNodes { nodes: vec![planned.id.clone(), other.clone()], replace: false }
            .or(Remedy::RestoreElsewhere.and("compare")),
    )
}

/// Refuses places that are, hold, or lie in what is not theirs. What stays as it is may be.
pub(super) fn check(
    plan: &mut Plan<'_>,
    point: &RecoveryPoint,
    names: &NameKey,
    repository: Option<&Path>,
) -> Result<(), EngineError> {
    let mounts = &Mounts::read()?;
    let captured = |index: usize| {
        let planned = &plan.directories[index];
        Path::new(&point.nodes[planned.node].directories[planned.directory].directory.path)
    };
    let mut others = unplanned(plan, point, mounts)?;
    for (index, planned) in plan.directories.iter().enumerate() {
        let roots = planned.staging.regions.iter().map(|region| Root::new(&region.at, mounts)).collect();
        others.push(Other { planned: Some(index), id: planned.id.clone(), roots });
    }
    let mut findings = Vec::new();
    if let Some(host) = plan.places.host() {
        for planned in plan.directories.iter().filter(|planned| planned.occupied) {
            findings.extend(used_by_others(host, planned).map(|other| shared(planned, other, point, names)));
        }
    }
    for place in &others {
        let Some(index) = place.planned.filter(|&index| !plan.directories[index].equal) else { continue };
        // A copy lies beside what was captured; what is restored in its place may have another node's data in it.
        let nested = |other: &Other| {
            let in_place = plan.places.host().is_some() || captured(index) == plan.directories[index].staging.place;
            in_place || other.planned.is_some()
        };
        for other in others.iter().filter(|other| other.planned != place.planned) {
            let mut pairs = place.roots.iter().flat_map(|own| other.roots.iter().map(move |root| (own, root)));
            let found = pairs.find_map(|(own, root)| Some((own, root, own.relation(root, nested(other))?)));
            findings.extend(found.map(|(own, root, relation)| {
                Finding::error(
                    Rule::NotOverwritten,
                    &place.id,
                    format!(
                        "its place {} {relation} {}, a directory of {}",
                        own.path.display(),
                        root.path.display(),
                        other.id
                    ),
                    Remedy::RestoreElsewhere
                        .or("give each node a directory of its own: correct the inventory, the link or the mount"),
                )
            }));
        }
    }
    if let Some(folder) = repository {
        let root = Root::new(&folder.canonicalize().map_err(io(folder))?, mounts);
        let copy = match &plan.places {
            Places::Below(to) => Some(Root::new(&resolve("the target", to)?, mounts)),
            Places::Of(_) => None,
        };
        let places = others.iter().filter(|other| other.planned.is_some()).flat_map(|place| &place.roots);
        let found = copy.iter().chain(places).find_map(|own| Some((own, own.relation(&root, false)?)));
        findings.extend(found.map(|(own, relation)| {
            Finding::error(
                Rule::RepositoryOwn,
                own.path.display(),
                format!("it {relation} the repository {}", folder.display()),
                Remedy::RestoreElsewhere.or("move the repository"),
            )
        }));
    }
    plan.findings.extend(findings);
    Ok(())
}

/// Directories that are not restored: those of an inventory, or for a copy those of the captured nodes that are on this machine.
fn unplanned(plan: &Plan<'_>, point: &RecoveryPoint, mounts: &Mounts) -> Result<Vec<Other>, EngineError> {
    let known: Vec<(&NodeId, &str)> = match plan.places.host().map(Host::network) {
        Some(network) => {
            let nodes = network.nodes();
            nodes.flat_map(|node| node.directories.iter().map(|known| (&node.id, known.path.as_str()))).collect()
        }
        None => {
            let nodes = point.nodes.iter();
            let known = nodes
                .flat_map(|node| node.directories.iter().map(|known| (&node.facts.id, known.directory.path.as_str())));
            known.filter(|(_, path)| Path::new(path).is_dir()).collect()
        }
    };
    let mut out = Vec::new();
    for (id, path) in known {
        let path = resolve(id, Path::new(path))?;
        let host = plan.places.host();
        let is_planned = |planned: &PlannedDirectory| {
            let shares = || host.is_some_and(|host| used_by_others(host, planned).any(|other| other == id));
            planned.staging.place == path && (planned.id == *id || planned.shared.contains(id) || shares())
        };
        if !plan.directories.iter().any(is_planned) {
            out.push(Other { planned: None, id: id.clone(), roots: Root::all(&path, mounts) });
        }
    }
    Ok(out)
}
