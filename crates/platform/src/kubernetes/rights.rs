//! The rights that fabkeep uses in a cluster, one by one, and whether this account has them. `docs/kubernetes.md` has the same as Roles.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use serde::Serialize;
use serde_json::json;

use super::connection::{Connection, failed};
use crate::PlatformError;

/// What a right is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Every backup.
    Backup,
    /// A window that scales, fences or stops; its end.
    Window,
    /// Snapshots of volumes.
    Snapshot,
    /// A restore.
    Restore,
}

/// What is lost without a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// What it is for is refused.
    Nothing,
    /// The rest is done; what is missed.
    Less(&'static str),
}

/// A right: a verb on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Right {
    /// What it is for.
    pub purpose: Purpose,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource, as `pods/exec`.
    pub resource: &'static str,
    /// The verb.
    pub verb: &'static str,
    /// Whether it is one of the whole cluster, and not of a namespace.
    pub cluster_wide: bool,
    /// What is lost without it.
    pub without: Without,
}

impl Right {
    /// `list secrets`, `create volumesnapshots.snapshot.storage.k8s.io`.
    pub fn label(&self) -> String {
        match self.resource.split_once('/') {
            _ if self.resource == "*" => format!("{} all resources", self.verb),
            _ if self.group.is_empty() => format!("{} {}", self.verb, self.resource),
            None => format!("{} {}.{}", self.verb, self.resource, self.group),
            Some((resource, part)) => format!("{} {resource}.{}/{part}", self.verb, self.group),
        }
    }
}

/// A right, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RightHeld {
    /// Which.
    #[serde(flatten)]
    pub right: Right,
    /// In which namespace; `None`: in the whole cluster.
    pub namespace: Option<String>,
    /// Whether this account has it.
    pub allowed: bool,
}

/// Rights on resources of one group that are for the same.
struct Rule {
    purpose: Purpose,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    cluster_wide: bool,
    without: Without,
}

const NOT_CAPTURED: Without = Without::Less("these objects are not in the recovery point");
const NO_HEIGHTS: Without = Without::Less("nodes are not asked for their heights");
const NOT_FROM_SNAPSHOTS: Without = Without::Less("claims are not made from snapshots that were kept");
const NO_OWN_KINDS: Without = Without::Less("objects of other kinds, such as custom resources, are not in it");

const fn rule(
    purpose: Purpose,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    without: Without,
) -> Rule {
    Rule { purpose, group, resources, verbs, cluster_wide: false, without }
}

const fn of_cluster(rule: Rule) -> Rule {
    Rule { cluster_wide: true, ..rule }
}

use Purpose::{Backup, Restore, Snapshot, Window};
use Without::{Less, Nothing};

const RBAC: &str = "rbac.authorization.k8s.io";
const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
const GROUPS: &str = "groupsnapshot.storage.k8s.io";

/// Every right that is used.
const RULES: &[Rule] = &[
    rule(Backup, "", &["namespaces"], &["get"], Less("the labels and levels of the namespace are not known")),
    rule(Backup, "", &["secrets", "configmaps", "persistentvolumeclaims", "services", "pods"], &["list"], Nothing),
    rule(Backup, "apps", &["statefulsets", "deployments"], &["list"], Nothing),
    rule(
        Backup,
        "",
        &["pods"],
        &["get", "create", "delete"],
        Less("there are no helper pods: stopped nodes cannot be read"),
    ),
    rule(Backup, "", &["pods/exec"], &["get", "create"], Nothing),
    rule(Backup, "", &["pods/portforward"], &["get", "create"], NO_HEIGHTS),
    rule(Backup, "", &["pods/log"], &["get"], Less("logs are not read")),
    rule(
        Backup,
        "",
        &["serviceaccounts", "limitranges", "resourcequotas", "endpoints", "replicationcontrollers"],
        &["list"],
        NOT_CAPTURED,
    ),
    rule(Backup, "discovery.k8s.io", &["endpointslices"], &["list"], NOT_CAPTURED),
    rule(Backup, "apps", &["daemonsets", "replicasets"], &["list"], NOT_CAPTURED),
    rule(Backup, "batch", &["cronjobs"], &["list"], NOT_CAPTURED),
    rule(Backup, "autoscaling", &["horizontalpodautoscalers"], &["list"], NOT_CAPTURED),
    rule(Backup, "policy", &["poddisruptionbudgets"], &["list"], NOT_CAPTURED),
    rule(Backup, "networking.k8s.io", &["networkpolicies", "ingresses"], &["list"], NOT_CAPTURED),
    rule(Backup, RBAC, &["roles", "rolebindings"], &["list"], NOT_CAPTURED),
    rule(Backup, "*", &["*"], &["list"], NO_OWN_KINDS),
    rule(Window, "", &["configmaps"], &["get", "create", "delete"], Nothing),
    rule(Window, "networking.k8s.io", &["networkpolicies"], &["get", "create", "delete"], Nothing),
    rule(Window, "apps", &["statefulsets", "deployments", "replicasets"], &["get", "patch"], Nothing),
    rule(Window, "", &["replicationcontrollers"], &["get", "patch"], Nothing),
    rule(Snapshot, SNAPSHOTS, &["volumesnapshots"], &["get", "list", "create", "delete"], Nothing),
    rule(Snapshot, SNAPSHOTS, &["volumesnapshots"], &["patch"], Less("snapshots cannot be kept in the cluster")),
    rule(
        Snapshot,
        GROUPS,
        &["volumegroupsnapshots"],
        &["patch"],
        Less("group snapshots cannot be kept in the cluster"),
    ),
    rule(Snapshot, "", &["persistentvolumeclaims"], &["get", "list", "create", "patch", "delete"], Nothing),
    rule(
        Snapshot,
        GROUPS,
        &["volumegroupsnapshots"],
        &["get", "list", "create", "delete"],
        Less("there are no group snapshots"),
    ),
    of_cluster(rule(
        Snapshot,
        SNAPSHOTS,
        &["volumesnapshotclasses"],
        &["list"],
        Less("the cluster's default class is used"),
    )),
    of_cluster(rule(
        Snapshot,
        GROUPS,
        &["volumegroupsnapshotclasses"],
        &["list"],
        Less("there are no group snapshots"),
    )),
    of_cluster(rule(
        Snapshot,
        SNAPSHOTS,
        &["volumesnapshotcontents"],
        &["get", "list", "patch", "delete"],
        Less("snapshots cannot be kept in the cluster, and those of a class that retains them stay"),
    )),
    of_cluster(rule(
        Snapshot,
        GROUPS,
        &["volumegroupsnapshotcontents"],
        &["get", "patch", "delete"],
        Less("group snapshots cannot be kept in the cluster, and those of a class that retains them stay"),
    )),
    of_cluster(rule(
        Snapshot,
        "",
        &["persistentvolumes"],
        &["get", "list", "patch"],
        Less("clones of a class that retains volumes stay"),
    )),
    of_cluster(rule(Snapshot, "storage.k8s.io", &["storageclasses"], &["list"], Less("the classes are not checked"))),
    rule(Restore, "", &["secrets"], &["get", "create", "delete"], Nothing),
    rule(Restore, "", &["configmaps"], &["get", "create", "patch", "delete"], Nothing),
    rule(
        Restore,
        "",
        &["serviceaccounts", "limitranges", "resourcequotas", "services", "endpoints"],
        &["get", "create"],
        Nothing,
    ),
    rule(Restore, "discovery.k8s.io", &["endpointslices"], &["get", "create"], Nothing),
    rule(Restore, "", &["persistentvolumeclaims", "replicationcontrollers"], &["get", "create", "patch"], Nothing),
    rule(
        Restore,
        "apps",
        &["statefulsets", "deployments", "daemonsets", "replicasets"],
        &["get", "create", "patch"],
        Nothing,
    ),
    rule(Restore, "batch", &["cronjobs"], &["get", "create"], Nothing),
    rule(Restore, "autoscaling", &["horizontalpodautoscalers"], &["get", "create"], Nothing),
    rule(Restore, "policy", &["poddisruptionbudgets"], &["get", "create"], Nothing),
    rule(Restore, "networking.k8s.io", &["networkpolicies", "ingresses"], &["get", "create"], Nothing),
    rule(Restore, RBAC, &["roles", "rolebindings"], &["get", "create"], Nothing),
    rule(
        Restore,
        "*",
        &["*"],
        &["get", "create"],
        Less("objects of other kinds are restored only if a right names them"),
    ),
    rule(Restore, "", &["events"], &["list"], Less("the reasons of pods that do not start are not shown")),
    rule(
        Restore,
        "argoproj.io",
        &["applications"],
        &["get", "list", "patch"],
        Less("Argo CD is not suspended while volumes are filled"),
    ),
    rule(
        Restore,
        "kustomize.toolkit.fluxcd.io",
        &["kustomizations"],
        &["get", "list", "patch"],
        Less("Flux is not suspended while volumes are filled"),
    ),
    rule(
        Restore,
        "helm.toolkit.fluxcd.io",
        &["helmreleases"],
        &["get", "list", "patch"],
        Less("Flux is not suspended while volumes are filled"),
    ),
    of_cluster(rule(
        Restore,
        "",
        &["namespaces"],
        &["get", "create"],
        Less("namespaces that are gone are not created"),
    )),
    rule(Restore, SNAPSHOTS, &["volumesnapshots"], &["get", "create", "delete"], NOT_FROM_SNAPSHOTS),
    of_cluster(rule(Restore, SNAPSHOTS, &["volumesnapshotcontents"], &["get", "create", "delete"], NOT_FROM_SNAPSHOTS)),
    of_cluster(rule(Restore, "storage.k8s.io", &["storageclasses"], &["list"], Less("the classes are not checked"))),
    of_cluster(rule(Restore, "", &["persistentvolumes"], &["list"], Less("volumes made by hand are not checked"))),
];

/// Returns every right that is used.
pub fn rights() -> impl Iterator<Item = Right> {
    RULES.iter().flat_map(|rule| {
        let of = move |resource: &&'static str| {
            let resource = *resource;
            rule.verbs.iter().map(move |&verb| Right {
                purpose: rule.purpose,
                group: rule.group,
                resource,
                verb,
                cluster_wide: rule.cluster_wide,
                without: rule.without,
            })
        };
        rule.resources.iter().flat_map(move |resource| of(resource).collect::<Vec<_>>())
    })
}

/// Requests at a time.
const AT_ONCE: usize = 16;

/// Asks the API server for every right: in each namespace, and in the whole cluster.
///
/// # Errors
/// [`PlatformError`] when the API server does not answer what this account may do.
pub(super) fn ask(connection: &Connection, namespaces: &[String]) -> Result<Vec<RightHeld>, PlatformError> {
    use futures_util::StreamExt;
    let in_namespaces = namespaces.iter().flat_map(|namespace| {
        let own = rights().filter(|right| !right.cluster_wide);
        own.map(move |right| (right, Some(namespace.clone())))
    });
    let wanted: Vec<(Right, Option<String>)> =
        rights().filter(|right| right.cluster_wide).map(|right| (right, None)).chain(in_namespaces).collect();
    let review = |right: &Right, namespace: Option<&String>| {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let attributes = json!({"namespace": namespace, "verb": right.verb, "group": right.group,
            "resource": resource, "subresource": subresource});
        serde_json::from_value::<SelfSubjectAccessReview>(json!({"spec": {"resourceAttributes": attributes}}))
    };
    let mut reviews = Vec::new();
    for (right, namespace) in &wanted {
        reviews.push(review(right, namespace.as_ref()).map_err(|error| PlatformError::Cluster {
            what: "asking what this account may do".to_owned(),
            problem: error.to_string(),
            next: "report this to fabkeep's makers".into(),
        })?);
    }
    let answers = connection.try_run(|client| {
        let api: Api<SelfSubjectAccessReview> = Api::all(client);
        let reviews = &reviews;
        async move {
            let asked = reviews.iter().map(|review| {
                let api = &api;
                async move { api.create(&PostParams::default(), review).await }
            });
            let answers: Vec<_> = futures_util::stream::iter(asked).buffered(AT_ONCE).collect().await;
            answers.into_iter().collect::<kube::Result<Vec<_>>>()
        }
    });
    let answers = answers.map_err(|error| failed("asking what this account may do", &error))?;
    let held = wanted.into_iter().zip(answers).map(|((right, namespace), answer)| {
        let allowed = answer.status.is_some_and(|status| status.allowed);
        RightHeld { right, namespace, allowed }
    });
    Ok(held.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What a documented Role allows: group, resource and verb.
    fn documented(role: &str) -> Vec<(String, String, String)> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubernetes.md");
        let text = std::fs::read_to_string(page).unwrap();
        let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
        let roles = blocks.filter(|block| block.contains("\nkind: ClusterRole\n"));
        let roles = roles.map(|block| serde_norway::from_str::<Value>(block).unwrap());
        let role = roles.into_iter().find(|known| known["metadata"]["name"] == role).unwrap();
        let words = |rule: &Value, at: &str| {
            let list = rule[at].as_array().unwrap().clone();
            list.into_iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut out = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    out.extend(words(rule, "verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
        }
        out
    }

    #[test]
    fn every_right_that_is_asked_for_is_documented_and_the_other_way_round() {
        for (role, purpose) in [
            ("fabkeep-backup", Purpose::Backup),
            ("fabkeep-window", Purpose::Window),
            ("fabkeep-snapshot", Purpose::Snapshot),
            ("fabkeep-restore", Purpose::Restore),
        ] {
            let documented: BTreeSet<_> = documented(role).into_iter().collect();
            let owned = |right: Right| (right.group.to_owned(), right.resource.to_owned(), right.verb.to_owned());
            let asked: BTreeSet<_> = rights().filter(|right| right.purpose == purpose).map(owned).collect();
            let unknown: Vec<_> = asked.difference(&documented).collect();
            assert!(unknown.is_empty(), "not in {role}: {unknown:?}");
            // A rule of several groups and resources names pairs that do not exist.
            let groups_of = |resource: &str| -> BTreeSet<&String> {
                asked.iter().filter(|known| known.1 == resource).map(|known| &known.0).collect()
            };
            for (group, resource, verb) in &documented {
                let known = asked.contains(&(group.clone(), resource.clone(), verb.clone()));
                // What volumes were is told by a list that only a role for the whole cluster can give.
                let optional = resource == "persistentvolumes" && purpose == Purpose::Backup;
                assert!(
                    known || optional || (!groups_of(resource).is_empty() && !groups_of(resource).contains(group)),
                    "{role} has {verb} {resource} of {group:?}, which is not asked for"
                );
            }
        }
    }
}
