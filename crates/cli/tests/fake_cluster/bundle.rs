//! The bundle for the report of a fault: what helps is in it, and no secret, whatever prints it.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::GzDecoder;
use serde_json::json;

use crate::scene::{Ended, Scene, ended};

fn bundle(scene: &Scene, more: &[&str]) -> (Ended, BTreeMap<String, String>) {
    let mut command =
        scene.on_cluster(&["debug-bundle", "fault.tar.gz", "--repo", "repository", "--writer", "keys/writer"]);
    let made = ended(&command.args(["--identity", "keys/identity", "-q"]).args(more).output().unwrap());
    let file = std::fs::File::open(scene.path("fault.tar.gz")).unwrap_or_else(|error| panic!("{error}: {}", made.text));
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(file)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), text);
    }
    (made, files)
}

/// A secret, and the forms in which it is planted.
const PLANTED: [&str; 9] = [
    "Zx9-opaque-value",
    "couch-pa55word",
    "db/p@ssw0rd",
    "tok-5ecret-1234",
    "adminpw-77",
    "hunter2hunter2",
    "enrol1ment",
    "bearer0123456789",
    "p1nc0de99",
];

#[test]
fn planted_secrets_are_never_in_it_and_what_helps_is() {
    let scene = Scene::new();
    scene.back_up();
    let [opaque, couch, db, token, admin, hunter, enrolment, bearer, pin] = PLANTED;
    let key = std::fs::read_to_string(scene.network().join("Org1/peer0/tls/server.key")).unwrap();
    let key_line = key.lines().nth(1).unwrap().to_owned();
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted", "namespace": "org1"}, "type": "Opaque",
        "data": {"value": BASE64.encode(opaque), "lines": BASE64.encode(format!("first\n{hunter}\nlast"))},
    }));
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca-config", "namespace": "org1"},
        "data": {"fabric-ca-server-config.yaml": format!(
            "db:\n  type: postgres\n  datasource: host=db user=ca password={enrolment} dbname=ca\nregistry:\n  identities:\n    - name: admin\n      pass: {admin}\nbccsp:\n  pkcs11:\n    Pin: {pin}\n"
        ), "API_TOKEN": token},
    }));
    let container = json!({"spec": {"template": {"spec": {"containers": [{"name": "peer0", "env": [
        {"name": "CORE_LEDGER_STATE_COUCHDBCONFIG_PASSWORD", "value": couch},
        {"name": "DATABASE_URL", "value": format!("postgres://fabric:{db}@db:5432/ca")},
    ]}]}}}});
    let mut object = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    let env = container.pointer("/spec/template/spec/containers/0/env").unwrap().as_array().unwrap().clone();
    let known = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    object["spec"]["template"]["spec"]["containers"][0]["env"] = known.into_iter().chain(env).collect();
    scene.cluster.put(object);
    let pod = scene.cluster.pod("org1", "peer0-").unwrap();
    let log = [
        "2026-11-30 10:00:00 INFO committed block 17 of channel mychannel".to_owned(),
        format!("value {opaque}, in base64 {}, and {hunter} alone", BASE64.encode(opaque)),
        format!("couchdb: user admin, {couch}"),
        format!("dialing postgres://fabric:{db}@db:5432/ca?sslmode=disable"),
        format!("parsed datasource host=db user=ca password={enrolment} dbname=ca"),
        format!("got {{\"token\":\"{token}\",\"user\":\"x\"}} and {{\\\"secret\\\":\\\"{admin}\\\"}}"),
        format!("Authorization: Bearer {bearer}"),
        format!("PKCS11 pin: {pin}"),
        format!("loaded {}", key.replace('\n', "\\n")),
        key.clone(),
        format!("only a line of it: {key_line}"),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJl".to_owned(),
    ];
    scene.cluster.set_log("org1", &pod, &log.join("\n"));
    scene.cluster.serve_kind("v1", "Event", "events", true);
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "failed.1", "namespace": "org1"},
        "involvedObject": {"kind": "Pod", "name": pod}, "type": "Warning", "reason": "Failed", "count": 3,
        "message": format!("Failed to pull: basic auth user:{couch} was refused by the registry"),
    }));

    let (made, files) = bundle(&scene, &[]);
    assert_eq!(made.code, 0, "{}", made.text);
    let whole: String = files.iter().map(|(name, text)| format!("{name}\n{text}\n")).collect();
    let identity = std::fs::read_to_string(scene.path("keys/identity")).unwrap();
    let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap().to_owned();
    let writer: serde_json::Value = serde_json::from_slice(&std::fs::read(scene.path("keys/writer")).unwrap()).unwrap();
    let mut secrets: Vec<String> = PLANTED.map(str::to_owned).to_vec();
    secrets.extend([key_line, identity, BASE64.encode(opaque), "eyJhbGciOiJIUzI1NiJ9".to_owned()]);
    secrets.extend(["signing_key", "name_key"].map(|name| writer[name].as_str().unwrap().to_owned()));
    for secret in &secrets {
        let at = files.iter().find(|(_, text)| text.contains(secret.as_str()));
        assert!(!whole.contains(secret.as_str()), "{secret} is in {:?}", at);
    }
    assert!(!whole.contains("PRIVATE KEY") && whole.contains("[redacted]"));
    // What helps is there.
    let file = |name: &str| {
        files.get(&format!("fabkeep-debug/{name}")).unwrap_or_else(|| panic!("{name}: {:?}", files.keys()))
    };
    assert!(file("logs/org1/peer0.log").contains("INFO committed block 17 of channel mychannel"));
    assert!(file("logs/org1/peer0.log").contains("@db:5432/ca?sslmode=disable"));
    assert!(
        file("org1/events.json").contains("was refused by the registry") && file("org1/events.json").contains("Failed")
    );
    assert!(file("org1/pods.json").contains(&pod) && file("org1/pods.json").contains("phase"));
    assert!(!file("org1/pods.json").contains("env"));
    assert!(file("doctor.txt").contains("rights") && file("doctor.json").contains("\"checks\""));
    assert!(file("repository.json").contains("\"mychannel\"") && file("network.json").contains("org1/peer0"));
    assert!(file("versions.json").contains(env!("CARGO_PKG_VERSION")));
    // A bundle never overwrites a file.
    assert_eq!(scene.run(&["debug-bundle", "fault.tar.gz", "--root", "network"]).code, 2);
}

#[test]
fn what_cannot_be_collected_is_listed_in_it() {
    let scene = Scene::new();
    scene.cluster.forbid(|call| call.is("list", "events") || call.is("get", "pods/log"));
    let (made, files) = bundle(&scene, &["--no-pods"]);
    assert_eq!(made.code, 3, "{}", made.text);
    let missing = &files["fabkeep-debug/not-collected.txt"];
    assert!(missing.contains("org1/events.json") && missing.contains("log of org1/peer0"), "{missing}");
    assert!(files.contains_key("fabkeep-debug/doctor.txt"));
}
