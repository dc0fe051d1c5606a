//! Volumes that somebody made by hand for claims: what each was is kept with its claim, so that a restore can say which ones have to be made.

use std::collections::BTreeMap;

use fabkeep_network::{Finding, Remedy, Rule};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::connection::{Connection, failed, is_forbidden};
use super::objects::{HAND_MADE, Namespace, annotation, resource, text};
use crate::{Declaration, PlatformError};

/// What a volume's provisioner notes on it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// What is noted on a claim that asks a provisioner for its volume.
pub(super) const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// What a volume's specification says beside where its bytes are.
const OF_EVERY_VOLUME: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl Connection {
    /// Every volume of the cluster; `None` without the right to list them.
    pub(super) fn persistent_volumes(&self) -> Result<Option<Vec<DynamicObject>>, PlatformError> {
        let volumes = resource("v1", "PersistentVolume", Some("persistentvolumes"));
        let list = self.try_run(|client| {
            let volumes = volumes.clone();
            async move { Api::<DynamicObject>::all_with(client, &volumes).list(&ListParams::default()).await }
        });
        match list {
            Ok(list) => Ok(Some(list.items)),
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(failed("listing volumes", &error)),
        }
    }
}

/// Keeps with each declared claim what its volume is, where somebody made it by hand.
pub(super) fn note(
    connection: &Connection,
    namespaces: &[&Namespace],
    declared: &mut [Declaration],
) -> Result<Vec<Finding>, PlatformError> {
    // Claim by namespace and name: its volume.
    let mut bound: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for namespace in namespaces {
        for claim in namespace.of_kind("PersistentVolumeClaim") {
            let asked = PROVISIONERS.iter().any(|name| annotation(claim, name).is_some());
            if let Some(volume) = text(claim, "/spec/volumeName").filter(|_| !asked) {
                bound.insert((&namespace.name, super::objects::name_of(claim).to_owned()), volume);
            }
        }
    }
    if bound.is_empty() {
        return Ok(Vec::new());
    }
    let Some(volumes) = connection.persistent_volumes()? else {
        let names: Vec<String> = bound.keys().map(|(namespace, claim)| format!("{namespace}/{claim}")).collect();
        return Ok(vec![Finding::note(
            Rule::StorageClass,
            format!("{} claims", names.len()),
            format!(
                "no provisioner is named on {}, and fabkeep has no right to list PersistentVolumes: what volumes were made by hand for them is not kept",
                names.join(", ")
            ),
            "give it that right (docs/kubernetes.md), or keep the volumes' manifests elsewhere",
        )]);
    };
    let mut findings = Vec::new();
    for claim in declared.iter_mut().filter(|known| known.kind == "PersistentVolumeClaim") {
        let Some(name) = bound.get(&(claim.namespace.as_str(), claim.name.clone())) else { continue };
        let volume = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(*name));
        let by_hand = |volume: &&DynamicObject| {
            !volume.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(PROVISIONED_BY))
        };
        let Some(spec) = volume.filter(by_hand).and_then(|volume| volume.data.get("spec")?.as_object()) else {
            continue;
        };
        let kept: Value =
            spec.iter().filter(|(key, _)| *key != "claimRef").map(|(k, v)| (k.clone(), v.clone())).collect();
        if !claim.object["metadata"]["annotations"].is_object() {
            claim.object["metadata"]["annotations"] = json!({});
        }
        claim.object["metadata"]["annotations"][HAND_MADE] = kept.to_string().into();
        findings.push(Finding::note(
            Rule::StorageClass,
            claim.label(),
            format!("its volume {name} was made by hand: {}", described(&kept)),
            Remedy::from("in a new cluster make one like it before a restore")
                .or(Remedy::OtherStorageClass { from: String::new(), to: None }),
        ));
    }
    Ok(findings)
}

/// The volume that was made by hand for a captured claim: its storage class, and what it was in words.
pub fn hand_made_volume(claim: &Declaration) -> Option<(String, String)> {
    let spec: Value = serde_json::from_str(annotation(&claim.object, HAND_MADE)?).ok()?;
    Some((text(&spec, "/storageClassName").unwrap_or_default().to_owned(), described(&spec)))
}

/// Size, modes, where its bytes are, what becomes of it.
fn described(spec: &Value) -> String {
    let at = |path: &str| text(spec, path).map(str::to_owned);
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let source = spec.as_object().into_iter().flatten().find(|(key, _)| !OF_EVERY_VOLUME.contains(&key.as_str()));
    let source = source.map(|(kind, source)| {
        let of = |name: &str| text(source, &format!("/{name}")).unwrap_or("?");
        match kind.as_str() {
            "nfs" => format!("NFS {}:{}", of("server"), of("path")),
            "hostPath" | "local" => format!("{kind} {}", of("path")),
            "csi" => format!("CSI driver {}, volume {}", of("driver"), of("volumeHandle")),
            _ => format!("{kind} {source}"),
        }
    });
    let terms = spec.pointer("/nodeAffinity/required/nodeSelectorTerms").and_then(Value::as_array);
    let expressions = terms.into_iter().flatten().flat_map(|term| term.get("matchExpressions")?.as_array()).flatten();
    let machines: Vec<String> = expressions.filter_map(|known| known.get("values")).flat_map(list).collect();
    let class = at("/storageClassName").filter(|class| !class.is_empty()).map(|class| format!("class {class}"));
    let mode = at("/volumeMode").filter(|mode| mode != "Filesystem").map(|mode| format!("mode {mode}"));
    let parts = [
        at("/capacity/storage"),
        spec.get("accessModes").map(|modes| list(modes).join("+")),
        source,
        (!machines.is_empty()).then(|| format!("on {}", machines.join(", "))),
        class,
        mode,
        spec.get("mountOptions").map(|options| format!("mount options {}", list(options).join(","))),
        at("/persistentVolumeReclaimPolicy").map(|policy| format!("reclaim policy {policy}")),
    ];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_described_so_that_it_can_be_made_again() {
        let local = json!({"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/mnt/d1"},
            "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}});
        assert_eq!(described(&local), "10Gi, ReadWriteOnce, local /mnt/d1, on n1, class manual, reclaim policy Retain");
        let csi =
            json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}, "capacity": {"storage": "1Ti"}});
        assert_eq!(described(&csi), "1Ti, CSI driver ebs.csi.aws.com, volume vol-1");
        assert_eq!(described(&json!({"nfs": {"server": "nas", "path": "/e"}})), "NFS nas:/e");
        assert_eq!(described(&Value::Null), "");
    }
}
