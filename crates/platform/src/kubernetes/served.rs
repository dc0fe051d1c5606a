//! The kinds of objects that an API server serves, and which of them declare parts of a namespace.

use std::collections::BTreeMap;

use kube::api::ApiResource;

use super::connection::Connection;
use super::objects::{KINDS, PASSING_KINDS, is_operator_group, resource};
use crate::{Declaration, PlatformError};

/// A kind in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedKind {
    /// `group/version`.
    pub api_version: String,
    pub kind: String,
    pub plural: String,
    namespaced: bool,
    /// Whether it can be listed and created.
    kept: bool,
    /// Of its group's preferred version.
    preferred: bool,
}

impl ServedKind {
    fn group(&self) -> &str {
        group_of(&self.api_version)
    }

    pub fn resource(&self) -> ApiResource {
        resource(&self.api_version, &self.kind, Some(&self.plural))
    }

    /// Returns the name of the CustomResourceDefinition that declares it; `None` for what every API server has.
    pub fn definition(&self) -> Option<String> {
        let own = !self.group().contains('.') || BUILT_IN.contains(&self.group());
        (!own).then(|| format!("{}.{}", self.plural, self.group()))
    }
}

/// What an API server serves in named groups; the core kinds are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    kinds: Vec<ServedKind>,
    /// Groups and versions that did not answer: an aggregated API server that is away.
    pub unanswered: Vec<String>,
}

/// How a declared object's kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindServed {
    /// As it was captured.
    Same,
    /// In this version only.
    Other(String),
    /// Not at all.
    No,
    /// As a kind that belongs to no namespace.
    ClusterWide,
}

/// Groups that Kubernetes itself has, beside those without a dot.
const BUILT_IN: [&str; 16] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Groups of what is measured, reported or made by controllers, and of backups: a new cluster makes its own.
const MADE_GROUPS: [&str; 14] = [
    "authentication.k8s.io",
    "authorization.k8s.io",
    "authorization.openshift.io",
    "coordination.k8s.io",
    "custom.metrics.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "external.metrics.k8s.io",
    "groupsnapshot.storage.k8s.io",
    "metrics.k8s.io",
    "reports.kyverno.io",
    "snapshot.storage.k8s.io",
    "velero.io",
    "wgpolicyk8s.io",
];

/// The same by kind: group and kind. Jobs and other runs would run a second time.
const MADE_KINDS: [(&str, &str); 11] = [
    ("apps", "ControllerRevision"),
    ("argoproj.io", "Workflow"),
    ("batch", "Job"),
    ("build.openshift.io", "Build"),
    ("cilium.io", "CiliumEndpoint"),
    ("image.openshift.io", "ImageStreamTag"),
    ("image.openshift.io", "ImageTag"),
    ("resource.k8s.io", "ResourceClaim"),
    ("storage.k8s.io", "CSIStorageCapacity"),
    ("tekton.dev", "PipelineRun"),
    ("tekton.dev", "TaskRun"),
];

/// Returns whether objects of a kind are measured, reported, run once or made by controllers: they declare nothing.
pub(crate) fn is_made(group: &str, kind: &str) -> bool {
    let passes = is_operator_group(group) && PASSING_KINDS.contains(&kind);
    passes || MADE_GROUPS.contains(&group) || MADE_KINDS.contains(&(group, kind))
}

pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Returns whether a kind has the name of one that every cluster has.
pub(crate) fn has_core_name(kind: &str) -> bool {
    KINDS.iter().any(|known| known.name == kind)
}

impl Served {
    /// Asks the API server.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when it does not name its groups. What of them does not answer is in [`Served::unanswered`].
    pub fn ask(connection: &Connection) -> Result<Served, PlatformError> {
        let groups =
            connection.run("asking which APIs there are", |client| async move { client.list_api_groups().await })?;
        let versions: Vec<(String, bool)> = groups
            .groups
            .iter()
            .flat_map(|group| {
                let preferred = group.preferred_version.as_ref().or(group.versions.first());
                let preferred = preferred.map(|version| version.group_version.clone());
                group.versions.iter().map(move |version| {
                    (version.group_version.clone(), Some(&version.group_version) == preferred.as_ref())
                })
            })
            .collect();
        let lists = connection.wait(async {
            let requests = versions.iter().map(|(version, _)| {
                let client = connection.client();
                async move { client.list_api_group_resources(version).await }
            });
            futures_util::future::join_all(requests).await
        });
        let mut served = Served::default();
        for ((api_version, preferred), list) in versions.into_iter().zip(lists) {
            let Ok(list) = list else {
                served.unanswered.push(api_version);
                continue;
            };
            let kinds = list.resources.into_iter().filter(|known| !known.name.contains('/'));
            served.kinds.extend(kinds.map(|known| ServedKind {
                api_version: api_version.clone(),
                kept: ["list", "create"].iter().all(|verb| known.verbs.iter().any(|has| has == verb)),
                kind: known.kind,
                plural: known.name,
                namespaced: known.namespaced,
                preferred,
            }));
        }
        Ok(served)
    }

    fn namespaced(&self) -> impl Iterator<Item = &ServedKind> {
        self.kinds.iter().filter(|known| known.preferred && known.namespaced)
    }

    /// Kinds of Fabric's operators and of cert-manager.
    pub fn of_operators(&self) -> impl Iterator<Item = &ServedKind> {
        self.namespaced()
            .filter(|known| is_operator_group(known.group()) && !PASSING_KINDS.contains(&known.kind.as_str()))
    }

    /// Returns all other kinds that declare something in a namespace.
    pub fn of_others(&self) -> impl Iterator<Item = &ServedKind> {
        self.namespaced().filter(|known| {
            let made = is_made(known.group(), &known.kind);
            known.kept && !made && !is_operator_group(known.group()) && !has_core_name(&known.kind)
        })
    }

    /// Returns how the kind of a declared object is served.
    pub fn how(&self, declaration: &Declaration) -> KindServed {
        if has_core_name(&declaration.kind) || declaration.kind == "Namespace" {
            return KindServed::Same;
        }
        let group = group_of(&declaration.api_version);
        let of_kind: Vec<&ServedKind> =
            self.kinds.iter().filter(|known| known.group() == group && known.kind == declaration.kind).collect();
        let same = of_kind.iter().find(|known| known.api_version == declaration.api_version);
        match same.or(of_kind.iter().find(|known| known.preferred)).or(of_kind.first()) {
            None => KindServed::No,
            Some(known) if !known.namespaced => KindServed::ClusterWide,
            Some(known) if known.api_version == declaration.api_version => KindServed::Same,
            Some(known) => KindServed::Other(known.api_version.clone()),
        }
    }

    /// Returns the API's name of a kind, where it is not one that every cluster has.
    pub fn resource(&self, api_version: &str, kind: &str) -> Option<ApiResource> {
        let found = self.kinds.iter().find(|known| known.api_version == api_version && known.kind == kind)?;
        Some(found.resource())
    }

    /// Groups and versions that did not answer and may have kinds that declare something.
    pub fn unanswered_declaring(&self) -> impl Iterator<Item = &String> {
        self.unanswered.iter().filter(|version| !MADE_GROUPS.contains(&group_of(version)))
    }
}

/// Kinds of which there are objects, by the CustomResourceDefinition that a new cluster needs first: how many, and in which version.
pub(crate) fn definitions<'k>(
    found: impl Iterator<Item = (&'k ServedKind, usize)>,
) -> BTreeMap<String, (String, usize)> {
    let mut out: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for (kind, count) in found.filter(|(_, count)| *count > 0) {
        let Some(name) = kind.definition() else { continue };
        out.entry(name).or_insert((kind.api_version.clone(), 0)).1 += count;
    }
    out
}
