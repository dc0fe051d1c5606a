//! Asks a certificate authority whether it answers: `/cainfo` needs no identity.

use fabkeep_network::NodeId;

use super::Kubernetes;
use super::observe::get;
use crate::probe::http;

/// Where a certificate authority listens if nothing says otherwise.
const USUAL_PORT: u16 = 7054;
const PORT: &str = "FABRIC_CA_SERVER_PORT";

impl Kubernetes {
    /// Asks a certificate authority for its information. Returns the name that it gives itself.
    ///
    /// # Errors
    /// Why it does not answer, in words.
    pub fn ask_authority(&self, node: &NodeId) -> Result<String, String> {
        let (_, found) = self.found(node).map_err(|error| error.to_string())?;
        let known = found.node.workload.as_ref().ok_or("nothing runs it")?;
        let pod = self.pod_now(found).map_err(|error| error.to_string())?.ok_or("it has no pod")?;
        let workload = self.workload_of(found);
        let container = workload
            .and_then(|workload| workload.spec.containers.iter().find(|container| container.name == known.container));
        let mut ports: Vec<u16> = Vec::new();
        if let Some(container) = container {
            let set = container.env.iter().flatten().find(|set| set.name == PORT);
            ports.extend(set.and_then(|set| set.value.as_ref()?.parse::<u16>().ok()));
            let own = container.ports.iter().flatten().filter_map(|port| u16::try_from(port.container_port).ok());
            ports.extend(own);
        }
        ports.push(USUAL_PORT);
        let mut problem = String::new();
        for (at, port) in ports.iter().enumerate() {
            if ports[..at].contains(port) {
                continue;
            }
            for tls in [None, Some(http::Tls { name: "localhost".to_owned(), ..http::Tls::default() })] {
                let place = (known.namespace.as_str(), pod.name.as_str(), *port);
                match get(&self.connection, place, tls.as_ref(), "/cainfo", false) {
                    Ok(text) => match name_in(&text) {
                        Some(name) => return Ok(name),
                        None => problem = format!("port {port} answers, but not as a certificate authority does"),
                    },
                    Err(error) => problem = format!("port {port}: {error}"),
                }
            }
        }
        Err(problem)
    }
}

/// Returns the name in a certificate authority's answer; empty if it has none.
fn name_in(text: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    let result = answer.get("result").filter(|_| answer.get("success") == Some(&true.into()))?;
    result.get("CAChain")?.as_str().filter(|chain| !chain.is_empty())?;
    Some(result.get("CAName").and_then(|name| name.as_str()).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_authoritys_own_answer_counts() {
        let answer = r#"{"result":{"CAName":"ca-org1","CAChain":"TFMw","Version":"1.5"},"errors":[],"success":true}"#;
        assert_eq!(name_in(answer).as_deref(), Some("ca-org1"));
        for other in ["", "{}", r#"{"status":"OK"}"#, &answer.replace("true", "false"), &answer.replace("TFMw", "")] {
            assert_eq!(name_in(other), None, "{other}");
        }
    }
}
