//! The workloads that use an object: what a restore of some nodes may change, and what others need too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::objects::{OPERATOR_GROUPS, text};
use super::relocation::spec_of;
use crate::{Declaration, ObjectRef};

/// The workloads that use each object of a set, directly or through another object.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    users: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
}

impl Usage {
    /// Looks at declared objects, and at workloads that run beside them (`live`), whose objects are used as well.
    pub fn of(declared: &[Declaration], live: &[Declaration]) -> Usage {
        let mut usage = Usage::default();
        for workload in declared.iter().chain(live) {
            let Some(spec) = spec_of(&workload.kind).and_then(|at| workload.object.pointer(at)) else { continue };
            let user = ObjectRef::from(workload);
            usage.add(user.clone(), &user);
            let mut named = BTreeSet::new();
            references(spec, &mut named);
            let account = text(spec, "/serviceAccountName").or(text(spec, "/serviceAccount")).unwrap_or("default");
            named.insert(("ServiceAccount", account.to_owned()));
            if let Some(service) = text(&workload.object, "/spec/serviceName") {
                named.insert(("Service", service.to_owned()));
            }
            for (kind, name) in named {
                usage.add(ObjectRef::new(kind, &workload.namespace, name), &user);
            }
        }
        for workload in declared.iter().filter(|known| known.kind == "StatefulSet") {
            usage.add_template_claims(workload, declared);
        }
        for (node, workload, custom) in super::custom_resources_of(declared) {
            if let Some((_, kind, name)) = custom {
                usage.add(ObjectRef::new(kind, node, name), &workload);
            }
        }
        usage.add_indirect(declared);
        usage
    }

    fn add(&mut self, object: ObjectRef, user: &ObjectRef) {
        self.users.entry(object).or_default().insert(user.clone());
    }

    /// Returns the workloads that use an object.
    pub fn users(&self, known: &Declaration) -> BTreeSet<ObjectRef> {
        self.users.get(&ObjectRef::from(known)).cloned().unwrap_or_default()
    }

    /// Claims that a StatefulSet's templates make.
    fn add_template_claims(&mut self, workload: &Declaration, declared: &[Declaration]) {
        let templates = workload.object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        for template in templates.into_iter().flatten() {
            let prefix = format!("{}-{}-", super::objects::name_of(template), workload.name);
            for claim in declared {
                let of_it = claim.kind == "PersistentVolumeClaim"
                    && claim.namespace == workload.namespace
                    && claim.name.strip_prefix(&prefix).is_some_and(|rest| rest.parse::<u32>().is_ok());
                if of_it {
                    self.add(ObjectRef::from(claim), &ObjectRef::from(workload));
                }
            }
        }
    }

    /// Objects that point at workloads, or at objects that workloads use.
    fn add_indirect(&mut self, declared: &[Declaration]) {
        let labels = |known: &Declaration| {
            let at = if known.kind == "Pod" { "/metadata/labels" } else { "/spec/template/metadata/labels" };
            known.object.pointer(at).cloned().unwrap_or(Value::Null)
        };
        let workloads: Vec<(ObjectRef, Value)> = declared
            .iter()
            .filter(|known| spec_of(&known.kind).is_some())
            .map(|known| (ObjectRef::from(known), labels(known)))
            .collect();
        // What points at an object that is found to be used only in one round is found in the next: the Secret of the Ingress of a Service.
        for _ in 0..3 {
            for known in declared {
                for user in self.indirect_users(known, declared, &workloads) {
                    self.add(ObjectRef::from(known), &user);
                }
            }
        }
    }

    fn indirect_users(
        &self,
        known: &Declaration,
        declared: &[Declaration],
        workloads: &[(ObjectRef, Value)],
    ) -> BTreeSet<ObjectRef> {
        let same = |kind: &str, name: &str| ObjectRef::new(kind, &known.namespace, name);
        let of = |key: ObjectRef| self.users.get(&key).cloned().unwrap_or_default();
        let selected = |selector: Option<&Value>, all_if_empty: bool| -> BTreeSet<ObjectRef> {
            let Some(selector) = selector else { return BTreeSet::new() };
            let empty = selector.as_object().is_none_or(serde_json::Map::is_empty);
            let here = workloads.iter().filter(|(key, _)| key.namespace == known.namespace);
            here.filter(|(_, labels)| if empty { all_if_empty } else { selects(selector, labels) })
                .map(|(key, _)| key.clone())
                .collect()
        };
        match known.kind.as_str() {
            "Service" => selected(known.object.pointer("/spec/selector"), false),
            "NetworkPolicy" => selected(known.object.pointer("/spec/podSelector"), true),
            "PodDisruptionBudget" => selected(known.object.pointer("/spec/selector"), true),
            "LimitRange" | "ResourceQuota" => workloads
                .iter()
                .filter(|(key, _)| key.namespace == known.namespace)
                .map(|(key, _)| key.clone())
                .collect(),
            "HorizontalPodAutoscaler" => {
                let at =
                    |field: &str| text(&known.object, &format!("/spec/scaleTargetRef/{field}")).unwrap_or_default();
                of(same(at("kind"), at("name")))
            }
            "Ingress" => {
                let mut services = BTreeSet::new();
                named_services(&known.object, &mut services);
                services.into_iter().flat_map(|name| of(same("Service", &name))).collect()
            }
            "Secret" => {
                let names = |other: &&Declaration| {
                    let named = |secret: &Value, at: &str| text(secret, at) == Some(&known.name);
                    let list = |at: &str| other.object.pointer(at).and_then(Value::as_array).into_iter().flatten();
                    other.namespace == known.namespace
                        && match other.kind.as_str() {
                            "ServiceAccount" => {
                                let mut all = list("/imagePullSecrets").chain(list("/secrets"));
                                all.any(|secret| named(secret, "/name"))
                            }
                            "Ingress" => list("/spec/tls").any(|tls| named(tls, "/secretName")),
                            _ => false,
                        }
                };
                declared.iter().filter(names).flat_map(|other| of(ObjectRef::from(other))).collect()
            }
            "Endpoints" => of(same("Service", &known.name)),
            "EndpointSlice" => super::objects::label(&known.object, "kubernetes.io/service-name")
                .map(|service| of(same("Service", service)))
                .unwrap_or_default(),
            "RoleBinding" => {
                let subjects = known.object.get("subjects").and_then(Value::as_array).into_iter().flatten();
                let accounts = subjects.filter(|subject| text(subject, "/kind") == Some("ServiceAccount"));
                accounts
                    .filter_map(|subject| text(subject, "/name"))
                    .flat_map(|name| of(same("ServiceAccount", name)))
                    .collect()
            }
            "Role" => {
                let binds = |other: &&Declaration| {
                    other.kind == "RoleBinding"
                        && other.namespace == known.namespace
                        && text(&other.object, "/roleRef/name") == Some(&known.name)
                };
                declared.iter().filter(binds).flat_map(|other| of(ObjectRef::from(other))).collect()
            }
            "Certificate" if is_certificate(known) => {
                text(&known.object, "/spec/secretName").map(|name| of(same("Secret", name))).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        }
    }
}

fn is_certificate(known: &Declaration) -> bool {
    known.api_version.starts_with(OPERATOR_GROUPS[2])
}

/// Secrets, ConfigMaps and claims that a pod's specification names, wherever it does.
fn references(value: &Value, out: &mut BTreeSet<(&'static str, String)>) {
    match value {
        Value::Array(all) => all.iter().for_each(|inner| references(inner, out)),
        Value::Object(map) => {
            for (key, inner) in map {
                let name = || inner.get("name").and_then(Value::as_str).map(str::to_owned);
                let found = match key.as_str() {
                    "secretName" => inner.as_str().map(|name| ("Secret", name.to_owned())),
                    "secretProviderClass" => inner.as_str().map(|name| ("SecretProviderClass", name.to_owned())),
                    "claimName" => inner.as_str().map(|name| ("PersistentVolumeClaim", name.to_owned())),
                    "secret" | "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => {
                        name().map(|name| ("Secret", name))
                    }
                    "configMap" | "configMapRef" | "configMapKeyRef" => name().map(|name| ("ConfigMap", name)),
                    "imagePullSecrets" => {
                        let secrets = inner.as_array().into_iter().flatten();
                        out.extend(secrets.filter_map(|secret| Some(("Secret", text(secret, "/name")?.to_owned()))));
                        None
                    }
                    _ => None,
                };
                out.extend(found);
                references(inner, out);
            }
        }
        _ => {}
    }
}

/// Returns Secrets, ConfigMaps and claims without which a pod with this specification does not start.
pub(super) fn required(spec: &Value) -> BTreeSet<(&'static str, String)> {
    fn drop_optional(value: &mut Value) {
        let is_optional = |inner: &Value| inner.get("optional") == Some(&Value::Bool(true));
        match value {
            Value::Array(all) => {
                all.retain(|inner| !is_optional(inner));
                all.iter_mut().for_each(drop_optional);
            }
            Value::Object(map) => {
                map.retain(|_, inner| !is_optional(inner));
                map.values_mut().for_each(drop_optional);
            }
            _ => {}
        }
    }
    let mut spec = spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("imagePullSecrets");
    }
    drop_optional(&mut spec);
    let mut named = BTreeSet::new();
    references(&spec, &mut named);
    named.retain(|(kind, _)| matches!(*kind, "Secret" | "ConfigMap" | "PersistentVolumeClaim"));
    named
}

/// Services that an Ingress leads to, in every version of it.
fn named_services(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|inner| named_services(inner, out)),
        Value::Object(map) => {
            for (key, inner) in map {
                let name = match key.as_str() {
                    "service" => text(inner, "/name"),
                    "serviceName" => inner.as_str(),
                    _ => None,
                };
                out.extend(name.map(str::to_owned));
                named_services(inner, out);
            }
        }
        _ => {}
    }
}

/// Returns whether a selector selects labels: `matchLabels` with `matchExpressions`, or labels alone.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let plain = if structured { selector.get("matchLabels") } else { Some(selector) };
    let all_labels = plain
        .and_then(Value::as_object)
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let expressions = selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
    all_labels
        && expressions.into_iter().all(|expression| {
            let found = text(expression, "/key").and_then(|key| labels.get(key)?.as_str());
            let listed = || {
                let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
                values.filter_map(Value::as_str).any(|value| Some(value) == found)
            };
            match text(expression, "/operator") {
                Some("In") => listed(),
                Some("NotIn") => !listed(),
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared(kind: &str, name: &str, object: Value) -> Declaration {
        let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" }.to_owned();
        Declaration { namespace: "org1".to_owned(), api_version, kind: kind.to_owned(), name: name.to_owned(), object }
    }

    #[test]
    fn every_way_of_using_an_object_counts() {
        let pod = json!({
            "serviceAccountName": "account",
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "by-key", "key": "k"}}}]}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "by-env"}}, {"secretRef": {"name": "by-env-secret"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "by-volume"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected-map"}}]}},
                {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "by-driver"}}},
                {"name": "e", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "f", "csi": {"driver": "x", "volumeAttributes": {"secretProviderClass": "vault"}}},
            ],
        });
        let template = json!({"metadata": {"labels": {"app": "peer0"}}, "spec": pod});
        let mut all = vec![declared("Deployment", "peer0", json!({"spec": {"template": template}}))];
        let named = [
            ("Secret", "pull"),
            ("Secret", "by-key"),
            ("ConfigMap", "by-env"),
            ("Secret", "by-env-secret"),
            ("Secret", "by-volume"),
            ("Secret", "projected"),
            ("ConfigMap", "projected-map"),
            ("Secret", "by-driver"),
            ("PersistentVolumeClaim", "data"),
            ("ServiceAccount", "account"),
        ];
        all.extend(named.iter().map(|(kind, name)| declared(kind, name, json!({}))));
        all.push(declared("Service", "peer0", json!({"spec": {"selector": {"app": "peer0"}}})));
        all.push(declared("Service", "peer1", json!({"spec": {"selector": {"app": "peer1"}}})));
        let binding = json!({"subjects": [{"kind": "ServiceAccount", "name": "account"}]});
        all.push(declared("RoleBinding", "rights", binding));
        all.push(declared("SecretProviderClass", "vault", json!({})));
        all.push(declared("Secret", "pull-of-account", json!({})));
        all.push(declared("Secret", "tls-of-ingress", json!({})));
        let ingress = json!({"spec": {"tls": [{"secretName": "tls-of-ingress"}],
            "rules": [{"http": {"paths": [{"backend": {"service": {"name": "peer0"}}}]}}]}});
        all.push(declared("Ingress", "peer0", ingress));
        if let Some(account) = all.iter_mut().find(|known| known.kind == "ServiceAccount") {
            account.object = json!({"imagePullSecrets": [{"name": "pull-of-account"}]});
        }
        let scaled = json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "peer0"}}});
        all.push(declared("HorizontalPodAutoscaler", "peer0", scaled));
        all.push(declared("Secret", "of-nobody", json!({})));
        let usage = Usage::of(&all, &[]);
        for known in &all {
            let used = !matches!(known.name.as_str(), "peer1" | "of-nobody");
            assert_eq!(usage.users(known).len(), usize::from(used), "{}", known.label());
        }
        // A workload that only runs, and was never captured, uses its objects all the same.
        let volumes = json!([{"name": "v", "secret": {"secretName": "by-volume"}}]);
        let other = declared("Deployment", "app", json!({"spec": {"template": {"spec": {"volumes": volumes}}}}));
        let usage = Usage::of(&all, &[other]);
        let shared = all.iter().find(|known| known.name == "by-volume").unwrap();
        assert_eq!(usage.users(shared).len(), 2);
    }

    #[test]
    fn selectors_select_as_the_api_server_does() {
        let labels = json!({"app": "peer", "org": "a"});
        for (selector, expected) in [
            (json!({"app": "peer"}), true),
            (json!({"app": "peer", "org": "b"}), false),
            (
                json!({"matchLabels": {"app": "peer"}, "matchExpressions": [{"key": "org", "operator": "In", "values": ["a"]}]}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "org", "operator": "NotIn", "values": ["a"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }
}
