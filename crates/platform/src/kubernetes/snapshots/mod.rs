//! Snapshots of volumes: planned over all nodes, taken by the CSI drivers, read through clones in helper pods, and removed with them.

mod clones;
mod keep;
mod plan;
mod remove;
mod source;
mod take;

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::connection::Connection;
use super::objects::{MANAGED_BY, RUN, resource, text};
use crate::PlatformError;

pub use keep::KeptSnapshots;
pub(super) use remove::{left, remove, run_of};
pub use source::{SnapshotSource, made_from};

/// A claim: its namespace and its name.
pub(super) type Claim = (String, String);

/// Marks claims that one group of snapshots is taken of: the API chooses the members of a group by their labels.
const GROUP_LABEL: &str = "fabkeep.io/snapshot";
const SNAPSHOT: &str = "snapshot";
const KEPT: &str = "kept-snapshot";
const LENT: &str = "lent-snapshot";
const CLONE: &str = "clone";

/// What a run made in the cluster for snapshots. Each thing is noted before it is made, so that all of it can be removed.
#[derive(Debug, Default)]
pub(super) struct CreatedSnapshots {
    /// The names of snapshots, by the claim that each is of.
    snapshots: BTreeMap<Claim, String>,
    /// Groups: namespace, name, version of the API.
    groups: Vec<(String, String, &'static str)>,
    /// Claims that were labelled for a group.
    labelled: Vec<Claim>,
    /// Storage classes of the clones, by claim.
    classes: BTreeMap<Claim, String>,
    /// The names of clones, by the claim that each is a clone of.
    clones: BTreeMap<Claim, String>,
    /// How many names were given.
    names: usize,
    /// Snapshots and groups stay when the volumes are read; not yet for good.
    staying: bool,
}

impl CreatedSnapshots {
    /// Nothing of it stays.
    pub(super) fn leave(&mut self) {
        self.staying = false;
    }

    /// Returns a new name.
    fn name(&mut self, run: &str) -> String {
        self.names += 1;
        format!("fabkeep-{run}-s{}", self.names)
    }
}

fn snapshots(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource(plan::SNAPSHOT_API, "VolumeSnapshot", Some("volumesnapshots")))
}

fn contents(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &resource(plan::SNAPSHOT_API, "VolumeSnapshotContent", Some("volumesnapshotcontents")))
}

fn group_contents(client: Client, version: &str) -> Api<DynamicObject> {
    Api::all_with(client, &resource(version, "VolumeGroupSnapshotContent", Some("volumegroupsnapshotcontents")))
}

fn groups(client: Client, namespace: &str, version: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &group_resource(version))
}

fn group_resource(version: &str) -> ApiResource {
    resource(version, "VolumeGroupSnapshot", Some("volumegroupsnapshots"))
}

fn claims(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource("v1", "PersistentVolumeClaim", None))
}

/// Returns the snapshots of a group: their names, by the names of the claims that they are of.
fn members(connection: &Connection, namespace: &str, group: &str) -> Result<BTreeMap<String, String>, PlatformError> {
    let list = connection.run(&format!("listing the snapshots of group {namespace}/{group}"), |client| async move {
        snapshots(client, namespace).list(&ListParams::default()).await
    })?;
    let own = list.items.into_iter().filter(|item| text(&item.data, "/status/volumeGroupSnapshotName") == Some(group));
    let member = |item: DynamicObject| {
        let claim = text(&item.data, "/spec/source/persistentVolumeClaimName")?.to_owned();
        Some((claim, item.metadata.name?))
    };
    Ok(own.filter_map(member).collect())
}

fn labels(component: &str, run: &str) -> Value {
    json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": component, RUN: run})
}
