//! Node ports of Services that are created: a cluster has each of them once.

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::Target;
use serde_json::Value;

use crate::EngineError;
use crate::restore::RestoreOptions;

/// Judges the node ports of Services that are created. Those that others have are left out of the declarations where that was asked for.
pub(super) fn judge(
    create: &mut [Declaration],
    target: &Target,
    options: &RestoreOptions,
) -> Result<Vec<Finding>, EngineError> {
    if create.iter_mut().flat_map(ports).next().is_none() {
        return Ok(Vec::new());
    }
    let taken = target.node_ports()?;
    let mut findings = Vec::new();
    for known in create {
        let label = known.label();
        for port in ports(known) {
            let number = port.get("nodePort").and_then(Value::as_u64);
            let Some((number, by)) = number.and_then(|number| Some((number, taken.get(&number)?))) else { continue };
            let finding = Finding::error(
                Rule::Declared,
                &label,
                format!("Service {}/{} has its node port {number} in this cluster", by.namespace, by.name),
                Remedy::from("free the port").or(Remedy::Override {
                    rule: Rule::Declared,
                    accept: "another port, which the cluster chooses and everybody who uses it must be told".to_owned(),
                }),
            );
            if options.is_overridden(&finding) {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
            findings.push(finding);
        }
    }
    Ok(findings)
}

/// Returns the ports of a Service.
fn ports(known: &mut Declaration) -> impl Iterator<Item = &mut Value> {
    let ports = (known.kind == "Service").then(|| known.object.pointer_mut("/spec/ports")).flatten();
    ports.and_then(Value::as_array_mut).into_iter().flatten().filter(|port| port.get("nodePort").is_some())
}
