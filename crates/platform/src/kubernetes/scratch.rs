//! Scratch namespaces of drills: made anew, fenced by NetworkPolicies, looked at from inside before anything runs there, and removed. Only a
//! namespace that a drill made is ever removed: by its uid, or by a mark that is bound to the drill and to the namespace's name.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use fabkeep_network::Remedy;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::connection::exec::ContainerRef;
use super::connection::{Connection, failed, is_forbidden, is_missing};
use super::objects::{MANAGED_BY, annotation, label, name_of, resource, text};
use super::target::{Created, ObjectState, Target, api};
use super::uses::selects;
use super::volume::helper;
use crate::{Declaration, PlatformError};

/// The label of a scratch namespace: the drill's name.
pub(crate) const DRILL: &str = "fabkeep.io/drill";
/// Binds the label to the namespace's name.
pub(crate) const MARK: &str = "fabkeep.io/drill-mark";
/// Which recovery point is drilled, for people.
pub(crate) const POINT: &str = "fabkeep.io/drill-point";
/// What the mark is a hash of, before the drill and the name.
const MARK_CONTEXT: &str = "fabkeep drill namespace 1";
/// The policy that closes a scratch namespace.
const FENCE: &str = "fabkeep-drill-fence";
/// The pod that looks from inside.
const PROBE: &str = "fabkeep-drill-probe";
/// Where clusters run their DNS, and the address of its cache on each machine.
const DNS_NAMESPACES: [&str; 2] = ["kube-system", "openshift-dns"];
const DNS_CACHE: &str = "169.254.20.10/32";
const DNS_PORTS: [u16; 2] = [53, 5353];
/// Labels of the captured namespace that a scratch one has too: they decide which pods are admitted.
const KEPT_LABELS: &str = "pod-security.kubernetes.io/";
const KEPT_ANNOTATIONS: &str = "openshift.io/";
/// Most Services that are tried from inside.
const MAX_TRIED: usize = 16;
/// How long a new namespace may take to have an account for pods.
const ACCOUNT: Duration = Duration::from_secs(20);
/// How long the probe may take to run.
const PROBE_START: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);
/// Longest output of the probe.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Tries to connect to addresses, `ADDRESS:PORT` each, and says which are open. DNS is allowed: it shows that the tool works.
const TRY: &str = r#"command -v nc >/dev/null || { echo "tool missing"; exit 0; }
try() { if nc -z -w 3 "$2" "$3" </dev/null >/dev/null 2>&1; then echo "$1 open"; else echo "$1 closed"; fi; }
dns=$(sed -n 's/^nameserver[[:space:]]*//p' /etc/resolv.conf | head -n 1)
[ -n "$dns" ] && try dns "$dns" 53 &
[ -n "$KUBERNETES_SERVICE_HOST" ] && try api "$KUBERNETES_SERVICE_HOST" "${KUBERNETES_SERVICE_PORT:-443}" &
for at; do try "$at" "${at%:*}" "${at##*:}" & done
wait"#;

/// A namespace that a drill made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchNamespace {
    /// Its name.
    pub name: String,
    /// What tells it from another one of its name.
    pub uid: String,
}

/// What came of making a scratch namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MadeScratch {
    /// It was made.
    Made(ScratchNamespace),
    /// There is a namespace of this name; whether a drill made it.
    Exists {
        /// Whether it has the mark of a drill.
        of_drill: bool,
    },
}

/// A look from inside a scratch namespace.
#[derive(Debug)]
pub struct FenceProbe<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The image: it needs `sh`, `sed` and `nc`.
    pub image: &'a str,
    /// Secrets of the namespace with which the image is pulled.
    pub pull_secrets: &'a [String],
    /// What must not be reached: what it is, and `ADDRESS:PORT`.
    pub outside: &'a [(String, String)],
    /// How long policies may take to have an effect.
    pub settle: Duration,
}

/// What was seen from inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FenceSeen {
    /// What of the outside was reached.
    pub reached: Vec<String>,
    /// How many others were tried and not reached.
    pub blocked: usize,
    /// Whether the API server was reached; `None` where the pod does not know its address.
    pub api_server: Option<bool>,
    /// Whether DNS was reached, which is allowed: else the tool or the network does not work, and nothing follows from the rest.
    pub works: bool,
}

fn mark(drill: &str, name: &str) -> String {
    hex::encode(digest(&SHA256, format!("{MARK_CONTEXT}\n{drill}\n{name}\n").as_bytes()))
}

/// Returns the drill that made a namespace.
fn drill_of(namespace: &Value) -> Option<&str> {
    let drill = label(namespace, DRILL)?;
    (annotation(namespace, MARK)? == mark(drill, name_of(namespace))).then_some(drill)
}

/// Returns whether a namespace is a drill's: a network is not looked for in it.
pub(super) fn is_scratch(namespace: &DynamicObject) -> bool {
    serde_json::to_value(namespace).is_ok_and(|whole| drill_of(&whole).is_some())
}

fn namespace(name: &str, object: Value) -> Declaration {
    Declaration {
        namespace: String::new(),
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        name: name.to_owned(),
        object,
    }
}

/// Returns the entries of a map whose keys begin so.
fn kept(object: &Value, at: &str, begin: &str) -> serde_json::Map<String, Value> {
    let all = object.pointer(at).and_then(Value::as_object).into_iter().flatten();
    all.filter(|(key, _)| key.starts_with(begin)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Returns the policies that close a namespace: pods reach pods of the drill and DNS, and nobody else reaches them.
fn fence(drill: &str, name: &str) -> Declaration {
    let inside = json!([{"namespaceSelector": {"matchLabels": {DRILL: drill}}}]);
    let ports: Vec<Value> =
        DNS_PORTS.iter().flat_map(|port| ["UDP", "TCP"].map(|kind| json!({"protocol": kind, "port": port}))).collect();
    let of_dns = json!([
        {"namespaceSelector": {"matchExpressions":
            [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": DNS_NAMESPACES}]}},
        {"ipBlock": {"cidr": DNS_CACHE}},
    ]);
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": FENCE, "namespace": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": inside}],
            "egress": [{"to": inside}, {"to": of_dns, "ports": ports}],
        },
    });
    Declaration {
        namespace: name.to_owned(),
        api_version: "networking.k8s.io/v1".to_owned(),
        kind: "NetworkPolicy".to_owned(),
        name: FENCE.to_owned(),
        object,
    }
}

fn probe_pod(probe: &FenceProbe<'_>, user: Option<i64>) -> Value {
    let secrets: Vec<Value> = probe.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": PROBE, "namespace": probe.namespace, "labels":
            {MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "drill-probe"}},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "activeDeadlineSeconds": 1800,
            "automountServiceAccountToken": false, "imagePullSecrets": secrets,
            "containers": [{
                "name": "probe", "image": probe.image, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            }],
        },
    });
    if let Some(user) = user {
        pod["spec"]["securityContext"] = json!({"runAsUser": user});
    }
    pod
}

impl FenceSeen {
    fn read(output: &str, outside: &[(String, String)]) -> FenceSeen {
        let is_open = |what: &str| {
            let line = output.lines().find_map(|line| line.rsplit_once(' ').filter(|(of, _)| *of == what));
            line.map(|(_, state)| state == "open")
        };
        let mut seen =
            FenceSeen { api_server: is_open("api"), works: is_open("dns") == Some(true), ..FenceSeen::default() };
        for (what, address) in outside {
            match is_open(address) {
                Some(true) => seen.reached.push(format!("{what} ({address})")),
                Some(false) => seen.blocked += 1,
                None => {}
            }
        }
        seen
    }

    /// Returns whether something was reached that should not be.
    fn leaks(&self) -> bool {
        !self.reached.is_empty() || self.api_server == Some(true)
    }
}

impl Target {
    /// Makes a scratch namespace. `like`: the captured namespace that it stands for.
    ///
    /// # Errors
    /// [`PlatformError::Forbidden`], [`PlatformError::Cluster`].
    pub fn make_scratch(
        &self,
        drill: &str,
        point: &str,
        name: &str,
        like: Option<&Declaration>,
    ) -> Result<MadeScratch, PlatformError> {
        let what = format!("creating the scratch namespace {name}");
        let like = like.map_or(&Value::Null, |like| &like.object);
        let mut labels = kept(like, "/metadata/labels", KEPT_LABELS);
        labels
            .extend([(DRILL, drill), (MANAGED_BY.0, MANAGED_BY.1)].map(|(key, value)| (key.to_owned(), value.into())));
        let mut annotations = kept(like, "/metadata/annotations", KEPT_ANNOTATIONS);
        annotations.extend([(MARK.to_owned(), mark(drill, name).into()), (POINT.to_owned(), point.into())]);
        let object = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels, "annotations": annotations}});
        let declared = namespace(name, object.clone());
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| internal(&what, &error))?;
        let made = self.connection.try_run(|client| {
            let (api, object) = (api(&self.connection, client, &declared), object.clone());
            async move { api.create(&PostParams::default(), &object).await }
        });
        match made {
            Ok(made) => Ok(MadeScratch::Made(scratch(name, &made))),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.get(&declared, &what)?;
                let whole = found.as_ref().and_then(|found| serde_json::to_value(found).ok()).unwrap_or_default();
                Ok(match (drill_of(&whole), found) {
                    // The answer to an earlier try was lost.
                    (Some(by), Some(found)) if by == drill => MadeScratch::Made(scratch(name, &found)),
                    (by, _) => MadeScratch::Exists { of_drill: by.is_some() },
                })
            }
            Err(error) => Err(failed(&what, &error)),
        }
    }

    /// Closes a scratch namespace: pods in it reach each other, those in other namespaces of the drill and DNS; nobody else reaches them.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn fence_scratch(&self, drill: &str, name: &str) -> Result<(), PlatformError> {
        let policy = fence(drill, name);
        match self.create(&policy)? {
            Created::Made | Created::There(ObjectState::Equal) => Ok(()),
            Created::There(_) => Err(PlatformError::Cluster {
                what: format!("creating {}", policy.label()),
                problem: "somebody else has created a policy of this name at the same moment".to_owned(),
                next: "find out who writes into new namespaces, then run the same command again".into(),
            }),
        }
    }

    /// Services of namespaces that answer now: `Service namespace/name`, and `ADDRESS:PORT`. What may not be listed is left out.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn answering_services(&self, namespaces: &[String]) -> Result<Vec<(String, String)>, PlatformError> {
        let mut out = Vec::new();
        for namespace in namespaces {
            let services = resource("v1", "Service", None);
            let list = self.connection.try_run(|client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &services);
                async move { api.list(&ListParams::default()).await }
            });
            let services = match list {
                Ok(list) => list.items,
                Err(error) if is_forbidden(&error) || is_missing(&error) => continue,
                Err(error) => return Err(failed(&format!("listing Services in namespace {namespace}"), &error)),
            };
            let pods = match self.connection.pods(namespace) {
                Ok(pods) => pods,
                Err(PlatformError::Forbidden { .. }) => continue,
                Err(error) => return Err(error),
            };
            for service in services {
                let name = service.metadata.name.clone().unwrap_or_default();
                let spec = service.data.get("spec").unwrap_or(&Value::Null);
                let address = text(spec, "/clusterIP").filter(|address| !address.is_empty() && *address != "None");
                let is_tcp = |port: &&Value| text(port, "/protocol").is_none_or(|protocol| protocol == "TCP");
                let port = spec.get("ports").and_then(Value::as_array).and_then(|ports| ports.iter().find(is_tcp));
                let number = port.and_then(|port| port.get("port")?.as_u64());
                let (Some(address), Some(number), Some(selector)) = (address, number, spec.get("selector")) else {
                    continue;
                };
                let answers = pods.iter().any(|pod| is_ready(pod) && selects(selector, &pod["metadata"]["labels"]));
                if answers {
                    out.push((format!("Service {namespace}/{name}"), format!("{address}:{number}")));
                }
            }
        }
        out.truncate(MAX_TRIED);
        Ok(out)
    }

    /// Looks from inside a scratch namespace whether its fence holds: a pod tries to connect to what is outside, until policies have had
    /// time to have an effect.
    ///
    /// # Errors
    /// [`PlatformError`] when the pod does not run or cannot be asked.
    pub fn look_from_inside(
        &self,
        probe: &FenceProbe<'_>,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<FenceSeen, PlatformError> {
        let place = ContainerRef {
            namespace: probe.namespace.to_owned(),
            pod: PROBE.to_owned(),
            container: "probe".to_owned(),
        };
        let begun = Instant::now();
        start_probe(&self.connection, probe)?;
        let seen = self.wait_for_probe(&place, begun, is_interrupted).and_then(|()| {
            let addresses: Vec<&str> = probe.outside.iter().map(|(_, address)| address.as_str()).collect();
            let looked = Instant::now();
            loop {
                let output = self.connection.output(&place, TRY, &addresses, &[], MAX_OUTPUT_BYTES);
                let output = output.map_err(|source| PlatformError::Io { path: place.to_string(), source })?;
                let seen = FenceSeen::read(&String::from_utf8_lossy(&output), probe.outside);
                if !seen.leaks() && seen.works || looked.elapsed() >= probe.settle || is_interrupted() {
                    return Ok(seen);
                }
                std::thread::sleep(POLL);
            }
        });
        let removed = helper::remove(&self.connection, probe.namespace, PROBE);
        self.connection.end_shells();
        seen.and_then(|seen| removed.map(|()| seen))
    }

    fn wait_for_probe(
        &self,
        place: &ContainerRef,
        begun: Instant,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<(), PlatformError> {
        while !helper::runs(&self.connection, place)? {
            if begun.elapsed() > PROBE_START || is_interrupted() {
                return Err(PlatformError::Cluster {
                    what: format!("starting the pod {}/{PROBE}, which checks the fence", place.namespace),
                    problem: "it does not run".to_owned(),
                    next: Remedy::NameHelperImage.or("check with `kubectl describe pod` why it does not start"),
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Begins to remove a namespace that a drill made. Another one of its name stays.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn remove_scratch(&self, scratch: &ScratchNamespace) -> Result<(), PlatformError> {
        remove(&self.connection, scratch)
    }

    /// Returns whether a namespace that a drill made is gone; what keeps it otherwise.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn is_scratch_gone(&self, scratch: &ScratchNamespace) -> Result<Result<(), String>, PlatformError> {
        let what = format!("looking at the scratch namespace {}", scratch.name);
        let found = self.get(&namespace(&scratch.name, Value::Null), &what)?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(&scratch.uid)) else {
            return Ok(Ok(()));
        };
        let conditions = found.data.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let kept = conditions.filter(|condition| condition["status"] == "True");
        let kept: Vec<&str> = kept.filter_map(|condition| text(condition, "/message")).collect();
        Ok(Err(if kept.is_empty() { "it is being deleted".to_owned() } else { kept.join("; ") }))
    }

    /// Volumes that outlive namespaces, because their class keeps them: their names. None without the right to list volumes.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn volumes_kept_of(&self, namespaces: &[String]) -> Result<Vec<String>, PlatformError> {
        let volumes = self.connection.persistent_volumes()?.unwrap_or_default();
        let is_kept = |volume: &&DynamicObject| {
            let of = volume.data.pointer("/spec/claimRef/namespace").and_then(Value::as_str);
            let policy = volume.data.pointer("/spec/persistentVolumeReclaimPolicy").and_then(Value::as_str);
            policy == Some("Retain") && of.is_some_and(|of| namespaces.iter().any(|name| name == of))
        };
        Ok(volumes.iter().filter(is_kept).filter_map(|volume| volume.metadata.name.clone()).collect())
    }
}

fn internal(what: &str, error: &dyn std::error::Error) -> PlatformError {
    PlatformError::Cluster {
        what: what.to_owned(),
        problem: error.to_string(),
        next: "report this to fabkeep's makers".into(),
    }
}

fn scratch(name: &str, made: &DynamicObject) -> ScratchNamespace {
    ScratchNamespace { name: name.to_owned(), uid: made.metadata.uid.clone().unwrap_or_default() }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// Creates the probe. A new namespace has no account for pods for a moment; where a cluster chooses the users of pods, it refuses another.
fn start_probe(connection: &Connection, probe: &FenceProbe<'_>) -> Result<(), PlatformError> {
    let what = format!("creating the pod {}/{PROBE}, which checks the fence", probe.namespace);
    let begun = Instant::now();
    let mut user = Some(65_534);
    loop {
        let pod: Pod = serde_json::from_value(probe_pod(probe, user)).map_err(|error| internal(&what, &error))?;
        let made = connection.try_run(|client| {
            let (pod, namespace) = (pod.clone(), probe.namespace.to_owned());
            async move { Api::<Pod>::namespaced(client, &namespace).create(&PostParams::default(), &pod).await }
        });
        match made {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("serviceaccount") && begun.elapsed() < ACCOUNT =>
            {
                std::thread::sleep(POLL);
            }
            Err(error) if is_forbidden(&error) && user.is_some() => user = None,
            Err(error) => return Err(failed(&what, &error)),
        }
    }
}

pub(super) fn remove(connection: &Connection, scratch: &ScratchNamespace) -> Result<(), PlatformError> {
    let what = format!("removing the scratch namespace {}", scratch.name);
    let declared = namespace(&scratch.name, Value::Null);
    let preconditions = Preconditions { uid: Some(scratch.uid.clone()), resource_version: None };
    let parameters = DeleteParams::default().preconditions(preconditions);
    let deleted = connection.try_run(|client| {
        let (api, parameters) = (api(connection, client, &declared), parameters.clone());
        async move { api.delete(&scratch.name, &parameters).await.map(|_| ()) }
    });
    match deleted {
        Ok(()) => Ok(()),
        // It is gone, or another one has its name.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
        Err(error) => Err(failed(&what, &error)),
    }
}

/// Scratch namespaces of any drill, among these names, or with these labels: each with the drill and its age in seconds. Those that are being
/// deleted are left out.
pub(super) fn left(
    connection: &Connection,
    names: &[String],
    selector: Option<&str>,
) -> Result<Vec<(ScratchNamespace, String, i64)>, PlatformError> {
    let resource = resource("v1", "Namespace", Some("namespaces"));
    let found = if names.is_empty() {
        let labels = selector.map_or(DRILL.to_owned(), |selector| format!("{DRILL},{selector}"));
        let parameters = ListParams::default().labels(&labels);
        let list = connection.run("listing namespaces", |client| {
            let (resource, parameters) = (resource.clone(), parameters.clone());
            async move { Api::<DynamicObject>::all_with(client, &resource).list(&parameters).await }
        })?;
        list.items
    } else {
        let mut found = Vec::new();
        for name in names {
            let one = connection.try_run(|client| {
                let resource = resource.clone();
                async move { Api::<DynamicObject>::all_with(client, &resource).get_opt(name).await }
            });
            match one {
                Ok(one) => found.extend(one),
                Err(error) if is_forbidden(&error) => {}
                Err(error) => return Err(failed(&format!("looking at namespace {name}"), &error)),
            }
        }
        found
    };
    let now = jiff::Timestamp::now().as_second();
    let own = found.into_iter().filter_map(|object| {
        let whole = serde_json::to_value(&object).ok()?;
        let drill = drill_of(&whole)?.to_owned();
        if whole.pointer("/metadata/deletionTimestamp").is_some() {
            return None;
        }
        let made = text(&whole, "/metadata/creationTimestamp").and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let age = made.map_or(0, |made| now.saturating_sub(made.as_second()));
        Some((scratch(name_of(&whole), &object), drill, age))
    });
    Ok(own.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespace_that_the_mark_was_made_for_is_a_drills() {
        let object = |name: &str, mark: &str| {
            json!({"metadata": {"name": name, "labels": {DRILL: "ab"},
            "annotations": {MARK: mark}}})
        };
        let own = mark("ab", "drill-org1");
        assert_eq!(drill_of(&object("drill-org1", &own)), Some("ab"));
        for other in [object("org1", &own), object("drill-org1", ""), object("drill-org1", &mark("cd", "drill-org1"))] {
            assert_eq!(drill_of(&other), None, "{other}");
        }
        assert_eq!(drill_of(&json!({"metadata": {"name": "drill-org1", "labels": {DRILL: "ab"}}})), None);
    }

    #[test]
    fn what_the_probe_says_is_read() {
        let outside =
            [("Service a/b".to_owned(), "10.0.0.1:7051".to_owned()), ("c".to_owned(), "fd00::1:80".to_owned())];
        let seen = FenceSeen::read("dns open\napi closed\nfd00::1:80 closed\n10.0.0.1:7051 open\n", &outside);
        let reached = vec!["Service a/b (10.0.0.1:7051)".to_owned()];
        assert_eq!(seen, FenceSeen { reached, blocked: 1, api_server: Some(false), works: true });
        assert!(seen.leaks());
        let nothing = FenceSeen::read("tool missing\n", &outside);
        assert!(!nothing.works && !nothing.leaks() && nothing.api_server.is_none());
    }

    #[test]
    fn a_fence_lets_through_only_the_drill_and_dns() {
        let spec = fence("ab", "drill-org1").object["spec"].clone();
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(spec["ingress"], json!([{"from": [{"namespaceSelector": {"matchLabels": {DRILL: "ab"}}}]}]));
        let egress = spec["egress"].as_array().unwrap();
        assert_eq!((egress.len(), egress[0].get("ports")), (2, None));
        assert!(egress[1]["ports"].as_array().unwrap().iter().all(|port| port["port"] == 53 || port["port"] == 5353));
    }
}
