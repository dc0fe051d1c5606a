//! Other things in a cluster that start workloads: GitOps controllers, which restore declared replica counts, and autoscalers. GitOps
//! controllers are suspended while a restore fills volumes; autoscalers ignore a target without replicas.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connection::{failed, is_forbidden, is_missing};
use super::objects::{resource, text};
use super::target::{Target, handle};
use crate::{ObjectRef, PlatformError};

const TRACKING: &str = "argocd.argoproj.io/tracking-id";
const INSTANCE: &str = "app.kubernetes.io/instance";
const KUSTOMIZATION: (&str, &str) = ("kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace");
const HELM_RELEASE: (&str, &str) = ("helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace");

/// A controller's object that puts workloads back as they are declared elsewhere, and what is changed in it to suspend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspension {
    /// `argoproj.io/v1alpha1`, …
    pub api_version: String,
    /// `Application`, `Kustomization`, `HelmRelease`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What stood in the field that is changed, as JSON.
    pub before: String,
}

/// Controllers of workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Those to suspend.
    pub suspend: Vec<Suspension>,
    /// Those that cannot be suspended or looked for, in words.
    pub unreachable: Vec<String>,
    /// Autoscalers, in words.
    pub autoscalers: Vec<String>,
}

impl Suspension {
    /// `Kind namespace/name`.
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    fn resource(&self) -> ApiResource {
        let plural = format!("{}s", self.kind.to_lowercase());
        resource(&self.api_version, &self.kind, Some(&plural))
    }

    /// Returns the field that is changed, and its value while suspended.
    fn field(&self) -> (&'static [&'static str], Value) {
        match self.kind.as_str() {
            "Application" => (&["spec", "syncPolicy", "automated"], Value::Null),
            _ => (&["spec", "suspend"], Value::Bool(true)),
        }
    }

    fn patch(&self, value: &Value) -> Value {
        let (path, _) = self.field();
        path.iter().rev().fold(value.clone(), |inner, key| json!({ *key: inner }))
    }

    fn current(&self, object: &DynamicObject) -> Value {
        let (path, _) = self.field();
        object.data.pointer(&format!("/{}", path.join("/"))).cloned().unwrap_or(Value::Null)
    }
}

impl Target {
    /// Controllers that would scale these workloads up again.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn controllers(&self, workloads: &[ObjectRef]) -> Result<Controllers, PlatformError> {
        let mut out = Controllers::default();
        let mut applications: Option<Vec<DynamicObject>> = None;
        for object in workloads {
            let ObjectRef { kind, namespace, name } = object;
            let workload = handle(object);
            let Some(found) = self.get(&workload, &format!("looking at {}", workload.label()))? else { continue };
            let labels = found.metadata.labels.clone().unwrap_or_default();
            let tracking = found.metadata.annotations.as_ref().and_then(|all| all.get(TRACKING)).cloned();
            let named = tracking.as_deref().and_then(|id| id.split(':').next());
            if let Some(application) = named.or(labels.get(INSTANCE).map(String::as_str)) {
                let all = match &applications {
                    Some(all) => all,
                    None => {
                        let listed = self.applications(&mut out, named.is_some())?;
                        applications.insert(listed)
                    }
                };
                let manages = |known: &&DynamicObject| {
                    let same = known.metadata.name.as_deref() == Some(application);
                    let resources = known.data.pointer("/status/resources").and_then(Value::as_array);
                    let listed = resources.into_iter().flatten().any(|resource| {
                        text(resource, "/kind") == Some(kind)
                            && text(resource, "/namespace") == Some(namespace)
                            && text(resource, "/name") == Some(name)
                    });
                    same && (named.is_some() || listed)
                };
                for known in all.iter().filter(manages) {
                    let (namespace, name) = (
                        known.metadata.namespace.clone().unwrap_or_default(),
                        known.metadata.name.clone().unwrap_or_default(),
                    );
                    out.add("argoproj.io/v1alpha1", "Application", namespace, name, known);
                }
            }
            for ((name_label, namespace_label), kind, versions) in [
                (
                    KUSTOMIZATION,
                    "Kustomization",
                    ["kustomize.toolkit.fluxcd.io/v1", "kustomize.toolkit.fluxcd.io/v1beta2"],
                ),
                (HELM_RELEASE, "HelmRelease", ["helm.toolkit.fluxcd.io/v2", "helm.toolkit.fluxcd.io/v2beta1"]),
            ] {
                let (Some(name), Some(namespace)) = (labels.get(name_label), labels.get(namespace_label)) else {
                    continue;
                };
                self.flux(kind, versions, namespace, name, &mut out)?;
            }
            self.autoscalers(kind, namespace, name, &mut out)?;
        }
        out.suspend.sort();
        out.suspend.dedup();
        out.unreachable.sort();
        out.unreachable.dedup();
        Ok(out)
    }

    /// Applications of Argo CD in every namespace. `meant`: a workload names one.
    fn applications(&self, out: &mut Controllers, meant: bool) -> Result<Vec<DynamicObject>, PlatformError> {
        let applications = resource("argoproj.io/v1alpha1", "Application", Some("applications"));
        let list = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::all_with(client, &applications);
            async move { api.list(&ListParams::default()).await }
        });
        match list {
            Ok(list) => Ok(list.items),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) if is_forbidden(&error) => {
                if meant {
                    out.unreachable.push("Applications of Argo CD may not be listed".to_owned());
                }
                Ok(Vec::new())
            }
            Err(error) => Err(failed("looking for Applications of Argo CD", &error)),
        }
    }

    fn flux(
        &self,
        kind: &str,
        versions: [&str; 2],
        namespace: &str,
        name: &str,
        out: &mut Controllers,
    ) -> Result<(), PlatformError> {
        for version in versions {
            let resource = resource(version, kind, Some(&format!("{}s", kind.to_lowercase())));
            let found = self.connection.try_run(|client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
                async move { api.get(name).await }
            });
            match found {
                Ok(known) => {
                    out.add(version, kind, namespace.to_owned(), name.to_owned(), &known);
                    return Ok(());
                }
                Err(error) if is_missing(&error) => {}
                Err(error) if is_forbidden(&error) => {
                    out.unreachable.push(format!("{kind} {namespace}/{name} of Flux may not be read"));
                    return Ok(());
                }
                Err(error) => return Err(failed(&format!("looking at {kind} {namespace}/{name}"), &error)),
            }
        }
        Ok(())
    }

    fn autoscalers(&self, kind: &str, namespace: &str, name: &str, out: &mut Controllers) -> Result<(), PlatformError> {
        let autoscalers = resource("autoscaling/v2", "HorizontalPodAutoscaler", None);
        let list = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &autoscalers);
            async move { api.list(&ListParams::default()).await }
        });
        let list = match list {
            Ok(list) => list,
            Err(error) if is_missing(&error) || is_forbidden(&error) => return Ok(()),
            Err(error) => return Err(failed(&format!("listing autoscalers in namespace {namespace}"), &error)),
        };
        for known in list.items {
            let at = |field: &str| known.data.pointer(&format!("/spec/scaleTargetRef/{field}")).and_then(Value::as_str);
            if at("kind") == Some(kind) && at("name") == Some(name) {
                let own = known.metadata.name.clone().unwrap_or_default();
                out.autoscalers.push(format!("HorizontalPodAutoscaler {namespace}/{own}"));
            }
        }
        Ok(())
    }

    /// Suspends a controller. `false`: fabkeep has no right to.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn suspend(&self, known: &Suspension) -> Result<bool, PlatformError> {
        let (_, suspended) = known.field();
        self.change_controller(known, &known.patch(&suspended), &format!("suspending {}", known.label()))
    }

    /// Lets a controller go on as before, if it is still suspended. `false`: fabkeep has no right to.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn unsuspend(&self, known: &Suspension) -> Result<bool, PlatformError> {
        let what = format!("resuming {}", known.label());
        let found = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, &known.namespace, &known.resource());
            async move { api.get_opt(&known.name).await }
        });
        let found = match found {
            Ok(Some(found)) => found,
            // It is gone: there is nothing to let go on.
            Ok(None) => return Ok(true),
            Err(error) if is_forbidden(&error) => return Ok(false),
            Err(error) => return Err(failed(&what, &error)),
        };
        let (_, suspended) = known.field();
        if known.current(&found) != suspended {
            return Ok(true);
        }
        let before = serde_json::from_str(&known.before).unwrap_or(Value::Null);
        self.change_controller(known, &known.patch(&before), &what)
    }

    fn change_controller(&self, known: &Suspension, patch: &Value, what: &str) -> Result<bool, PlatformError> {
        let changed = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, &known.namespace, &known.resource());
            async move { api.patch(&known.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()) }
        });
        match changed {
            Ok(()) => Ok(true),
            Err(error) if is_forbidden(&error) => Ok(false),
            Err(error) => Err(failed(what, &error)),
        }
    }
}

impl Controllers {
    /// Adds a controller that acts by itself: one that is suspended already stays so.
    fn add(&mut self, api_version: &str, kind: &str, namespace: String, name: String, object: &DynamicObject) {
        let known = Suspension {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace,
            name,
            before: String::new(),
        };
        let before = known.current(object);
        if before != known.field().1 {
            self.suspend.push(Suspension { before: before.to_string(), ..known });
        }
    }
}
