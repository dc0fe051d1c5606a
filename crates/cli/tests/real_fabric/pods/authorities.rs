//! Certificate authorities that were deployed anew, and get their old key and database back.

use std::time::{Duration, Instant};

use super::kit::Pods;

/// An organization's authority as clients see it: its namespace's name.
fn namespace(pods: &Pods, organization: &str) -> String {
    let name = organization.to_lowercase();
    format!("{}{}", pods.prefix, if name == "ordererorg" { "orderers".to_owned() } else { name })
}

/// How long an authority that was just started may take to answer.
const ANSWERS: Duration = Duration::from_secs(60);

/// A certificate for a registered user, in a folder of the pod that asks: whether the authority gave one. That it could not be reached is no
/// answer.
fn enrolls(pods: &Pods, organization: &str, user: &str, secret: &str) -> bool {
    let url = format!("https://{user}:{secret}@ca.{}:7054", namespace(pods, organization));
    let folder = format!("/tmp/{organization}-{user}");
    let begun = Instant::now();
    loop {
        let asked = pods.try_knet(&pods.prefix, "ca", &[organization, "enroll", "-u", &url, "-M", &folder]);
        if asked.status.success() {
            return true;
        }
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned() + &String::from_utf8_lossy(&asked.stderr);
        if answer.contains("Authentication failure") {
            return false;
        }
        assert!(begun.elapsed() < ANSWERS, "{organization}: {user} got no answer: {answer}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn registers(pods: &Pods, organization: &str, user: &str) {
    let arguments = [organization, "register", "--id.name", user, "--id.secret", "secret", "--id.type", "client"];
    pods.knet(&pods.prefix, "ca", &arguments);
}

/// Who was registered before the capture enrolls, who was revoked does not; new ones are registered and revoked.
pub fn enrols_and_revokes(pods: &Pods, organization: &str) {
    assert!(enrolls(pods, organization, "app1", "app1pw"), "{organization}: app1 is unknown");
    assert!(!enrolls(pods, organization, "app3", "app3pw"), "{organization}: app3 was revoked");
    registers(pods, organization, "afterwards");
    assert!(enrolls(pods, organization, "afterwards", "secret"), "{organization}: who was registered is unknown");
    let told = pods.knet(&pods.prefix, "ca", &[organization, "revoke", "-e", "app2", "--gencrl"]);
    assert!(told.contains("CRL"), "{told}");
    assert!(!enrolls(pods, organization, "app2", "app2pw"), "{organization}: app2 is revoked");
    if organization == "OrdererOrg" {
        return;
    }
    // It is the authority that the channels know: the new certificate signs transactions.
    let folder = format!("/tmp/{organization}-afterwards");
    pods.in_tools(&pods.prefix, &format!("mv {folder}/keystore/* {folder}/key.pem"));
    let (certificate, key) = (format!("{folder}/signcerts/cert.pem"), format!("{folder}/key.pem"));
    let peer = format!("peer0.{}:7051", namespace(pods, organization));
    let root = format!("/net/{organization}/peer0/tls/ca.crt");
    let identity = ["--cert", &certificate, "--key", &key, "--msp", &format!("{organization}MSP")];
    let place = ["--peer", &peer, "--tls", &root, "--prefix", organization];
    pods.knet(&pods.prefix, "drive", &[&["mychannel", "put", "3"], &identity[..], &place].concat());
}

/// An authority's TLS certificate.
fn certificate(pods: &Pods, namespace: &str) -> String {
    let path = "/etc/hyperledger/fabric-ca-server/tls-cert.pem";
    pods.kubectl(&["-n", namespace, "exec", "deployment/ca", "--", "cat", path])
}

/// An authority loses its claim and is deployed again with an empty one: it makes a new TLS certificate and database.
/// Returns both TLS certificates.
fn deployed_anew(pods: &Pods, organization: &str) -> [String; 2] {
    let namespace = namespace(pods, organization);
    let captured = certificate(pods, &namespace);
    pods.lose_claim(&namespace, "ca-data", "ca");
    pods.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: ca-data, namespace: {namespace}}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  storageClassName: csi-local\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    ));
    pods.kubectl(&["-n", &namespace, "rollout", "status", "deployment/ca", "--timeout=120s"]);
    assert!(!enrolls(pods, organization, "app1", "app1pw"), "{organization}: the new authority knows app1");
    registers(pods, organization, "latecomer");
    let new = certificate(pods, &namespace);
    assert!(captured != new);
    [captured, new]
}

/// One is restored as it was captured, one keeps its new TLS certificate and configuration.
pub fn replaced(pods: &Pods) {
    let scenario = pods.also("in pods: an authority deployed anew, restored; enrolled, revoked, transacted afterwards");
    let namespace = namespace(pods, "Org2");
    let node = format!("{namespace}/ca");
    let [captured, _] = deployed_anew(pods, "Org2");
    pods.refused(&["--node", &node, "--replace"], "B11");
    let told = pods.restore(&["--node", &node, "--replace", "--override", "B11"]);
    assert!(told.contains("[C1]") && told.contains("latecomer"), "{told}");
    assert!(!told.contains("[C2]"), "nobody was revoked: {told}");
    assert!(certificate(pods, &namespace) == captured);
    enrols_and_revokes(pods, "Org2");
    pods.goes_on(&pods.prefix, "authority");
    drop(scenario);

    let _scenario = pods
        .also("in pods: an authority deployed anew, restored with --ca-keep; enrolled, revoked, transacted afterwards");
    let namespace = self::namespace(pods, "Org1");
    let node = format!("{namespace}/ca");
    let [_, new] = deployed_anew(pods, "Org1");
    let told = pods.restore(&["--node", &node, "--replace", "--ca-keep", "tls,config"]);
    assert!(told.contains("[C1]") && told.contains("latecomer"), "{told}");
    assert!(certificate(pods, &namespace) == new);
    enrols_and_revokes(pods, "Org1");
    pods.goes_on(&pods.prefix, "authority with its newer certificate");
}
