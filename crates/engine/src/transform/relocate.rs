//! Renames the namespaces of a recovery point of a cluster: organizations are named after their namespaces, and their nodes after them.

use fabkeep_network::{NodeId, Remedy};
use fabkeep_platform::kubernetes::Relocation;

use super::Transformed;
use crate::EngineError;
use crate::misuse::{Misuse, Request};

/// Renames everything that is called by a namespace.
pub(crate) fn rename(transformed: &mut Transformed, to: &Relocation) -> Result<(), EngineError> {
    let point = &mut transformed.point;
    for old in to.namespaces.keys() {
        let known = |namespace: &String| namespace == old;
        if !point
            .objects
            .iter()
            .any(|object| known(&object.namespace) || (object.kind == "Namespace" && known(&object.name)))
        {
            let mut all: Vec<&str> =
                point.objects.iter().map(|object| object.namespace.as_str()).filter(|name| !name.is_empty()).collect();
            all.sort_unstable();
            all.dedup();
            return Err(Misuse::of(
                Request::MapNamespace { from: old.clone(), to: None },
                format!("the recovery point has no namespace {old}; it has {}", all.join(", ")),
            )
            .into());
        }
    }
    let stays =
        |new: &String| !to.namespaces.contains_key(new) && point.objects.iter().any(|object| object.namespace == *new);
    if let Some((old, new)) = to.namespaces.iter().find(|(_, new)| stays(new)) {
        return Err(Misuse::of(
            Request::MapNamespace { from: old.clone(), to: Some(new.clone()) },
            format!("{new} is another namespace of the recovery point"),
        )
        .next(Remedy::from("choose another name").or("map that one too"))
        .into());
    }
    let id = |id: &mut NodeId| id.organization = to.namespace(&id.organization);
    let named = |name: &mut String| {
        if let Some((organization, node)) = name.split_once('/') {
            *name = format!("{}/{node}", to.namespace(organization));
        }
    };
    for node in &mut point.nodes {
        id(&mut node.facts.id);
        node.served_by.iter_mut().for_each(id);
        if let Some(workload) = &mut node.workload {
            workload.namespace = to.namespace(&workload.namespace);
        }
        for directory in &mut node.directories {
            named(&mut directory.directory.path);
        }
    }
    point.channels.iter_mut().for_each(|channel| named(&mut channel.donor));
    transformed.nodes.iter_mut().for_each(named);
    Ok(())
}
