//! What can be found out about a cluster before the first backup, without changing it: rights, clocks, helper pods, claims, leftovers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fabkeep_network::{NodeId, Remedy};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::{DynamicObject, ListParams, PostParams};
use serde::Serialize;

use super::connection::exec::ContainerRef;
use super::connection::{Connection, chain, is_forbidden};
use super::objects::{MANAGED_BY, RESTORE_RECORD, SCALED, name_of, noted_replicas, resource, text};
use super::rights::{self, RightHeld};
use super::volume::helper;
use super::volume::helper_pod::{HelperPod, Rights};
use super::{ClusterAddress, Kubernetes, Selection, Target, Volumes, discover, namespaces, snapshots};
use crate::{ObjectRef, PlatformError};

/// How long the API server may take to tell its time.
const ANSWER: Duration = Duration::from_secs(20);

/// A look at another clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockSeen {
    /// Whose clock.
    pub of: String,
    /// By how many seconds it is ahead of this machine's clock, at least: the time that the question took is on its side.
    pub ahead_seconds: i64,
}

impl ClockSeen {
    /// Compares a time that was told, in whole seconds, with the time before the question and after the answer.
    pub fn between(of: impl Into<String>, before: Timestamp, told: i64, after: Timestamp) -> ClockSeen {
        // A second that was told lasts a second.
        let (earliest, latest) = (before.as_second() - 1, after.as_second() + 1);
        let ahead_seconds = if told < earliest { told - earliest } else { (told - latest).max(0) };
        ClockSeen { of: of.into(), ahead_seconds }
    }
}

/// Something that an earlier run has left in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "left", rename_all = "kebab-case")]
pub enum Left {
    /// A helper pod, a snapshot or a clone.
    Helper {
        /// `Pod namespace/name`.
        object: String,
        /// Its age in seconds.
        age_seconds: i64,
    },
    /// The progress record of a restore.
    Restore {
        /// The ConfigMap that holds it.
        object: ObjectRef,
    },
    /// A workload that fabkeep scaled to 0.
    ScaledDown {
        /// `Kind namespace/name`.
        object: String,
        /// How many replicas it had.
        replicas: u32,
    },
}

/// A claim that nodes use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its storage class; `None`: the default, or none.
    pub class: Option<String>,
    /// As `Bound`, `Pending`, `Lost`.
    pub phase: String,
}

/// Where a node's volumes are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadIn {
    /// It has none that a pod reads.
    Nothing,
    /// In its own container.
    Own {
        /// The pod.
        pod: String,
    },
    /// In a helper pod.
    Helper {
        /// Why.
        reason: &'static str,
    },
}

/// A node, where it is read, and the clock of its machine.
#[derive(Debug)]
pub struct ReadNode {
    /// Which.
    pub node: NodeId,
    /// Where; the reason why that is not known.
    pub read_in: Result<ReadIn, PlatformError>,
    /// The clock of the machine that its pod runs on.
    pub clock: Option<ClockSeen>,
}

/// A helper pod that was tried.
#[derive(Debug)]
pub struct HelperTried {
    /// Its namespace.
    pub namespace: String,
    /// Whether it ran with root's rights (else with the workload's), or why it did not run.
    pub ran: Result<bool, PlatformError>,
    /// The clock of its machine.
    pub clock: Option<ClockSeen>,
}

/// A connection to a cluster that is looked at before any network in it.
pub struct Preflight {
    connection: Arc<Connection>,
    /// The selected namespaces; else all.
    namespaces: Vec<String>,
}

impl Preflight {
    /// Connects to a cluster.
    ///
    /// # Errors
    /// [`PlatformError`] when it cannot be reached, or namespaces are neither named nor may be listed.
    pub fn open(address: &ClusterAddress, selection: &Selection) -> Result<Preflight, PlatformError> {
        let connection = Arc::new(Connection::open(address)?);
        let namespaces = namespaces(&connection, selection)?;
        Ok(Preflight { connection, namespaces })
    }

    /// Returns the cluster's address, for people.
    pub fn cluster(&self) -> &str {
        &self.connection.name
    }

    /// Returns the namespaces that are selected; without a selection, all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// Returns every right that fabkeep uses, in these namespaces and in the whole cluster, and whether this account has it.
    ///
    /// # Errors
    /// [`PlatformError`] when the API server does not answer that.
    pub fn rights(&self, namespaces: &[String]) -> Result<Vec<RightHeld>, PlatformError> {
        rights::ask(&self.connection, namespaces)
    }

    /// Returns the name by which the API server knows this account; `None` if it does not say.
    pub fn account(&self) -> Option<String> {
        let review = self.connection.try_run(|client| async move {
            Api::<SelfSubjectReview>::all(client).create(&PostParams::default(), &SelfSubjectReview::default()).await
        });
        review.ok()?.status?.user_info?.username
    }

    /// Returns the storage classes of the cluster, and whether each is the default; `None` without the right to list them.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn storage_classes(&self) -> Result<Option<Vec<(String, bool)>>, PlatformError> {
        Target::over(Arc::clone(&self.connection)).storage_classes()
    }

    /// Compares the API server's clock with this machine's; `None` when it does not tell its time.
    ///
    /// # Errors
    /// [`PlatformError`] when it does not answer.
    pub fn clock(&self) -> Result<Option<ClockSeen>, PlatformError> {
        let wrong = |problem: String| PlatformError::Cluster {
            what: "asking the API server for its time".to_owned(),
            problem,
            next: Remedy::NameCluster,
        };
        let request = hyper::http::Request::get("/version").body(kube::client::Body::empty());
        let request = request.map_err(|error| wrong(error.to_string()))?;
        let before = Timestamp::now();
        let answer =
            self.connection.wait(async { tokio::time::timeout(ANSWER, self.connection.client().send(request)).await });
        let after = Timestamp::now();
        let answer =
            answer.map_err(|_| wrong("no answer in time".to_owned()))?.map_err(|error| wrong(chain(&error)))?;
        let told = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let told = told.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        Ok(told.map(|told| ClockSeen::between("the API server", before, told.timestamp().as_second(), after)))
    }

    /// Returns what earlier runs have left in namespaces.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn left(&self, namespaces: &[String]) -> Result<Vec<Left>, PlatformError> {
        let mut out = Vec::new();
        for namespace in namespaces {
            let pods = helper::left(&self.connection, namespace)?;
            let pods = pods.into_iter().map(|(name, _, age)| (format!("Pod {namespace}/{name}"), age));
            let others = snapshots::left(&self.connection, namespace)?;
            let others =
                others.into_iter().map(|(thing, name, _, age)| (format!("{} {namespace}/{name}", thing.kind()), age));
            out.extend(pods.chain(others).map(|(object, age_seconds)| Left::Helper { object, age_seconds }));
            let maps = resource("v1", "ConfigMap", Some("configmaps"));
            let parameters = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
            let listed = self.connection.try_run(|client| {
                let (maps, parameters) = (maps.clone(), parameters.clone());
                async move { Api::<DynamicObject>::namespaced_with(client, namespace, &maps).list(&parameters).await }
            });
            let listed = match listed {
                Ok(listed) => listed.items,
                // The rights say it.
                Err(error) if is_forbidden(&error) => Vec::new(),
                Err(error) => {
                    return Err(super::connection::failed(
                        &format!("listing ConfigMap in namespace {namespace}"),
                        &error,
                    ));
                }
            };
            let names = listed.into_iter().filter_map(|object| object.metadata.name);
            out.extend(
                names
                    .filter(|name| name.starts_with(RESTORE_RECORD))
                    .map(|name| Left::Restore { object: ObjectRef::new("ConfigMap", namespace, &name) }),
            );
        }
        Ok(out)
    }
}

impl Kubernetes {
    /// Returns where the volumes of each node are read, without making a helper pod, and the clocks of the nodes' machines.
    pub fn read_nodes(&self) -> Vec<ReadNode> {
        let look = |position: usize| {
            let found = &self.analysis.nodes[position];
            let of_pods = found.node.directories.iter().any(|directory| directory.source.is_volume());
            let runs = self.runs(found);
            let place = if of_pods { self.own_place(position) } else { Ok(None) };
            let clock = place
                .as_ref()
                .ok()
                .and_then(|place| self.clock_in(place.as_ref()?, found.pod.as_ref()?.host.as_deref()));
            let read_in = place.map(|place| match place {
                _ if !of_pods => ReadIn::Nothing,
                Some(place) => ReadIn::Own { pod: format!("{}/{}", place.namespace, place.pod) },
                None if runs => ReadIn::Helper { reason: "its image has no shell or lacks a tool" },
                None => ReadIn::Helper { reason: "it does not run" },
            });
            ReadNode { node: found.node.id.clone(), read_in, clock }
        };
        (0..self.analysis.nodes.len()).map(look).collect()
    }

    /// Tries a helper pod without volumes in each namespace that has a node with volumes, and removes it again.
    ///
    /// # Errors
    /// [`PlatformError`] when one cannot be removed.
    pub fn try_helpers(&self) -> Result<Vec<HelperTried>, PlatformError> {
        let mut out = Vec::new();
        for (namespace, _) in &self.analysis.all {
            let wanted = |found: &discover::FoundNode| {
                found.node.id.organization == namespace.name
                    && found.node.directories.iter().any(|directory| directory.source.is_volume())
            };
            let position = self.analysis.nodes.iter().position(wanted);
            let Some(position) = position.filter(|at| self.workload_of(&self.analysis.nodes[*at]).is_some()) else {
                continue;
            };
            let tried = self.with_helper_pod(&[position], position, Volumes::Own, |pod| {
                self.note_helper(&namespace.name, pod.name);
                helper::start(&self.connection, &HelperPod { trial: true, ..*pod })
            });
            let mut clock = None;
            let ran = tried.and_then(|started| {
                let has_tools = super::patiently(|| self.connection.has_tools(&started.place));
                match has_tools {
                    Ok(true) => {
                        clock = self.clock_in(&started.place, None);
                        Ok(started.rights == Rights::Root)
                    }
                    Ok(false) => Err(PlatformError::Cluster {
                        what: format!("trying the helper pod {}/{}", started.place.namespace, started.place.pod),
                        problem: format!("the image {} lacks sh or one of the tools", self.options.image),
                        next: Remedy::NameHelperImage,
                    }),
                    Err(source) => Err(PlatformError::Io { path: started.place.to_string(), source }),
                }
            });
            out.push(HelperTried { namespace: namespace.name.clone(), ran, clock });
        }
        self.remove_helpers()?;
        Ok(out)
    }

    /// Compares the clock of a container's machine with this one's; `None` when it does not tell its time.
    fn clock_in(&self, place: &ContainerRef, host: Option<&str>) -> Option<ClockSeen> {
        let ask = || -> io::Result<ClockSeen> {
            let before = Timestamp::now();
            let told = self.connection.time_in(place)?;
            let of = host.map_or_else(|| place.to_string(), |host| format!("node {host}"));
            Ok(ClockSeen::between(of, before, told, Timestamp::now()))
        };
        ask().ok()
    }

    /// Returns the claims that nodes use.
    pub fn claim_states(&self) -> Vec<ClaimState> {
        let all = self.analysis.nodes.iter().flat_map(discover::claims_of_node);
        let mut names: Vec<(String, String)> = all.collect();
        names.sort();
        names.dedup();
        let states = names.into_iter().filter_map(|(namespace, name)| {
            let object = self.claim(&namespace, &name)?;
            Some(ClaimState {
                class: text(object, "/spec/storageClassName").map(str::to_owned),
                phase: text(object, "/status/phase").unwrap_or("Pending").to_owned(),
                namespace,
                name,
            })
        });
        states.collect()
    }

    /// Returns the workloads of the network's namespaces that fabkeep has scaled to 0: by a window, or by a restore that did not end.
    pub fn scaled_down(&self) -> Vec<Left> {
        let namespaces = self.analysis.all.iter().map(|(namespace, _)| namespace);
        let of_kinds = namespaces.flat_map(|namespace| SCALED.iter().map(move |kind| (namespace, *kind)));
        let all = of_kinds.flat_map(|(namespace, kind)| {
            let scaled = namespace.of_kind(kind).iter();
            scaled.filter_map(move |object| {
                let replicas = noted_replicas(object)?;
                Some(Left::ScaledDown { object: format!("{kind} {}/{}", namespace.name, name_of(object)), replicas })
            })
        });
        all.collect()
    }
}
