//! A parsed request to the API, and the answers that a test can give instead of the cluster.

use std::collections::BTreeMap;

use serde_json::Value;

/// A request, before it is carried out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// Requests are counted from 1 on.
    pub number: u64,
    /// As RBAC names it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; `discover` for documents
    /// about the API itself.
    pub verb: &'static str,
    /// Empty for the core API.
    pub group: String,
    /// As `v1`.
    pub version: String,
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    /// The plural, as `pods`.
    pub resource: String,
    /// Empty for lists; for `create` the name that the object says.
    pub name: String,
    /// As `exec`, `log` or `scale`; else empty.
    pub subresource: String,
    /// Parameters; those that come more than once joined by line breaks.
    pub query: BTreeMap<String, String>,
    /// The words of a command in a container.
    pub command: Vec<String>,
    /// What was sent, where it is JSON or YAML.
    pub body: Value,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// It is carried out.
    #[default]
    Go,
    /// It is refused with a Status of this code, reason and message.
    Refuse(u16, &'static str, String),
    /// The connection is closed without an answer, and nothing is done.
    Reset,
    /// It is carried out, and the connection is closed without an answer.
    GoThenReset,
    /// No answer ever comes, and nothing is done.
    Hang,
    /// The answer breaks off after so many bytes of its body.
    CutBody(usize),
    /// A command's stream breaks off after so many bytes of its standard output.
    CutOutput(u64),
    /// A command's stream breaks off after so many bytes of its standard input.
    CutInput(u64),
    /// A command's stream ends without the command's status.
    LoseStatus,
}

impl Answer {
    /// 403, as RBAC says it.
    pub fn forbidden() -> Answer {
        Answer::Refuse(403, "Forbidden", "the test's user may not do this".to_owned())
    }

    /// 409 of an update that came too late.
    pub fn conflict() -> Answer {
        Answer::Refuse(409, "Conflict", "the object has been modified".to_owned())
    }

    /// 410 of a watch or a page of a list that is too old.
    pub fn gone() -> Answer {
        Answer::Refuse(410, "Expired", "the provided resource version is too old".to_owned())
    }

    /// 429 of an API server under load.
    pub fn too_many() -> Answer {
        Answer::Refuse(429, "TooManyRequests", "too many requests, please try again later".to_owned())
    }

    /// 500, 503 and others of the API server's own.
    pub fn broken(code: u16) -> Answer {
        Answer::Refuse(code, "InternalError", "the test's server is out of order".to_owned())
    }
}

impl Call {
    /// Returns whether it is this verb on this resource; `exec` and other subresources are named as `pods/exec`.
    pub fn is(&self, verb: &str, resource: &str) -> bool {
        let (of, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.verb == verb && self.resource == of && self.subresource == subresource
    }

    /// Returns whether a command runs in a container.
    pub fn is_exec(&self) -> bool {
        self.resource == "pods" && self.subresource == "exec"
    }

    /// Returns whether it changes what is in the cluster.
    pub fn is_write(&self) -> bool {
        let writes = matches!(self.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
        writes && !self.is_exec() && !self.is_dry_run()
    }

    /// Returns whether it only asks what would happen.
    pub fn is_dry_run(&self) -> bool {
        let asked = self.query.get("dryRun").is_some_and(|value| value == "All");
        // A deletion says it in its body.
        asked || (self.verb == "delete" && self.body.pointer("/dryRun/0").is_some_and(|value| value == "All"))
    }

    /// Takes a method, path and query apart.
    pub(crate) fn parse(method: &str, path: &str, query: &str) -> Call {
        let mut call = Call::default();
        for (key, value) in
            query.split('&').filter_map(|pair| pair.split_once('=').or((!pair.is_empty()).then_some((pair, ""))))
        {
            let (key, value) = (decoded(key), decoded(value));
            if key == "command" {
                call.command.push(value.clone());
            }
            call.query.entry(key).and_modify(|all| *all += &format!("\n{value}")).or_insert(value);
        }
        let words: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let mut words = words.into_iter().peekable();
        match words.next().as_deref() {
            Some("api") => {}
            Some("apis") => call.group = words.next().unwrap_or_default(),
            _ => {
                call.verb = "discover";
                return call;
            }
        }
        call.version = words.next().unwrap_or_default();
        let rest: Vec<String> = words.collect();
        let rest = match rest.as_slice() {
            [scope, namespace, more @ ..] if scope == "namespaces" && !more.is_empty() => {
                // A namespace's own subresources are not its contents.
                if more.len() == 1 && matches!(more[0].as_str(), "status" | "finalize") {
                    rest.as_slice()
                } else {
                    call.namespace.clone_from(namespace);
                    more
                }
            }
            all => all,
        };
        let mut rest = rest.iter().cloned();
        call.resource = rest.next().unwrap_or_default();
        call.name = rest.next().unwrap_or_default();
        call.subresource = rest.next().unwrap_or_default();
        let watched = call.query.get("watch").is_some_and(|value| value != "false" && value != "0");
        call.verb = match (method, call.resource.is_empty(), call.name.is_empty()) {
            (_, true, _) => "discover",
            ("GET", _, _) if watched => "watch",
            ("GET", _, true) => "list",
            ("GET", ..) => "get",
            ("POST", ..) => "create",
            ("PUT", ..) => "update",
            ("PATCH", ..) => "patch",
            ("DELETE", _, true) => "deletecollection",
            ("DELETE", ..) => "delete",
            _ => "discover",
        };
        call
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            bytes.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_apart_as_rbac_names_it() {
        let call = Call::parse("GET", "/api/v1/namespaces/org1/pods/p/exec", "command=sh&command=a%20b+c&stdin=true");
        assert!(call.is("get", "pods/exec") && call.is_exec());
        assert_eq!((call.namespace.as_str(), call.command), ("org1", vec!["sh".to_owned(), "a b c".to_owned()]));
        assert!(Call::parse("GET", "/apis/apps/v1/deployments", "watch=true").is("watch", "deployments"));
        assert!(Call::parse("GET", "/api/v1/namespaces/org1", "").is("get", "namespaces"));
        assert!(Call::parse("DELETE", "/api/v1/namespaces/org1/secrets/x", "").is("delete", "secrets"));
        assert_eq!(Call::parse("GET", "/apis/apps/v1", "").verb, "discover");
    }
}
