//! A restore to another place than the captured one: what moves, and reasons against it.

use std::collections::BTreeSet;

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::{
    ObjectState, Relocation, Target, alias_addresses, hand_made_volume, has_own_aliases,
};

use crate::EngineError;
use crate::names::{Answer, UsedName};
use crate::restore::ClusterTarget;
use crate::transform::{Transformed, relocate};

/// What is declared in the new place.
pub(super) struct RelocatedObjects {
    pub declared: Vec<Declaration>,
    pub findings: Vec<Finding>,
}

/// Moves what was captured to where it is to be.
pub(super) fn move_to(
    place: &ClusterTarget,
    transformed: &mut Transformed,
    declared: Vec<Declaration>,
    used: &[UsedName],
    target: &Target,
) -> Result<RelocatedObjects, EngineError> {
    let to = &place.relocation;
    if !to.is_asked() {
        return Ok(RelocatedObjects { declared, findings: Vec::new() });
    }
    relocate::rename(transformed, to)?;
    let original = original_there(to, &declared, target)?;
    let (moved, names) = to.declarations(&declared, original);
    let mut findings = Vec::new();
    if !names.is_empty() {
        let namespaces: BTreeSet<&str> = names.iter().map(|old| old.namespace.as_str()).collect();
        let first = names.first().map(|old| old.names.join(", ")).unwrap_or_default();
        findings.push(Finding::note(
            Rule::NamesKept,
            namespaces.into_iter().collect::<Vec<_>>().join(", "),
            format!("{} Services keep their old names in every pod, by hostAliases: {first}, …", names.len()),
            "outside of these pods the old names resolve to the old place: clients and administrators must use the new names",
        ));
    }
    if to.namespaces.is_empty() {
        return Ok(RelocatedObjects { declared: moved, findings });
    }
    let aliased = moved_labels(&declared, to, has_own_aliases);
    if !aliased.is_empty() {
        findings.push(Finding::warning(
            Rule::NamesKept,
            format!("{} workloads", aliased.len()),
            format!(
                "they have hostAliases of their own, with addresses of the place that they were captured in: {}",
                aliased.join(", ")
            ),
            "check whether these addresses are correct in the new place, and correct the workloads if they are not",
        ));
    }
    if original {
        findings.extend(leads_to_original(used, to));
        if !place.fenced {
            findings.extend(same_hosts(&declared, to));
        }
        findings.extend(aliases_to_original(&declared, to, target)?);
    }
    findings.extend(made_by_operators(&declared, to, original));
    Ok(RelocatedObjects { declared: moved, findings })
}

/// Objects of namespaces that move, those of a kind.
fn moved_labels(declared: &[Declaration], to: &Relocation, is: impl Fn(&Declaration) -> bool) -> Vec<String> {
    let moved = declared.iter().filter(|known| to.namespaces.contains_key(&known.namespace));
    moved.filter(|known| is(known)).map(Declaration::label).collect()
}

/// Whether what was captured is in the cluster that it goes to: under its old names.
fn original_there(to: &Relocation, declared: &[Declaration], target: &Target) -> Result<bool, EngineError> {
    let of_old = |known: &&Declaration| {
        known.kind == "Service"
            && to.namespaces.contains_key(&known.namespace)
            && !to.namespaces.values().any(|new| *new == known.namespace)
    };
    let services: Vec<&Declaration> = declared.iter().filter(of_old).collect();
    Ok(target.compare(&services)?.into_iter().any(|state| state != ObjectState::Missing))
}

/// hostAliases that hold addresses of the captured network's Services, which is in this cluster.
fn aliases_to_original(
    declared: &[Declaration],
    to: &Relocation,
    target: &Target,
) -> Result<Vec<Finding>, EngineError> {
    let mut addresses = BTreeSet::new();
    let moved: Vec<&Declaration> =
        declared.iter().filter(|known| to.namespaces.contains_key(&known.namespace)).collect();
    if moved.iter().all(|known| alias_addresses(known).is_empty()) {
        return Ok(Vec::new());
    }
    for namespace in to.namespaces.keys() {
        addresses.extend(target.service_addresses(namespace)?);
    }
    let leads = moved.iter().flat_map(|known| {
        let of_original = alias_addresses(known).into_iter().filter(|(address, _)| addresses.contains(address));
        of_original.map(|(address, name)| (known.label(), address, name))
    });
    Ok(leads
        .map(|(label, address, name)| {
            Finding::error(
                Rule::NamesKept,
                label,
                format!("its own hostAliases lead {name} to {address}, a Service of the captured network, which is in this cluster: two nodes of one identity fork a chain"),
                Remedy::from("restore into another cluster")
                    .or("remove the alias from the captured workload and capture again")
                    .or(Remedy::Override { rule: Rule::NamesKept, accept: "this, if the nodes cannot reach that address".to_owned() }),
            )
        })
        .collect())
}

/// Names that are answered outside of the moved Services: the nodes of the new place would reach those of the old one by them.
fn leads_to_original(used: &[UsedName], to: &Relocation) -> Option<Finding> {
    let away: Vec<&str> = used
        .iter()
        .filter(|used| !used.used_by.is_empty())
        .filter(|used| {
            !used.answered_by.iter().any(|answer| match answer {
                // Where hostAliases lead is looked at on its own.
                Answer::Caller | Answer::HostAliases(_) => true,
                Answer::Service { namespace, .. } => to.namespaces.contains_key(namespace),
                Answer::Ingress(_) => false,
            })
        })
        .map(|used| used.name.as_str())
        .collect();
    (!away.is_empty()).then(|| {
        Finding::error(
            Rule::NamesKept,
            format!("{} names", away.len()),
            format!(
                "the captured network is in this cluster, and nodes with the same keys would reach it by {}: two orderers of one identity fork a chain",
                away.join(", ")
            ),
            Remedy::from("restore into another cluster").or(
                Remedy::from("block the way to these names (a NetworkPolicy, DNS)")
                    .and(Remedy::Override { rule: Rule::NamesKept, accept: "this".to_owned() }),
            ),
        )
    })
}

/// Ingresses that serve the hosts of those of the captured network.
fn same_hosts(declared: &[Declaration], to: &Relocation) -> Vec<Finding> {
    let ingresses =
        declared.iter().filter(|known| known.kind == "Ingress" && to.namespaces.contains_key(&known.namespace));
    let finding = |known: &Declaration| {
        Finding::warning(
            Rule::NamesKept,
            known.label(),
            "it serves the same hosts as the one of the captured network, which is in this cluster",
            "remove one of the two, or give it other hosts",
        )
    };
    ingresses.map(finding).collect()
}

/// Workloads that an operator makes get no hostAliases from here.
fn made_by_operators(declared: &[Declaration], to: &Relocation, original: bool) -> Option<Finding> {
    let managed = moved_labels(declared, to, |known| {
        let group = known.api_version.split('/').next().unwrap_or_default();
        group.ends_with("hlf.kungfusoftware.es") || group.ends_with("ibp.com")
    });
    if managed.is_empty() {
        return None;
    }
    let what = format!(
        "an operator makes the workloads of {} ({}, …) and undoes what fabkeep adds to them: the old names are not kept in their pods",
        managed.len(),
        managed[0]
    );
    let remedy = "give them hostAliases in their custom resources, or restore under the same namespaces' names in another cluster";
    Some(if original {
        Finding::error(Rule::NamesKept, "operators", what, remedy)
    } else {
        Finding::warning(Rule::NamesKept, "operators", what, remedy)
    })
}

/// The storage class that a claim wants; empty for none.
fn class(claim: &Declaration) -> Option<&str> {
    claim.object.pointer("/spec/storageClassName").and_then(serde_json::Value::as_str)
}

/// Claims that would wait for ever: the cluster has no storage class of that name, or no volume that somebody made by hand.
pub(super) fn missing_classes(create: &[Declaration], target: &Target) -> Result<Vec<Finding>, EngineError> {
    let claims: Vec<&Declaration> = create.iter().filter(|known| known.kind == "PersistentVolumeClaim").collect();
    let there = match claims.iter().any(|claim| class(claim).is_some_and(|class| !class.is_empty())) {
        true => target.storage_classes()?,
        false => None,
    };
    let lacks = |wanted: &str| there.as_ref().is_some_and(|there| there.iter().all(|(name, _)| name != wanted));
    // A volume that was made by hand may have a class that is no object.
    let by_hand = |claim: &&Declaration| {
        let wanted = class(claim);
        let of_volume = || hand_made_volume(claim).map(|(class, _)| class);
        wanted == Some("") || wanted.is_some_and(|wanted| lacks(wanted) && of_volume().as_deref() == Some(wanted))
    };
    let (by_hand, others): (Vec<&Declaration>, Vec<&Declaration>) = claims.into_iter().partition(by_hand);
    let mut findings = made_by_hand(&by_hand, target)?;
    let wanted: BTreeSet<&str> = others.into_iter().filter_map(class).filter(|wanted| lacks(wanted)).collect();
    let there = there.as_deref().unwrap_or_default();
    let names: Vec<String> =
        there.iter().map(|(name, default)| if *default { format!("{name} (default)") } else { name.clone() }).collect();
    let proposed = there.iter().find(|(_, default)| *default).or(there.first()).map(|(name, _)| name);
    findings.extend(wanted.into_iter().map(|class| {
        Finding::error(
            Rule::StorageClass,
            class,
            format!(
                "claims want this storage class, and the cluster has {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
            Remedy::OtherStorageClass { from: class.to_owned(), to: proposed.cloned() },
        )
    }));
    Ok(findings)
}

/// Claims that are given volumes which somebody made by hand, and wait for ever where there are none.
fn made_by_hand(claims: &[&Declaration], target: &Target) -> Result<Vec<Finding>, EngineError> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<(String, String, String)> = claims
        .iter()
        .map(|known| (known.namespace.clone(), known.name.clone(), class(known).unwrap_or_default().to_owned()))
        .collect();
    let name = |known: &&Declaration| {
        let was = hand_made_volume(known).map(|(_, was)| format!(" ({was})")).unwrap_or_default();
        format!("{}/{}{was}", known.namespace, known.name)
    };
    let names: Vec<String> = claims.iter().map(name).collect();
    let what = format!("claims of volumes that were made by hand: {}", names.join("; "));
    let remedy =
        Remedy::from("make PersistentVolumes like these (a volume of before waits again when its claimRef is removed)")
            .or(Remedy::OtherStorageClass { from: String::new(), to: None });
    Ok(match target.static_volumes(&keys)? {
        Some(waiting) if waiting >= claims.len() => Vec::new(),
        Some(waiting) => vec![Finding::error(
            Rule::StorageClass,
            format!("{} claims", claims.len()),
            format!("{what}; {waiting} volumes wait for a claim"),
            remedy,
        )],
        None => vec![Finding::warning(
            Rule::StorageClass,
            format!("{} claims", claims.len()),
            format!("{what}; volumes may not be listed"),
            remedy,
        )],
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use fabkeep_network::Severity;

    use super::*;
    use crate::names::Callers;

    fn to_copy() -> Relocation {
        let namespaces = BTreeMap::from([("org1".to_owned(), "org1-copy".to_owned())]);
        Relocation { namespaces, ..Relocation::default() }
    }

    fn used(name: &str, by: &[&str], answered: &[Answer]) -> UsedName {
        let used_by = by.iter().map(ToString::to_string).collect();
        let answered_by = answered.iter().cloned().collect();
        UsedName { name: name.to_owned(), used_by, answered_by, ..UsedName::default() }
    }

    fn service(namespace: &str, to: Callers) -> Answer {
        Answer::Service { namespace: namespace.to_owned(), name: "orderer1".to_owned(), to }
    }

    #[test]
    fn names_that_lead_a_copy_to_the_original_forbid_it_and_others_do_not() {
        let consenter: &[&str] = &["consenter of ch"];
        let harmless = [
            used("orderer1.org1", consenter, &[service("org1", Callers::All)]),
            used("localhost", consenter, &[Answer::Caller]),
            used("in.a.certificate.only", &[], &[]),
            used("orderer1.first", consenter, &[service("org1", Callers::ByOldNames)]),
            used("orderer1.example.com", consenter, &[Answer::HostAliases("Deployment org1/peer0".to_owned())]),
        ];
        assert_eq!(leads_to_original(&harmless, &to_copy()), None);
        for away in [
            used("orderer1.example.com", consenter, &[Answer::Ingress("Ingress org1/in".to_owned())]),
            used("orderer1.elsewhere", consenter, &[]),
            used("orderer1.org2", consenter, &[service("org2", Callers::All)]),
        ] {
            let finding = leads_to_original(&[away], &to_copy()).unwrap();
            assert_eq!((finding.rule, finding.severity), (Rule::NamesKept, Severity::Error));
        }
    }

    #[test]
    fn workloads_of_operators_are_told_and_forbid_a_copy_beside_the_original() {
        let custom = |namespace: &str, group: &str| Declaration {
            namespace: namespace.to_owned(),
            api_version: format!("{group}/v1alpha1"),
            kind: "FabricPeer".to_owned(),
            name: "peer0".to_owned(),
            object: serde_json::Value::Null,
        };
        let managed = [custom("org1", "hlf.kungfusoftware.es")];
        let severity = |original| made_by_operators(&managed, &to_copy(), original).map(|finding| finding.severity);
        assert_eq!(severity(true), Some(Severity::Error));
        assert_eq!(severity(false), Some(Severity::Warning));
        assert_eq!(made_by_operators(&[custom("org2", "hlf.kungfusoftware.es")], &to_copy(), true), None);
        assert_eq!(made_by_operators(&[custom("org1", "example.com")], &to_copy(), true), None);
    }
}
