//! What a cluster admits: levels of the pod security standards, quotas, node ports, long names.

use fabkeep_engine::{EngineError, RestoreOptions};
use fabkeep_fake_cluster::{Answer, Call, Cluster};
use serde_json::{Value, json};

use super::restores::{PEER, PEERS, captured, damage, differences, findings_of, found, options, replace_peer, restore};
use super::scene::Scene;

/// Returns whether the level *restricted* admits a pod.
fn is_restricted(pod: &Value) -> bool {
    let own = |at: &str, container: &Value| {
        let whole = pod.pointer(&format!("/spec/securityContext/{at}"));
        container.pointer(&format!("/securityContext/{at}")).or(whole).cloned().unwrap_or_default()
    };
    pod["spec"]["containers"].as_array().unwrap().iter().all(|container| {
        let capabilities = &container["securityContext"]["capabilities"];
        own("runAsNonRoot", container) == true
            && own("runAsUser", container) != 0
            && own("seccompProfile/type", container) == "RuntimeDefault"
            && container["securityContext"]["allowPrivilegeEscalation"] == false
            && capabilities["drop"] == json!(["ALL"])
            && capabilities.get("add").is_none()
    })
}

/// Pods that come in a namespace that enforces *restricted* are admitted if that level does; `else_too`: in every namespace.
fn enforce(scene: &Scene, else_too: bool) {
    scene.cluster.before(move |cluster, call| {
        let namespace = cluster.get("Namespace", "", &call.namespace).unwrap_or_default();
        let level = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        if call.is("create", "pods") && (else_too || level == "restricted") && !is_restricted(&call.body) {
            return Answer::forbidden();
        }
        Answer::Go
    });
}

fn label_namespace(scene: &Scene) {
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    scene.cluster.patch("Namespace", "", "org1", &label);
}

fn helpers(scene: &Scene) -> Vec<Value> {
    let is_made = |call: &Call| call.is("create", "pods") && call.subresource.is_empty();
    scene.cluster.calls().into_iter().filter(is_made).map(|call| call.body).collect()
}

fn user_of(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]["securityContext"]["runAsUser"]
}

fn with_context(scene: &Scene, pod: &Value) {
    let spec = json!({"spec": {"template": {"spec": {"securityContext": pod}}}});
    scene.cluster.patch("Deployment", "org1", "peer0", &spec);
}

#[test]
fn a_namespace_that_admits_only_restricted_pods_gets_its_nodes_back() {
    let scene = Scene::with(&PEER);
    with_context(&scene, &json!({"runAsUser": 7051, "fsGroup": 7051, "fsGroupChangePolicy": "OnRootMismatch"}));
    label_namespace(&scene);
    scene.back_up();
    let before = scene.contents();
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    enforce(&scene, false);
    scene.cluster.forget_calls();
    let restored = restore(&scene, &options()).unwrap();
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    let helpers = helpers(&scene);
    let [helper] = helpers.as_slice() else { panic!("{helpers:?}") };
    assert!(is_restricted(helper) && *user_of(helper) == 7051, "{helper}");
    assert_eq!(helper["spec"]["securityContext"]["fsGroup"], 7051);
    // Files of other users become those of the workload's: that is said.
    let owner = found(&restored.findings, "B6", "org1/peer0").unwrap_or_else(|| panic!("{:?}", restored.findings));
    assert!(owner.what.contains("user 7051"), "{owner:?}");
    // Where nothing forbids it, a helper gives files to everybody.
    let plain = captured(&PEER);
    assert!(plain.cluster.delete("Namespace", "", "org1"));
    plain.cluster.forget_calls();
    let restored = restore(&plain, &options()).unwrap();
    assert!(found(&restored.findings, "B6", "org1/peer0").is_none(), "{:?}", restored.findings);
    assert!(helpers_of_root(&plain));
}

fn helpers_of_root(scene: &Scene) -> bool {
    let helpers = helpers(scene);
    !helpers.is_empty() && helpers.iter().all(|helper| *user_of(helper) == 0)
}

#[test]
fn a_cluster_that_refuses_root_gets_a_helper_of_the_user_that_it_chooses() {
    for chosen in [true, false] {
        let scene = Scene::with(&PEER);
        if chosen {
            let note = json!({"metadata": {"annotations": {"openshift.io/sa.scc.uid-range": "1000650000/10000"}}});
            scene.cluster.patch("Namespace", "", "org1", &note);
        }
        scene.back_up();
        let before = scene.contents();
        damage(&scene);
        enforce(&scene, true);
        scene.cluster.forget_calls();
        restore(&scene, &replace_peer()).unwrap();
        assert_eq!(differences(&scene, &before), Vec::<String>::new());
        let helpers = helpers(&scene);
        let admitted = helpers.iter().find(|helper| is_restricted(helper)).unwrap();
        // The user of the captured files, or `nobody` instead of root.
        assert!(if chosen { user_of(admitted).is_null() } else { user_of(admitted).is_u64() }, "{admitted}");
    }
}

#[test]
fn helpers_of_a_namespace_with_a_quota_declare_what_it_counts() {
    let scene = Scene::with(&PEER);
    let counted = json!({"limits.cpu": "10", "limits.memory": "20Gi", "requests.ephemeral-storage": "1Gi"});
    scene
        .cluster
        .put(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "org1"},
        "spec": {"hard": counted}}));
    scene.back_up();
    let before = scene.contents();
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    scene.cluster.before(|cluster, call| {
        let declared = |at: &str| call.body.pointer(&format!("/spec/containers/0/resources/{at}")).is_some();
        let all = ["limits/cpu", "limits/memory", "requests/ephemeral-storage"].iter().all(|at| declared(at));
        let counts = cluster.get("ResourceQuota", "org1", "q").is_some();
        if call.is("create", "pods") && counts && !all { Answer::forbidden() } else { Answer::Go }
    });
    scene.cluster.forget_calls();
    restore(&scene, &options()).unwrap();
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert!(helpers_of_root(&scene) && helpers(&scene).len() == 1);
}

#[test]
fn a_helper_that_is_not_admitted_is_known_before_the_first_change() {
    let scene = captured(&PEERS);
    damage(&scene);
    // Its node is down: only a helper reaches the volume.
    scene.cluster.scale("Deployment", "org1", "peer0", 0);
    scene.cluster.fault(usize::MAX, Answer::forbidden(), |call| call.is("create", "pods"));
    scene.cluster.forget_calls();
    let error = restore(&scene, &replace_peer()).unwrap_err();
    assert!(matches!(error, EngineError::Platform(_)), "{error}");
    let is_write = |call: &Call| call.is_write() && call.resource != "pods";
    assert!(!scene.cluster.calls().iter().any(is_write), "{:?}", scene.cluster.calls());
}

#[test]
fn a_node_port_that_somebody_else_has_is_known_before_the_first_change() {
    let service = |namespace: &str, name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 7051, "nodePort": 30051}]}})
    };
    let scene = Scene::with(&PEER);
    scene.cluster.put(service("org1", "outside"));
    scene.back_up();
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    scene.cluster.put(service("shop", "till"));
    let taken = |cluster: &Cluster, call: &Call| {
        let wants = call.body.pointer("/spec/ports/0/nodePort").is_some();
        let refused = call.is("create", "services") && wants && cluster.get("Service", "shop", "till").is_some();
        if refused {
            Answer::Refuse(422, "Invalid", "provided port is already allocated".to_owned())
        } else {
            Answer::Go
        }
    };
    scene.cluster.before(taken);
    scene.cluster.forget_calls();
    let error = restore(&scene, &options()).unwrap_err();
    let findings = findings_of(&error);
    let port = found(&findings, "K6", "Service org1/outside").unwrap_or_else(|| panic!("{error}"));
    assert!(port.what.contains("shop/till") && port.what.contains("30051"), "{port:?}");
    assert!(!scene.cluster.calls().iter().any(Call::is_write));
    // The way out: the cluster chooses another one.
    let accepted = RestoreOptions { overrides: vec!["K6".to_owned()], ..options() };
    restore(&scene, &accepted).unwrap();
    let outside = scene.cluster.get("Service", "org1", "outside").unwrap();
    assert_ne!(outside["spec"]["ports"][0]["nodePort"], 30051);
}

#[test]
fn a_copy_of_an_object_with_a_long_name_gets_a_name_that_is_short_enough() {
    let scene = Scene::with(&PEER);
    let name = format!("{}.tls", "s".repeat(240));
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "org1"},
            "data": {"server.crt": value}})
    };
    scene.cluster.put(secret("YQ=="));
    let volume = json!({"name": "long", "secret": {"secretName": name}});
    let mut deployment = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    deployment["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    scene.cluster.put(deployment);
    scene.back_up();
    scene.cluster.put(secret("Yg=="));
    damage(&scene);
    scene.cluster.before(|_, call| {
        let long = call.body["metadata"]["name"].as_str().is_some_and(|name| name.len() > 253);
        if long { Answer::Refuse(422, "Invalid", "must be no more than 253 characters".to_owned()) } else { Answer::Go }
    });
    restore(&scene, &replace_peer()).unwrap();
    assert_eq!(scene.cluster.get("Secret", "org1", &name).unwrap()["data"]["server.crt"], "YQ==");
    let kept = scene.cluster.names("Secret", "org1").into_iter().find(|known| known.contains(".before-")).unwrap();
    assert_eq!(scene.cluster.get("Secret", "org1", &kept).unwrap()["data"]["server.crt"], "Yg==");
}
