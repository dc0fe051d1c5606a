//! Clones of snapshots: claims that a helper pod mounts, on any machine of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::take::{DriverWait, if_ready};
use super::{CLONE, Claim, claims, labels};
use crate::PlatformError;
use crate::kubernetes::Kubernetes;
use crate::kubernetes::discover::{FoundNode, claims_of_node};
use crate::kubernetes::objects::text;

/// How long a driver may take until a snapshot that is cut can be read: some copy it to another place first.
pub(super) const READY: Duration = Duration::from_secs(60 * 60);

impl Kubernetes {
    /// Returns clones of the snapshots of these nodes' claims, by claim; makes those that are not there.
    pub(in crate::kubernetes) fn clones_of(
        &self,
        nodes: &[&FoundNode],
    ) -> Result<BTreeMap<Claim, String>, PlatformError> {
        let mut out = BTreeMap::new();
        for claim in nodes.iter().flat_map(|node| claims_of_node(node)) {
            if !out.contains_key(&claim)
                && let Some(clone) = self.clone_of(&claim)?
            {
                out.insert(claim, clone);
            }
        }
        Ok(out)
    }

    fn clone_of(&self, claim: &Claim) -> Result<Option<String>, PlatformError> {
        let (namespace, source) = claim;
        let (snapshot, class) = {
            let taken = self.taken.lock();
            let Some(taken) = taken.as_ref() else { return Ok(None) };
            if let Some(known) = taken.clones.get(claim) {
                return Ok(Some(known.clone()));
            }
            let Some(snapshot) = taken.snapshots.get(claim) else { return Ok(None) };
            (snapshot.clone(), taken.classes.get(claim).cloned().unwrap_or_default())
        };
        let what = format!("waiting until the snapshot of claim {namespace}/{source} can be read");
        let mut wait = DriverWait::new(what, READY, None);
        let status = wait.until(|| self.snapshot_status(namespace, &snapshot), if_ready)?;
        let name = {
            let mut taken = self.taken.lock();
            let taken = taken.get_or_insert_default();
            let name = taken.name(&self.run);
            taken.clones.insert(claim.clone(), name.clone());
            name
        };
        let object = self.claim(namespace, source);
        let modes = object.and_then(|object| object.pointer("/spec/accessModes")).cloned();
        let requested = object.and_then(|object| text(object, "/spec/resources/requests/storage"));
        let manifest = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace, "labels": labels(CLONE, &self.run)},
            "spec": {
                "accessModes": modes.unwrap_or_else(|| json!(["ReadWriteOnce"])),
                "storageClassName": class,
                "resources": {"requests": {"storage": larger(requested, text(&status, "/restoreSize"))}},
                "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot},
            },
        });
        let what = format!("creating a clone of the snapshot of claim {namespace}/{source}");
        self.create(&what, manifest, |client| claims(client, namespace))?;
        Ok(Some(name))
    }
}

/// Returns the larger of two sizes: a clone may not be smaller than its snapshot.
fn larger(a: Option<&str>, b: Option<&str>) -> String {
    let both = [a, b].into_iter().flatten();
    both.max_by_key(|size| bytes(size)).unwrap_or("1Gi").to_owned()
}

/// Returns a size in bytes, as Kubernetes writes sizes; 0 when it is none.
pub(super) fn bytes(size: &str) -> u128 {
    let digits = size.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(size.len());
    let (number, unit) = size.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return 0,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().unwrap_or(0);
    let tenth = part.chars().next().and_then(|digit| digit.to_digit(10)).unwrap_or(0);
    u128::from(whole) * u128::from(factor) + u128::from(tenth) * u128::from(factor) / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_as_large_as_the_larger_of_claim_and_snapshot() {
        assert_eq!(larger(Some("1Gi"), Some("1500Mi")), "1500Mi");
        assert_eq!(larger(Some("2Gi"), Some("1073741824")), "2Gi");
        assert_eq!(larger(Some("1.5Gi"), Some("1Gi")), "1.5Gi");
        assert_eq!(larger(Some("1G"), None), "1G");
        assert_eq!(larger(None, None), "1Gi");
        assert_eq!(larger(Some("odd"), Some("1Ki")), "1Ki");
    }
}
