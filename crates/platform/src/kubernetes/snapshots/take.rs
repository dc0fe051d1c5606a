//! Takes snapshots, set by set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fabkeep_network::Remedy;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Claim, CreatedSnapshots, GROUP_LABEL, SNAPSHOT, claims, group_resource, labels, members, plan, snapshots};
use crate::kubernetes::Kubernetes;
use crate::kubernetes::connection::{Connection, failed};
use crate::kubernetes::objects::text;
use crate::{OnProgress, PlatformError, Progress, SnapshotPlan, SnapshotReport, SnapshotSet, TakenSet};

const POLL: Duration = Duration::from_millis(200);
/// A driver that reports an error for so long is not awaited any longer.
const ERROR_FOR: Duration = Duration::from_secs(30);

/// Waits for an object that a driver works on: until it is as wanted, or its error lasts, or time is up.
pub(super) struct DriverWait<'a> {
    what: String,
    limit: Duration,
    /// How long an error may last.
    error_for: Duration,
    begun: Instant,
    /// The driver's error, and since when it has been the same.
    error: Option<(String, Instant)>,
    reported: Option<&'a OnProgress<'a>>,
}

impl<'a> DriverWait<'a> {
    pub fn new(what: String, limit: Duration, reported: Option<&'a OnProgress<'a>>) -> Self {
        DriverWait { what, limit, error_for: ERROR_FOR, begun: Instant::now(), error: None, reported }
    }

    /// Waits no longer than this for an error to go.
    pub fn with_errors_for(self, error_for: Duration) -> Self {
        DriverWait { error_for, ..self }
    }

    /// Looks at the object's status until it is as wanted, which `wanted` returns.
    pub fn until<T>(
        &mut self,
        mut status: impl FnMut() -> Result<Option<Value>, PlatformError>,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, PlatformError> {
        loop {
            let status = status()?;
            match status.as_ref().and_then(&wanted) {
                Some(found) => return Ok(found),
                None => self.again(status.as_ref())?,
            }
        }
    }

    /// Waits a little before the object is looked at again; an error when there is no reason to.
    fn again(&mut self, status: Option<&Value>) -> Result<(), PlatformError> {
        let message = status.and_then(|status| text(status, "/error/message"));
        match message {
            Some(message) if self.error.as_ref().is_none_or(|(known, _)| known != message) => {
                if let Some(reported) = self.reported {
                    reported(&Progress::WaitsForSnapshot { what: &self.what, problem: message });
                }
                let since = self.error.take().map_or_else(Instant::now, |(_, since)| since);
                self.error = Some((message.to_owned(), since));
            }
            Some(_) => {}
            None => self.error = None,
        }
        let lasts = self.error.as_ref().is_some_and(|(_, since)| since.elapsed() > self.error_for);
        if lasts || self.begun.elapsed() > self.limit {
            let problem = match self.error.take() {
                Some((message, _)) => format!("the CSI driver or the snapshot controller reports: {message}"),
                None => format!("it did not happen within {} s", self.limit.as_secs()),
            };
            return Err(PlatformError::Cluster {
                what: self.what.clone(),
                problem,
                next: Remedy::from("correct what is reported").or(Remedy::WithoutSnapshots),
            });
        }
        std::thread::sleep(POLL);
        Ok(())
    }
}

/// Returns the status of a snapshot that can be read.
pub(super) fn if_ready(status: &Value) -> Option<Value> {
    (status.get("readyToUse").and_then(Value::as_bool) == Some(true)).then(|| status.clone())
}

/// Returns when a snapshot was cut; `None` while it is not.
fn cut_at(status: &Value) -> Option<Timestamp> {
    text(status, "/creationTime")?.parse().ok()
}

impl Kubernetes {
    /// Takes the snapshots of a plan. When this returns, all of them are cut: the volumes may change again.
    pub(in crate::kubernetes) fn take_planned_snapshots(
        &self,
        plan: &SnapshotPlan,
        limit: Duration,
        reported: &OnProgress<'_>,
    ) -> Result<SnapshotReport, PlatformError> {
        self.remove_snapshots()?;
        let of_set = |set: &SnapshotSet| {
            let namespace = set.namespace.clone();
            let claims = set.claims.clone().into_iter();
            claims.map(move |claim| ((namespace.clone(), claim.name), claim.storage_class))
        };
        let classes: BTreeMap<Claim, String> = plan.sets.iter().flat_map(of_set).collect();
        *self.taken.lock() = Some(CreatedSnapshots { classes, ..CreatedSnapshots::default() });
        let begun = Instant::now();
        let mut report = SnapshotReport { sets: Vec::new(), seconds: 0.0, kept: Vec::new() };
        let phases: BTreeSet<u8> = plan.sets.iter().map(|set| set.phase).collect();
        for phase in phases {
            let sets: Vec<&SnapshotSet> = plan.sets.iter().filter(|set| set.phase == phase).collect();
            // All are asked for before the first is awaited.
            let requested: Vec<_> = sets
                .iter()
                .map(|set| if set.grouped { self.request_group(set) } else { self.request_each(set) })
                .collect::<Result<_, _>>()?;
            for (set, requested) in sets.iter().zip(requested) {
                let claims = match requested {
                    Requested::Each(names) => self.await_each(set, names, limit, reported)?,
                    Requested::Group(name, version) => self.await_group(set, &name, version, limit, reported)?,
                };
                report.sets.push(TakenSet {
                    namespace: set.namespace.clone(),
                    driver: set.driver.clone(),
                    grouped: set.grouped,
                    claims,
                });
            }
        }
        report.seconds = begun.elapsed().as_secs_f64();
        *self.frozen.lock() = plan.nodes.iter().cloned().collect();
        Ok(report)
    }

    fn request_each(&self, set: &SnapshotSet) -> Result<Requested, PlatformError> {
        let mut names = Vec::new();
        for claim in set.names() {
            let name = {
                let mut taken = self.taken.lock();
                let taken = taken.get_or_insert_default();
                let name = taken.name(&self.run);
                taken.snapshots.insert((set.namespace.clone(), claim.to_owned()), name.clone());
                name
            };
            let mut spec = json!({"source": {"persistentVolumeClaimName": claim}});
            if let Some(class) = &set.class {
                spec["volumeSnapshotClassName"] = class.clone().into();
            }
            let object = json!({
                "apiVersion": plan::SNAPSHOT_API, "kind": "VolumeSnapshot",
                "metadata": {"name": name, "namespace": set.namespace, "labels": labels(SNAPSHOT, &self.run)},
                "spec": spec,
            });
            let what = format!("creating the snapshot of claim {}/{claim}", set.namespace);
            self.create(&what, object, |client| snapshots(client, &set.namespace))?;
            names.push(name);
        }
        Ok(Requested::Each(names))
    }

    fn request_group(&self, set: &SnapshotSet) -> Result<Requested, PlatformError> {
        let namespace = &set.namespace;
        let Some(version) = plan::group_api(&self.connection)? else { return self.request_each(set) };
        let name = {
            let mut taken = self.taken.lock();
            let taken = taken.get_or_insert_default();
            let name = taken.name(&self.run);
            taken.groups.push((namespace.clone(), name.clone(), version));
            taken.labelled.extend(set.names().map(|claim| (namespace.clone(), claim.to_owned())));
            name
        };
        for claim in set.names() {
            let change = json!({"metadata": {"labels": {GROUP_LABEL: name}}});
            self.connection.run(
                &format!("labelling claim {namespace}/{claim} for a group of snapshots"),
                |client| {
                    let change = change.clone();
                    async move {
                        claims(client, namespace).patch(claim, &PatchParams::default(), &Patch::Merge(change)).await
                    }
                },
            )?;
        }
        let mut spec = json!({"source": {"selector": {"matchLabels": {GROUP_LABEL: name}}}});
        if let Some(class) = &set.class {
            spec["volumeGroupSnapshotClassName"] = class.clone().into();
        }
        let object = json!({
            "apiVersion": version, "kind": "VolumeGroupSnapshot",
            "metadata": {"name": name, "namespace": namespace, "labels": labels(SNAPSHOT, &self.run)},
            "spec": spec,
        });
        let resource = group_resource(version);
        let what = format!("creating the group of snapshots {namespace}/{name}");
        self.create(&what, object, |client| Api::namespaced_with(client, namespace, &resource))?;
        Ok(Requested::Group(name, version))
    }

    /// Creates an object of this run. That it is there already is the answer to a request whose first answer was lost.
    pub(super) fn create(
        &self,
        what: &str,
        object: Value,
        api: impl Fn(kube::Client) -> Api<DynamicObject>,
    ) -> Result<(), PlatformError> {
        create(&self.connection, what, object, api)
    }

    fn await_each(
        &self,
        set: &SnapshotSet,
        names: Vec<String>,
        limit: Duration,
        reported: &OnProgress<'_>,
    ) -> Result<Vec<(String, Timestamp)>, PlatformError> {
        let mut out = Vec::new();
        for (claim, name) in set.names().zip(names) {
            let what = format!("taking the snapshot of claim {}/{claim}", set.namespace);
            let mut wait = DriverWait::new(what, limit, Some(reported));
            let time = wait.until(|| self.snapshot_status(&set.namespace, &name), cut_at)?;
            out.push((claim.to_owned(), time));
        }
        Ok(out)
    }

    fn await_group(
        &self,
        set: &SnapshotSet,
        name: &str,
        version: &'static str,
        limit: Duration,
        reported: &OnProgress<'_>,
    ) -> Result<Vec<(String, Timestamp)>, PlatformError> {
        let namespace = &set.namespace;
        let what = format!("taking the group of snapshots {namespace}/{name}");
        let resource = group_resource(version);
        let status = || {
            let found = self.connection.run(&what, |client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
                async move { api.get(name).await }
            })?;
            Ok(found.data.get("status").cloned())
        };
        let mut wait = DriverWait::new(what.clone(), limit, Some(reported));
        let time = wait.until(status, cut_at)?;
        // The members' objects are made when the group is cut; the claim of each says whose it is.
        let members = loop {
            let members = members(&self.connection, namespace, name)?;
            if set.names().all(|claim| members.contains_key(claim)) {
                break members;
            }
            wait.again(None)?;
        };
        let mut taken = self.taken.lock();
        let taken = taken.get_or_insert_default();
        taken.snapshots.extend(members.into_iter().map(|(claim, snapshot)| ((namespace.clone(), claim), snapshot)));
        Ok(set.names().map(|claim| (claim.to_owned(), time)).collect())
    }

    /// Returns the status of a snapshot.
    pub(super) fn snapshot_status(&self, namespace: &str, name: &str) -> Result<Option<Value>, PlatformError> {
        let what = format!("looking at the snapshot {namespace}/{name}");
        let found = self.connection.run(&what, |client| {
            let api = snapshots(client, namespace);
            async move { api.get(name).await }
        })?;
        Ok(found.data.get("status").cloned())
    }
}

/// What was asked for.
enum Requested {
    /// One snapshot for each claim: their names.
    Each(Vec<String>),
    /// A group: its name, and the version of its API.
    Group(String, &'static str),
}

/// Creates an object that has a name of its own. That it is there already is the answer to a request whose first answer was lost.
pub(super) fn create(
    connection: &Connection,
    what: &str,
    object: Value,
    api: impl Fn(kube::Client) -> Api<DynamicObject>,
) -> Result<(), PlatformError> {
    let object: DynamicObject = serde_json::from_value(object).map_err(|error| PlatformError::Cluster {
        what: what.to_owned(),
        problem: error.to_string(),
        next: "report this to fabkeep's makers".into(),
    })?;
    let created = connection.try_run(|client| {
        let (api, object) = (api(client), object.clone());
        async move { api.create(&PostParams::default(), &object).await }
    });
    match created {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(failed(what, &error)),
    }
}
