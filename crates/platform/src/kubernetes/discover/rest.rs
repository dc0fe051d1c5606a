//! Content of claims besides the nodes' own directories, and claims that nothing uses.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, NodeDirectory, NodeId, Rule};

use super::mounts::{self, Holder, Mount};
use super::workloads::WorkloadObject;
use super::{FoundNode, View, claims_of, foreign_mounts};
use crate::kubernetes::objects::{Namespace, name_of};

/// The end of the name under which content stands that is no single node's.
pub(crate) const FILES: &str = ".files";

/// What claims hold beside the nodes' own directories.
pub(super) fn add_rest(found: &mut Vec<FoundNode>, findings: &mut Vec<Finding>) {
    // Every place in a claim that a directory of a node is.
    let mut taken: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut users: BTreeMap<(String, String), BTreeSet<usize>> = BTreeMap::new();
    for (position, node) in found.iter().enumerate() {
        let namespace = node.node.id.organization.clone();
        for directory in node.node.directories.iter().filter(|directory| directory.source.is_volume()) {
            if let Some((claim, inside)) =
                directory.mounted_at.as_deref().and_then(|at| mounts::in_claim(&node.mounts, at))
            {
                taken.entry((namespace.clone(), claim)).or_default().push(inside);
            }
            // Claims mounted inside it are part of it.
            for (mount, _) in mounts::nested(&node.mounts, directory.mounted_at.as_deref().unwrap_or("/")) {
                if let Holder::Claim(claim) = &mount.holder {
                    taken.entry((namespace.clone(), claim.clone())).or_default().push(mount.sub_path.clone());
                }
            }
        }
        // A pod that has ended does not use its claims any more.
        let ended = node.pod.is_none() && node.node.workload.as_ref().is_some_and(|known| known.kind == "Pod");
        if ended && node.node.role == NodeRole::Files {
            continue;
        }
        for claim in claims_of(&node.mounts) {
            users.entry((namespace.clone(), claim)).or_default().insert(position);
        }
    }
    let mut files_nodes: Vec<FoundNode> = Vec::new();
    for ((namespace, claim), positions) in &users {
        let taken = taken.get(&(namespace.clone(), claim.clone())).cloned().unwrap_or_default();
        // Of all that mount it, and of those that are recognised: the others come and go, and what a claim contains keeps its name.
        let (mut pods, mut recognised) = (BTreeSet::new(), BTreeSet::new());
        let mut roots: Vec<(String, usize, String)> = Vec::new();
        for &position in positions {
            let node = &found[position];
            let workload = node.node.workload.as_ref();
            let pod = workload.map(|known| format!("{}{:?}{:?}", known, known.ordinal, node.pod_name()));
            if node.node.role != NodeRole::Files {
                recognised.extend(pod.clone());
            }
            pods.extend(pod);
            for mount in &node.mounts {
                if mount.holder == Holder::Claim(claim.clone()) {
                    roots.push((mount.sub_path.clone(), position, mount.path.clone()));
                }
            }
        }
        if pods.len() > 1 {
            for &position in positions {
                found[position].shares.insert(claim.clone());
            }
        }
        // The outermost view of each part of the claim is enough; a recognised node's before another's.
        roots.sort_by_key(|(sub_path, position, _)| {
            (sub_path.len(), found[*position].node.role == NodeRole::Files, *position)
        });
        let mut seen: Vec<String> = Vec::new();
        for (sub_path, position, at) in roots {
            let inside_of = |outer: &String| inside(&sub_path, outer).is_some();
            if seen.iter().any(inside_of) || taken.iter().any(inside_of) {
                continue;
            }
            seen.push(sub_path.clone());
            let node = &found[position];
            let mut excluded = foreign_mounts(&node.mounts, &at);
            excluded.extend(
                mounts::nested(&node.mounts, &at)
                    .filter(|(mount, _)| matches!(mount.holder, Holder::Claim(_)))
                    .map(|(_, inside)| inside.to_owned()),
            );
            excluded.extend(
                taken
                    .iter()
                    .filter_map(|path| inside(path, &sub_path))
                    .filter(|path| !path.is_empty())
                    .map(str::to_owned),
            );
            excluded.sort();
            excluded.dedup();
            let apart = recognised.len() > 1 || node.node.role == NodeRole::Files;
            let id = if apart {
                NodeId { organization: namespace.clone(), node: format!("{claim}{FILES}") }
            } else {
                node.node.id.clone()
            };
            let mut directory = NodeDirectory::new(DirectoryRole::Other, format!("{id}/beside{at}"));
            directory.mounted_at = Some(at.clone());
            directory.excluded = excluded;
            let view = View {
                role: DirectoryRole::Other,
                path: at.clone(),
                held_by: format!("claim {claim}, what is left of it"),
            };
            if apart {
                let mut files = node.clone();
                files.node.id = id;
                files.node.role = NodeRole::Files;
                files.node.msp_id = None;
                files.node.served_by = Vec::new();
                files.node.directories = vec![directory];
                files.relations = vec![format!("claim {claim}")];
                files.views = vec![view];
                match files_nodes.iter_mut().find(|known| known.node.id == files.node.id) {
                    Some(known) if known.node.workload == files.node.workload => {
                        known.node.directories.append(&mut files.node.directories);
                        known.views.append(&mut files.views);
                    }
                    Some(_) => findings.push(Finding::warning(
                        Rule::NotPersistent,
                        format!("{namespace} claim {claim}"),
                        format!("its part {sub_path:?} is mounted only by another workload and is not captured"),
                        "mount the whole claim in one pod, and run the backup again",
                    )),
                    None => files_nodes.push(files),
                }
            } else {
                found[position].node.directories.push(directory);
                found[position].views.push(view);
            }
        }
    }
    found.retain(|node| node.node.role != NodeRole::Files);
    found.extend(files_nodes);
}

/// A directory belongs to one node: where one node's lies inside another's on the same volume, the outer node's does not hold it. Fabric's
/// own defaults put an orderer into a peer's data directory.
pub(super) fn exclude_others(found: &mut [FoundNode]) {
    let host = |node: &FoundNode| node.pod.as_ref().and_then(|pod| pod.host.clone()).unwrap_or_default();
    let place = |node: &FoundNode, at: &str| {
        let namespace = &node.node.id.organization;
        mounts::in_volume(&node.mounts, at).map(|(volume, inside)| match volume {
            Holder::HostPath(_) => (format!("machine {}", host(node)), inside),
            volume => (format!("{namespace} {volume}"), inside),
        })
    };
    let mut all: Vec<(NodeId, String, String)> = Vec::new();
    for node in found.iter() {
        for directory in node.node.directories.iter().filter(|directory| directory.source.is_volume()) {
            let at = directory.mounted_at.as_deref().and_then(|at| place(node, at));
            all.extend(at.map(|(volume, inside)| (node.node.id.clone(), volume, inside)));
        }
    }
    // Sorted, so that the outermost of several comes first.
    all.sort_by(|a, b| a.2.cmp(&b.2));
    for node in found.iter_mut() {
        let mut directories = std::mem::take(&mut node.node.directories);
        for directory in directories.iter_mut().filter(|directory| directory.source.is_volume()) {
            let Some(at) = directory.mounted_at.clone() else { continue };
            // What is mounted inside it is part of it.
            let nested = mounts::nested(&node.mounts, &at).map(|(mount, inside)| (mount.path.as_str(), inside));
            let parts: Vec<(String, String, &str)> = std::iter::once((at.as_str(), ""))
                .chain(nested)
                .filter_map(|(path, inside)| place(node, path).map(|(volume, base)| (volume, base, inside)))
                .collect();
            for (_, volume, path) in all.iter().filter(|(id, ..)| *id != node.node.id) {
                for (_, base, at) in parts.iter().filter(|(own, ..)| own == volume) {
                    let Some(rest) = inside(path, base) else { continue };
                    let other = [*at, rest].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                    let own = directory.nested.iter().any(|(nested, _)| inside(nested, &other).is_some());
                    let known = directory.excluded.iter().any(|outer| inside(&other, outer).is_some());
                    if !other.is_empty() && !own && !known {
                        directory.excluded.push(other);
                    }
                }
            }
        }
        node.node.directories = directories;
    }
}

/// `path` relative to `root`, both inside a claim.
fn inside<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    if root.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Claims that nothing mounts, and claims that are mounted and missing.
pub(super) fn check_claims(all: &[(Namespace, Vec<WorkloadObject>)], found: &[FoundNode], findings: &mut Vec<Finding>) {
    let claims = |of: &dyn Fn(&Mount) -> Option<&String>| -> BTreeSet<(String, String)> {
        let of_node = |node: &FoundNode| {
            let namespace = node.node.id.organization.clone();
            let claims: Vec<_> = node.mounts.iter().filter_map(of).cloned().collect();
            claims.into_iter().map(move |claim| (namespace.clone(), claim))
        };
        found.iter().flat_map(of_node).collect()
    };
    let used = claims(&|mount| if let Holder::Claim(claim) = &mount.holder { Some(claim) } else { None });
    let unnamed = claims(&|mount| mount.unnamed.as_ref()?.claim.as_ref());
    for (namespace, _) in all {
        let there: BTreeSet<&str> = namespace.of_kind("PersistentVolumeClaim").iter().map(name_of).collect();
        for claim in &there {
            let key = (namespace.name.clone(), (*claim).to_owned());
            if !used.contains(&key) && unnamed.contains(&key) {
                findings.push(Finding::warning(
                    Rule::NotPersistent,
                    format!("{} claim {claim}", namespace.name),
                    "workloads mount only folders of it whose names are known while their pods run: its content is not captured",
                    "start the workloads, and run the backup again",
                ));
            } else if !used.contains(&key) {
                findings.push(Finding::warning(
                    Rule::NotPersistent,
                    format!("{} claim {claim}", namespace.name),
                    "no workload mounts it: its content is not captured",
                    "no action is needed if it is not used any more; otherwise restore its workload, and run the backup again",
                ));
            }
        }
        for (_, claim) in used.iter().filter(|(of, claim)| *of == namespace.name && !there.contains(claim.as_str())) {
            findings.push(Finding::warning(
                Rule::NotPersistent,
                format!("{} claim {claim}", namespace.name),
                "a workload mounts it, and it does not exist",
                "restore it, or correct the workload",
            ));
        }
    }
}
