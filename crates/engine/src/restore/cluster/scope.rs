//! Selects the declared objects of a restore: all, or those that the chosen nodes use. Objects that others use too are compared and never
//! replaced.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::kubernetes::{AuthorityObject, ObjectState, authority_objects};
use fabkeep_platform::{Declaration, ObjectRef};

use super::plan::{Plan, is_late, is_workload};
use crate::EngineError;
use crate::point::CapturedNode;
use crate::restore::{CaKeep, RestoreOptions};

/// A declared object, and who else than the chosen nodes uses it.
pub(super) struct Meant<'d> {
    pub known: &'d Declaration,
    pub others: Vec<String>,
}

/// The declared objects that a restore is about.
pub(super) struct Scope<'d>(Vec<Meant<'d>>);

impl<'d> Scope<'d> {
    pub fn of(
        declared: &'d [Declaration],
        chosen: &[(usize, &CapturedNode)],
        namespaces: &BTreeSet<&str>,
        claims: &BTreeMap<NodeId, Vec<(String, String)>>,
        plan: &Plan,
        options: &RestoreOptions,
    ) -> Scope<'d> {
        let of_chosen: BTreeSet<&(String, String)> =
            chosen.iter().filter_map(|(_, node)| claims.get(&node.facts.id)).flatten().collect();
        let workloads: BTreeSet<ObjectRef> =
            chosen.iter().filter_map(|(_, node)| node.workload.as_ref()).map(ObjectRef::from).collect();
        let others_of = |known: &Declaration| -> Vec<String> {
            let users = plan.usage.users(known);
            let others = users.iter().filter(|user| !workloads.contains(*user));
            others.map(ToString::to_string).collect()
        };
        let used = |known: &Declaration| plan.usage.users(known).iter().any(|user| workloads.contains(user));
        let is_meant = |known: &&Declaration| {
            if known.kind == "Namespace" {
                return namespaces.contains(known.name.as_str());
            }
            if !namespaces.contains(known.namespace.as_str()) {
                return false;
            }
            let data = matches!(known.kind.as_str(), "Secret" | "ConfigMap" | "PersistentVolumeClaim");
            if plan.place.existing_workloads && !data {
                return false;
            }
            if options.nodes.is_empty() {
                return true;
            }
            match known.kind.as_str() {
                "PersistentVolumeClaim" => of_chosen.contains(&(known.namespace.clone(), known.name.clone())),
                kind if is_workload(kind) => workloads.contains(&ObjectRef::from(*known)),
                _ => used(known),
            }
        };
        let meant = declared.iter().filter(is_meant).map(|known| {
            // Without a choice everything is meant, whoever uses it.
            let others =
                if options.nodes.is_empty() || known.kind == "Namespace" { Vec::new() } else { others_of(known) };
            Meant { known, others }
        });
        Scope(meant.collect())
    }
}

/// Secrets and ConfigMaps that certificate authorities keep, when they are there.
fn staying_objects(declared: &[Declaration], keep: CaKeep) -> Vec<AuthorityObject> {
    if !keep.is_asked() {
        return Vec::new();
    }
    let mut objects = authority_objects(declared);
    // One that holds the authority's own key is never left: key, certificate and database belong together.
    objects.retain(|object| !object.own && ((keep.tls && object.tls) || (keep.config && object.config)));
    objects
}

/// Compares what is meant with what is there: what is created, replaced, left, and what forbids the restore.
pub(super) fn judge(
    plan: &mut Plan,
    scope: &Scope<'_>,
    declared: &[Declaration],
    options: &RestoreOptions,
) -> Result<(), EngineError> {
    let stays = staying_objects(declared, options.ca_keep);
    let staying = |known: &Declaration| {
        stays.iter().find(|object| {
            (object.kind, &object.namespace, &object.name) == (known.kind.as_str(), &known.namespace, &known.name)
        })
    };
    let all: Vec<&Declaration> = scope.0.iter().map(|meant| meant.known).collect();
    let states = plan.target.compare(&all)?;
    for (Meant { known, others }, state) in scope.0.iter().zip(states) {
        let known = *known;
        let keyed = matches!(known.kind.as_str(), "Secret" | "ConfigMap");
        if let ObjectState::Differs(_) = &state
            && let Some(object) = staying(known)
        {
            plan.findings.push(Finding::note(
                Rule::CaKept,
                known.label(),
                format!("it is not replaced: {} keeps it", object.id),
                Remedy::CaKeepAsked,
            ));
            continue;
        }
        let comes = match &state {
            ObjectState::Equal | ObjectState::Missing | ObjectState::Going(_) => true,
            ObjectState::Differs(_) => options.replace && others.is_empty(),
            ObjectState::Forbidden(_) => false,
        };
        if keyed && comes {
            plan.keyed.push(known.clone());
        }
        match state {
            ObjectState::Equal => {}
            ObjectState::Going(finalizers) => judge_going(plan, known, &finalizers),
            ObjectState::Missing if is_late(known) => plan.late.push(known.clone()),
            ObjectState::Missing => {
                if !others.is_empty() && keyed {
                    plan.findings.push(Finding::note(
                        Rule::Declared,
                        known.label(),
                        format!("it is missing, and {} use it too: it is created", others.join(", ")),
                        "no action is needed: no existing object is replaced",
                    ));
                }
                plan.create.push(known.clone());
            }
            ObjectState::Forbidden(said) => plan.findings.push(Finding::error(
                Rule::Declared,
                known.label(),
                format!("fabkeep has no right to read it and cannot compare it: {said}"),
                "give fabkeep the rights of its Role: docs/kubernetes.md has it, for backup and for restore",
            )),
            ObjectState::Differs(at) if keyed && !others.is_empty() => plan.findings.push(Finding::warning(
                Rule::NotOverwritten,
                known.label(),
                format!(
                    "it exists with different content ({at}), and {} use it too: it is left as it is",
                    others.join(", ")
                ),
                "compare it with that of the recovery point; it is replaced only if all nodes that use it are restored together",
            )),
            ObjectState::Differs(_) if keyed && options.replace => {
                let finalizers = plan.target.finalizers(known)?;
                if finalizers.is_empty() {
                    plan.replace.push(known.clone());
                } else {
                    plan.findings.push(Finding::error(
                        Rule::Declared,
                        known.label(),
                        format!("it cannot be replaced: its finalizers would keep it after its deletion: {}", finalizers.join(", ")),
                        "remove its finalizers with kubectl, or have their controllers release it; then run the same command again",
                    ));
                }
            }
            ObjectState::Differs(at) if keyed && options.missing => plan.findings.push(Finding::warning(
                Rule::NotOverwritten,
                known.label(),
                format!("it exists with different content ({at}) and is left as it is"),
                Remedy::from("compare it with that of the recovery point").or(Remedy::ReplaceObject),
            )),
            ObjectState::Differs(at) if keyed => plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                known.label(),
                format!("it exists with different content ({at})"),
                Remedy::ReplaceObject.or(Remedy::OnlyMissing),
            )),
            // Claims and workloads grow and are tuned; what matters of them is their data.
            ObjectState::Differs(at) => plan.findings.push(Finding::note(
                Rule::Declared,
                known.label(),
                format!("it exists with another declaration ({at}): it is left as it is"),
                "compare it with that of the recovery point, and correct it if necessary",
            )),
        }
    }
    Ok(())
}

/// One that is being deleted: it is waited for and made anew, unless finalizers keep it for as long as what uses it.
fn judge_going(plan: &mut Plan, known: &Declaration, finalizers: &[String]) {
    if finalizers.is_empty() {
        plan.findings.push(Finding::note(
            Rule::Declared,
            known.label(),
            "it is being deleted: the restore waits up to two minutes until it is gone, then creates it",
            "if it stays, `kubectl describe` shows what keeps it",
        ));
        if is_late(known) {
            plan.late.push(known.clone())
        } else {
            plan.create.push(known.clone())
        }
        return;
    }
    plan.findings.push(Finding::error(
        Rule::Declared,
        known.label(),
        format!("it is being deleted, but its finalizers keep it: {}", finalizers.join(", ")),
        "a claim is deleted when no pod mounts it any more; other objects when the controllers of the finalizers have finished, or when you remove the finalizers with kubectl; then run the same command again",
    ));
}
