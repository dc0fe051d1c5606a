//! Objects of a recovery point that no capture of a network makes: they are not created.

use super::objects::{KINDS, is_of_kubernetes, text};
use super::served;
use crate::Declaration;

/// Namespaces that belong to the cluster itself begin so.
const CLUSTER_NAMESPACES: &str = "kube-";
/// Longest name of an object.
pub(super) const MAX_NAME_BYTES: usize = 253;

/// Objects that no capture of a network makes: of kinds that are not a namespace's, in namespaces of the cluster itself or that are not
/// declared, with names that lead to another object. Each with the reason.
pub fn foreign_to_network(declared: &[Declaration]) -> Vec<(String, String)> {
    let namespaces: Vec<&str> =
        declared.iter().filter(|known| known.kind == "Namespace").map(|known| known.name.as_str()).collect();
    declared.iter().filter_map(|known| Some((known.label(), foreign(known, &namespaces)?))).collect()
}

fn foreign(known: &Declaration, namespaces: &[&str]) -> Option<String> {
    let (group, version) = known.api_version.split_once('/').unwrap_or(("", &known.api_version));
    let made = served::is_made(group, &known.kind);
    let custom =
        group.contains('.') && !made && !is_of_kubernetes(group) && !KINDS.iter().any(|kind| kind.name == known.kind);
    let own_kind = known.kind == "Namespace" && known.api_version == "v1"
        || custom
        || KINDS.iter().any(|kind| {
            let of_kind =
                kind.versions.first().map_or("", |newest| newest.split_once('/').map_or("", |(group, _)| group));
            kind.name == known.kind && of_kind == group
        });
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !own_kind || !word(&known.kind) || !word(version) {
        return Some(format!("objects of the kind {} {} do not declare a network", known.api_version, known.kind));
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    let is_name = |name: &str| {
        let whole = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(in_name);
        whole && !name.split('.').all(str::is_empty)
    };
    if !is_name(&known.name) {
        return Some("its name is not a valid name of an object".to_owned());
    }
    let namespace = if known.kind == "Namespace" { &known.name } else { &known.namespace };
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if namespace.is_empty() || !namespace.chars().all(label) {
        return Some("its namespace has no valid name".to_owned());
    }
    if namespace.starts_with(CLUSTER_NAMESPACES) {
        return Some(format!("namespace {namespace} belongs to the cluster itself"));
    }
    if !namespaces.contains(&namespace.as_str()) {
        return Some(format!("the recovery point does not declare namespace {namespace}"));
    }
    let differs = |at: &str, expected: &str| text(&known.object, at).is_some_and(|found| found != expected);
    let other_namespace = known.kind != "Namespace" && differs("/metadata/namespace", &known.namespace);
    if differs("/kind", &known.kind) || differs("/metadata/name", &known.name) || other_namespace {
        return Some("its content is that of another object".to_owned());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_that_no_capture_makes_are_refused_at_the_border() {
        let declared = |api_version: &str, kind: &str, namespace: &str, name: &str| Declaration {
            namespace: namespace.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            object: json!({"kind": kind, "metadata": {"name": name}}),
        };
        let namespace = declared("v1", "Namespace", "", "org1");
        for good in [
            declared("v1", "Secret", "org1", "peer0-tls"),
            declared("apps/v1", "Deployment", "org1", "peer0"),
            declared("networking.k8s.io/v1beta1", "Ingress", "org1", "in"),
            declared("rbac.authorization.k8s.io/v1", "Role", "org1", "system:reader"),
            declared("hlf.kungfusoftware.es/v1alpha1", "FabricPeer", "org1", "peer0"),
            declared("networking.istio.io/v1", "VirtualService", "org1", "peer0"),
            declared("gateway.networking.k8s.io/v1", "TLSRoute", "org1", "peer0"),
            declared("argoproj.io/v1alpha1", "WorkflowTemplate", "org1", "peer0"),
            declared("discovery.k8s.io/v1", "EndpointSlice", "org1", "orderer"),
            declared("v1", "Endpoints", "org1", "orderer"),
        ] {
            assert_eq!(foreign_to_network(&[namespace.clone(), good.clone()]), Vec::new(), "{}", good.label());
        }
        let mut other = declared("v1", "Secret", "org1", "peer0-tls");
        other.object["metadata"]["namespace"] = "org2".into();
        for bad in [
            declared("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "org1", "admin"),
            declared("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "admin"),
            declared("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "org1", "x"),
            declared("v1", "Secret", "kube-system", "x"),
            declared("v1", "Namespace", "", "kube-system"),
            declared("v1", "Secret", "org2", "x"),
            declared("v1", "Secret", "org1", "../../kube-system/secrets/x"),
            declared("v1", "Secret", "org1", ".."),
            declared("evil.example/v1", "Secret", "org1", "x"),
            declared("apps/v1/../x", "Deployment", "org1", "x"),
            declared("batch/v1", "Job", "org1", "x"),
            declared("certificates.k8s.io/v1", "CertificateSigningRequest", "org1", "x"),
            declared("example", "Thing", "org1", "x"),
            declared("argoproj.io/v1alpha1", "Workflow", "org1", "x"),
            declared("tekton.dev/v1", "TaskRun", "org1", "x"),
            declared("velero.io/v1", "Restore", "org1", "x"),
            declared("acme.cert-manager.io/v1", "Order", "org1", "x"),
            other,
        ] {
            assert_eq!(foreign_to_network(&[namespace.clone(), bad.clone()]).len(), 1, "{}", bad.label());
        }
    }
}
