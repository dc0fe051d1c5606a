//! Names by which a moved workload still reaches Services: what is noted of them is text that others can write. It is used only for Services
//! of the network's own namespaces, and they have to be there.

use std::collections::BTreeSet;

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::{keep_old_names, old_names};
use serde_json::Value;

use super::plan::Plan;
use crate::EngineError;

/// Judges the old names that created workloads are given, and takes away those that are not used.
pub(super) fn judge(plan: &mut Plan, declared: &[Declaration]) -> Result<(), EngineError> {
    let own: BTreeSet<&str> = declared.iter().map(|known| known.namespace.as_str()).collect();
    let mut unused: BTreeSet<(String, String)> = BTreeSet::new();
    let mut findings = Vec::new();
    for known in plan.create.iter().chain(&plan.late) {
        for old in old_names(&known.object) {
            let service = format!("Service {}/{}", old.namespace, old.service);
            let names = old.names.join(", ");
            if !own.contains(old.namespace.as_str()) {
                findings.push(Finding::warning(
                    Rule::NamesKept,
                    known.label(),
                    format!("its note of old names leads {names} to {service}, which is in no namespace of the network: it is not used"),
                    "find out who wrote it (annotation fabkeep.io/old-names); if the names are needed, add hostAliases by hand",
                ));
            } else if is_created(plan, &old.namespace, &old.service)
                || plan.target.has_address(&old.namespace, &old.service)?
            {
                continue;
            } else {
                findings.push(Finding::error(
                    Rule::NamesKept,
                    known.label(),
                    format!("its note of old names leads {names} to {service}, which does not exist or has no address: they would not resolve"),
                    Remedy::from("create the Service first")
                        .or(Remedy::Override { rule: Rule::NamesKept, accept: "that these names are lost".to_owned() }),
                ));
            }
            unused.insert((old.namespace, old.service));
        }
    }
    for known in plan.create.iter_mut().chain(&mut plan.late) {
        keep_old_names(&mut known.object, &|old| !unused.contains(&(old.namespace.clone(), old.service.clone())));
    }
    plan.findings.extend(findings);
    Ok(())
}

/// Whether this restore creates a Service that gets an address.
fn is_created(plan: &Plan, namespace: &str, name: &str) -> bool {
    let text = |known: &Declaration, at: &str| known.object.pointer(at).and_then(Value::as_str).map(str::to_owned);
    plan.create.iter().any(|known| {
        known.kind == "Service"
            && known.namespace == namespace
            && known.name == name
            && text(known, "/spec/clusterIP").as_deref() != Some("None")
            && text(known, "/spec/type").as_deref() != Some("ExternalName")
    })
}
