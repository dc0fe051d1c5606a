//! Which volumes snapshots can be taken of, and which of them together.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{NodeId, OrLeaveOut, Remedy};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use crate::kubernetes::Kubernetes;
use crate::kubernetes::connection::{Connection, failed, is_forbidden};
use crate::kubernetes::discover::FoundNode;
use crate::kubernetes::discover::mounts::{Holder, Mount, below, holding};
use crate::kubernetes::hand_made::PROVISIONERS;
use crate::kubernetes::objects::{annotation, name_of, resource, text};
use crate::{NoSnapshot, PlatformError, SnapshotClaim, SnapshotPlan, SnapshotSet};

/// The API of snapshots, and of groups of them: the newest version first.
pub(super) const SNAPSHOT_API: &str = "snapshot.storage.k8s.io/v1";
const GROUP_APIS: [&str; 3] =
    ["groupsnapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1beta2", "groupsnapshot.storage.k8s.io/v1beta1"];
/// What the default class of a driver has.
const DEFAULT_CLASSES: [&str; 2] =
    ["snapshot.storage.kubernetes.io/is-default-class", "groupsnapshot.storage.kubernetes.io/is-default-class"];

fn to_a_csi_driver() -> Remedy {
    Remedy::from("move the data to a claim of a CSI driver that takes snapshots").or(Remedy::WithoutSnapshots)
}

/// A claim that snapshots are wanted of.
struct ClaimToSnapshot {
    node: NodeId,
    phase: u8,
}

/// A claim, and the phase of its snapshot.
type PhasedClaim = (SnapshotClaim, u8);

/// How a claim's volume is provisioned.
struct Provisioned {
    driver: Option<String>,
    /// The class of the clone.
    storage_class: String,
}

/// What the cluster has that snapshots need.
struct Classes {
    snapshots: Option<Vec<Value>>,
    groups: Vec<Value>,
    storage: Option<Vec<Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    /// Classes that the user chose.
    chosen: Vec<String>,
}

/// Returns the kind of object that is a group of snapshots, in the newest version that is served.
pub(super) fn group_api(connection: &Connection) -> Result<Option<&'static str>, PlatformError> {
    let served = connection.served()?;
    Ok(GROUP_APIS.into_iter().find(|version| served.resource(version, "VolumeGroupSnapshot").is_some()))
}

impl Kubernetes {
    /// Plans snapshots of the volumes of these nodes.
    pub(in crate::kubernetes) fn plan_of_snapshots(&self, nodes: &[&NodeId]) -> Result<SnapshotPlan, PlatformError> {
        if self.connection.served()?.resource(SNAPSHOT_API, "VolumeSnapshot").is_none() {
            return Err(PlatformError::NotHere {
                problem: format!("the cluster does not serve {SNAPSHOT_API}: no snapshots can be taken"),
                next: Remedy::from("install the snapshot controller and its CustomResourceDefinitions")
                    .or(Remedy::WithoutSnapshots),
            });
        }
        let mut plan = SnapshotPlan::default();
        let mut wanted: BTreeMap<(String, String), ClaimToSnapshot> = BTreeMap::new();
        for id in nodes {
            let (_, found) = self.found(id)?;
            plan.nodes.push(found.node.id.clone());
            for (mount, phase) in held(found) {
                match &mount.holder {
                    Holder::Claim(claim) => {
                        let key = (found.node.id.organization.clone(), claim.clone());
                        let known = wanted.entry(key).or_insert(ClaimToSnapshot { node: found.node.id.clone(), phase });
                        known.phase = known.phase.max(phase);
                    }
                    other => plan.obstacles.push(NoSnapshot {
                        node: found.node.id.clone(),
                        volume: other.to_string(),
                        problem: "it is not a PersistentVolumeClaim".to_owned(),
                        remedy: to_a_csi_driver(),
                    }),
                }
            }
        }
        let classes = self.snapshot_classes()?;
        let mut sets: BTreeMap<(String, Option<String>), Vec<PhasedClaim>> = BTreeMap::new();
        for ((namespace, claim), wanted) in &wanted {
            match self.provisioned(&classes, namespace, claim) {
                Ok(known) => {
                    let of_claim = SnapshotClaim { name: claim.clone(), storage_class: known.storage_class };
                    sets.entry((namespace.clone(), known.driver)).or_default().push((of_claim, wanted.phase));
                }
                Err((problem, remedy)) => plan.obstacles.push(NoSnapshot {
                    node: wanted.node.clone(),
                    volume: format!("claim {namespace}/{claim}"),
                    problem,
                    remedy,
                }),
            }
        }
        for ((namespace, driver), claims) in sets {
            let group = driver.as_deref().and_then(|driver| classes.choose(&classes.groups, driver));
            if let Some(class) = group.filter(|_| claims.len() > 1) {
                let phase = u8::from(claims.iter().any(|(_, phase)| *phase > 0));
                let claims = claims.into_iter().map(|(claim, _)| claim).collect();
                plan.sets.push(SnapshotSet { namespace, driver, class: Some(class), grouped: true, claims, phase });
                continue;
            }
            let class = driver
                .as_deref()
                .and_then(|driver| classes.choose(classes.snapshots.as_deref().unwrap_or(&[]), driver));
            let phases: BTreeSet<u8> = claims.iter().map(|(_, phase)| *phase).collect();
            for phase in phases {
                let claims = claims.iter().filter(|(_, of)| *of == phase).map(|(claim, _)| claim.clone()).collect();
                let (namespace, driver, class) = (namespace.clone(), driver.clone(), class.clone());
                plan.sets.push(SnapshotSet { namespace, driver, class, grouped: false, claims, phase });
            }
        }
        plan.sets.sort_by(|a, b| (a.phase, &a.namespace).cmp(&(b.phase, &b.namespace)));
        Ok(plan)
    }

    /// Returns how a claim's volume is provisioned; else why no snapshot can be taken of it, and what to do.
    fn provisioned(&self, classes: &Classes, namespace: &str, claim: &str) -> Result<Provisioned, (String, Remedy)> {
        let object = self
            .claim(namespace, claim)
            .ok_or_else(|| ("there is no such claim".to_owned(), OrLeaveOut("create it").into()))?;
        if text(object, "/status/phase") != Some("Bound") {
            return Err(("it is not bound to a volume".to_owned(), "find out why with `kubectl describe pvc`".into()));
        }
        if text(object, "/spec/volumeMode") == Some("Block") {
            return Err(("it is a block device without a file system".to_owned(), Remedy::WithoutSnapshots));
        }
        let volume = text(object, "/spec/volumeName").and_then(|name| classes.volumes.as_ref()?.get(name));
        let driver = volume
            .and_then(|volume| {
                let csi = text(volume, "/spec/csi/driver");
                csi.or_else(|| annotation(volume, "pv.kubernetes.io/migrated-to")).map(str::to_owned)
            })
            .or_else(|| {
                let named = PROVISIONERS.into_iter().find_map(|name| annotation(object, name))?;
                volume.is_none().then(|| named.to_owned())
            });
        if let (Some(_), None) = (volume, &driver) {
            return Err(("its volume does not belong to a CSI driver".to_owned(), to_a_csi_driver()));
        }
        if let (Some(driver), Some(known)) = (&driver, &classes.snapshots)
            && classes.choose(known, driver).is_none()
        {
            return Err((
                format!("there is no VolumeSnapshotClass for its CSI driver {driver}"),
                Remedy::from("create one, if the driver can take snapshots").or(Remedy::WithoutSnapshots),
            ));
        }
        let own = text(object, "/spec/storageClassName").filter(|name| !name.is_empty());
        let of_driver = || {
            let all = classes.storage.as_ref()?;
            let found = all.iter().find(|class| text(class, "/provisioner") == driver.as_deref())?;
            Some(name_of(found))
        };
        let storage_class = own.or_else(of_driver).map(str::to_owned).ok_or_else(|| {
            (
                "its volume was made by hand, and no StorageClass of its driver is known: a clone cannot be made"
                    .to_owned(),
                Remedy::from("create a StorageClass for the driver").or(Remedy::WithoutSnapshots),
            )
        })?;
        Ok(Provisioned { driver, storage_class })
    }

    /// Returns a claim as it was read.
    pub(in crate::kubernetes) fn claim(&self, namespace: &str, claim: &str) -> Option<&Value> {
        let (known, _) = self.analysis.all.iter().find(|(known, _)| known.name == namespace)?;
        known.find("PersistentVolumeClaim", claim)
    }

    fn snapshot_classes(&self) -> Result<Classes, PlatformError> {
        let list =
            |api_version: &str, kind: &str, plural: &str| self.listed(&resource(api_version, kind, Some(plural)));
        let groups = match group_api(&self.connection)? {
            Some(version) => list(version, "VolumeGroupSnapshotClass", "volumegroupsnapshotclasses")?,
            None => None,
        };
        let volumes = self.connection.persistent_volumes()?.map(|volumes| {
            let values = volumes.into_iter().filter_map(|volume| serde_json::to_value(volume).ok());
            values.map(|volume| (name_of(&volume).to_owned(), volume)).collect()
        });
        Ok(Classes {
            snapshots: list(SNAPSHOT_API, "VolumeSnapshotClass", "volumesnapshotclasses")?,
            groups: groups.unwrap_or_default(),
            storage: list("storage.k8s.io/v1", "StorageClass", "storageclasses")?,
            volumes,
            chosen: self.options.snapshot_classes.clone(),
        })
    }

    /// Lists objects of the whole cluster; `None` without the right to.
    fn listed(&self, resource: &ApiResource) -> Result<Option<Vec<Value>>, PlatformError> {
        let list = self.connection.try_run(|client| {
            let resource = resource.clone();
            async move { Api::<DynamicObject>::all_with(client, &resource).list(&ListParams::default()).await }
        });
        match list {
            Ok(list) => Ok(Some(list.items.into_iter().filter_map(|item| serde_json::to_value(item).ok()).collect())),
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(failed(&format!("listing {}", resource.plural), &error)),
        }
    }
}

impl Classes {
    /// Returns the class to use for a driver: a chosen one, the default, one that deletes what it made, the first by name.
    fn choose(&self, classes: &[Value], driver: &str) -> Option<String> {
        let rank = |class: &&Value| {
            let name = name_of(class).to_owned();
            let default = DEFAULT_CLASSES.iter().any(|mark| annotation(class, mark) == Some("true"));
            let deletes = text(class, "/deletionPolicy") != Some("Retain");
            (!self.chosen.contains(&name), !default, !deletes, name)
        };
        let own = classes.iter().filter(|class| text(class, "/driver") == Some(driver));
        own.min_by_key(rank).map(|class| name_of(class).to_owned())
    }
}

/// Mounts that hold a node's data, and the phase in which a snapshot of each may be taken: peers before orderers (I1), and the parts of an
/// orderer in the order of I3.
fn held(found: &FoundNode) -> Vec<(&Mount, u8)> {
    let mut out: Vec<(&Mount, u8)> = Vec::new();
    for directory in found.node.directories.iter().filter(|directory| directory.source.is_volume()) {
        let path = directory.mounted_at.as_deref().unwrap_or(&directory.path);
        let phase = match directory.role {
            _ if found.node.role != NodeRole::Orderer => 0,
            DirectoryRole::OrdererLedger => 2,
            DirectoryRole::OrdererWal => 3,
            _ => 1,
        };
        let inside = found.mounts.iter().filter(|mount| below(&mount.path, path).is_some());
        for mount in holding(&found.mounts, path).into_iter().chain(inside) {
            if matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_)) {
                continue;
            }
            match out.iter_mut().find(|(known, _)| known.path == mount.path) {
                Some((_, known)) => *known = phase.max(*known),
                None => out.push((mount, phase)),
            }
        }
    }
    out
}
