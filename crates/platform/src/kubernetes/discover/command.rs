//! Parses a container's command: the program that it starts, and its flags.

use fabkeep_ledger::layout::NodeRole;
use k8s_openapi::api::core::v1::Container;

use super::environment::Environment;
use crate::shell::{base, is_separator, is_shell};

/// Flags of `fabric-ca-server` that have a short form.
const SHORT: [(&str, &str); 3] = [("H", "home"), ("b", "boot"), ("c", "config")];
/// Flags of it that have no value.
const SWITCHES: [&str; 2] = ["d", "debug"];
/// Programs of Fabric's administrators.
const CLIENTS: [&str; 6] = ["fabric-ca-client", "configtxgen", "configtxlator", "cryptogen", "osnadmin", "discover"];

/// What a container starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// What its image starts.
    Image,
    /// A node.
    Node(NodeRole),
    /// A script whose text is not known.
    Script,
    /// A command that only waits until somebody runs another one in the container.
    Idle,
    /// Commands of a client, and no script whose text is not known.
    Client,
    /// Something else.
    Other,
}

fn commands(words: &[String]) -> impl Iterator<Item = &[String]> {
    words.split(|word| is_separator(word)).filter(|command| !command.is_empty())
}

/// The node that a command starts, through whatever wrapper; an orderer's program has no word behind its name that would tell it from
/// other words, so that it must be the command itself.
pub(super) fn node_of(command: &[String]) -> Option<NodeRole> {
    let starts = |program: &[&str]| {
        command.windows(program.len()).any(|window| {
            base(&window[0]) == program[0] && window[1..].iter().zip(&program[1..]).all(|(word, wanted)| word == wanted)
        })
    };
    let rest = command.get(1..).unwrap_or_default();
    match base(command.first()?) {
        "echo" | "printf" => None,
        "node" if rest.first().is_some_and(|word| word == "start") => Some(NodeRole::Peer),
        "orderer" if rest.first().is_none_or(|word| word == "start" || word.contains('>')) => Some(NodeRole::Orderer),
        "fabric-ca-server" if rest.is_empty() || rest.iter().any(|word| word == "start") => {
            Some(NodeRole::CertificateAuthority)
        }
        _ if starts(&["peer", "node", "start"]) => Some(NodeRole::Peer),
        _ if starts(&["fabric-ca-server", "start"]) => Some(NodeRole::CertificateAuthority),
        _ => None,
    }
}

/// What a container starts.
pub(super) fn start(words: &[String]) -> Start {
    // The image's entry point takes options for its program.
    if words.first().is_none_or(|word| word.starts_with('-')) {
        return Start::Image;
    }
    if let Some(role) = commands(words).find_map(node_of) {
        return Start::Node(role);
    }
    if commands(words).any(is_script) {
        return Start::Script;
    }
    let is_client = |command: &[String]| match base(&command[0]) {
        "peer" => command.get(1).is_some_and(|word| matches!(word.as_str(), "channel" | "lifecycle" | "chaincode")),
        program => CLIENTS.contains(&program),
    };
    if commands(words).any(is_client) {
        return Start::Client;
    }
    let only_idle = words.iter().all(|word| {
        is_shell(word)
            || is_idle(word)
            || word.starts_with('-')
            || is_separator(word)
            || matches!(word.as_str(), "true" | ":" | "infinity" | "/dev/null")
            || word.chars().next().is_some_and(|first| first.is_ascii_digit())
    });
    if only_idle { Start::Idle } else { Start::Other }
}

/// Which node a container starts whose script starts several: the one of its image, else of its variables, else of its arguments.
pub(super) fn chosen(container: &Container, environment: &Environment, words: &[String]) -> Option<NodeRole> {
    let mut roles: Vec<NodeRole> = Vec::new();
    for role in commands(words).filter_map(node_of) {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    let first = roles.first().copied().filter(|_| roles.len() > 1)?;
    let image = container.image.as_deref().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let arguments = || container.command.iter().chain(&container.args).flatten();
    let only = |shows: &dyn Fn(NodeRole) -> bool| {
        let mut shown = roles.iter().filter(|role| shows(**role));
        shown.next().copied().filter(|_| shown.next().is_none())
    };
    let of_image = only(&|role| {
        image.contains(match role {
            NodeRole::Peer => "fabric-peer",
            NodeRole::Orderer => "fabric-orderer",
            _ => "fabric-ca",
        })
    });
    let of_variables = || {
        let prefixes = |role| match role {
            NodeRole::Peer => ["CORE_PEER_", "CORE_LEDGER_"],
            NodeRole::Orderer => ["ORDERER_GENERAL_", "ORDERER_FILELEDGER_"],
            _ => ["FABRIC_CA_SERVER_", "FABRIC_CA_HOME"],
        };
        let told = |role| prefixes(role).iter().any(|prefix| environment.keys().any(|name| name.starts_with(prefix)));
        only(&told)
    };
    let of_arguments = || {
        let called = |role| match role {
            NodeRole::Peer => ["peer", "peer"],
            NodeRole::Orderer => ["orderer", "ordering"],
            _ => ["ca", "fabric-ca"],
        };
        only(&|role| arguments().any(|word| called(role).contains(&word.as_str())))
    };
    Some(of_image.or_else(of_variables).or_else(of_arguments).unwrap_or(first))
}

/// Whether a command runs a script: its path stands where a command stands, or behind a shell.
fn is_script(command: &[String]) -> bool {
    let behind = command.iter().position(|word| !is_shell(word) && !word.starts_with('-'));
    behind.is_some_and(|at| {
        let word = &command[at];
        (word.ends_with(".sh") || word.starts_with('/') || word.starts_with("./")) && !is_idle(word)
    })
}

fn is_idle(word: &str) -> bool {
    matches!(base(word), "sleep" | "tail" | "cat" | "wait" | "null")
}

/// Adds what flags of `fabric-ca-server` say to the environment, under the names of the variables that say the same; flags count more.
/// Its configuration file is named by the flag only. Returns whether there are flags that are known only when the command runs.
pub(super) fn add_flags(words: &[String], environment: &mut Environment) -> bool {
    environment.remove("FABRIC_CA_SERVER_CONFIG");
    let mut unknown = false;
    for command in commands(words).filter(|command| node_of(command) == Some(NodeRole::CertificateAuthority)) {
        let mut words = command.iter().skip_while(|word| base(word) != "fabric-ca-server").peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                unknown |= is_unknown(word);
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None if SWITCHES.contains(&flag) => continue,
                None => (flag, words.next_if(|next| !next.starts_with('-')).cloned()),
            };
            let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
            let Some(value) = value.filter(|_| !name.is_empty()) else { continue };
            let names_place =
                ["home", "config", "file", "datasource", "keystore"].iter().any(|end| name.ends_with(end));
            if names_place && is_unknown(&value) {
                unknown = true;
                continue;
            }
            environment.insert(format!("FABRIC_CA_SERVER_{}", name.replace(['.', '-'], "_").to_uppercase()), value);
        }
    }
    unknown
}

/// Whether a word begins with an expansion that nothing replaced.
fn is_unknown(word: &str) -> bool {
    let behind = word.strip_prefix('`').or_else(|| word.strip_prefix('$'));
    behind.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || "_{(@*/".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::super::script;
    use super::*;

    fn words(command: &[&str], args: &[&str], environment: &Environment) -> Vec<String> {
        let list = |words: &[&str]| (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect());
        let container = Container { command: list(command), args: list(args), ..Container::default() };
        script::read(&container, environment, "pod", &|_| None, None).words
    }

    #[test]
    fn what_a_container_starts_is_known_through_its_wrappers() {
        let peer = Start::Node(NodeRole::Peer);
        let orderer = Start::Node(NodeRole::Orderer);
        for (command, args, expected) in [
            (&[][..], &[][..], Start::Image),
            (&["/bin/sh", "/scripts/run.sh"], &[], Start::Script),
            (&["/scripts/run.sh"], &[], Start::Script),
            (&["/bin/bash", "-c"], &["peer node start || tail -f /dev/null"], peer),
            (&["sh", "-c", "/scripts/prepare && peer node start"], &[], peer),
            (&["sh", "-c", "exec \"$@\"", "--"], &["peer", "node", "start"], peer),
            (&["/vault/vault-env", "bash", "-e", "-c"], &["A=b exec peer node start >> log 2>&1"], peer),
            (&[], &["node", "start"], peer),
            (&["tini", "--", "orderer"], &[], orderer),
            (&["sh", "-c", "(cd /x; mkdir -p orderer; exec /usr/bin/orderer start)"], &[], orderer),
            (&["sh", "-c", "mkdir -p /x/orderer; ls | grep orderer"], &[], Start::Other),
            (&["sh", "-c", "echo peer node start"], &[], Start::Other),
            (&["tail", "-f", "/dev/null"], &[], Start::Idle),
            (&["sleep", "infinity"], &[], Start::Idle),
            (&["/bin/bash"], &[], Start::Idle),
            (&["sh", "-c", "while true; do sleep 5; done"], &[], Start::Idle),
            (&["sh", "-c", "fabric-ca-client enroll -M /msp"], &[], Start::Client),
            (&["sh", "-c", "/scripts/prepare; peer channel list"], &[], Start::Script),
            (&["su", "fabric", "-c", "peer node start"], &[], peer),
            (&["dlv", "exec", "/usr/bin/peer", "--headless", "--", "node", "start"], &[], peer),
            (&["sh", "-c", "nohup orderer >o.log 2>&1"], &[], orderer),
        ] {
            assert_eq!(start(&words(command, args, &Environment::new())), expected, "{command:?} {args:?}");
        }
    }

    #[test]
    fn flags_of_a_certificate_authority_count_more_than_its_environment() {
        let mut environment = Environment::from([
            ("FABRIC_CA_SERVER_HOME".to_owned(), "/other".to_owned()),
            ("KEYS".to_owned(), "/keys".to_owned()),
        ]);
        let script = "fabric-ca-server start -b admin:pw -H /home/ca --ca.keyfile=${KEYS}/key.pem --ca.certfile \"$KEYS/cert.pem\" -d";
        add_flags(&words(&["sh", "-c"], &[script], &environment), &mut environment);
        let get = |name: &str| environment.get(&format!("FABRIC_CA_SERVER_{name}")).map(String::as_str);
        assert_eq!(get("HOME"), Some("/home/ca"));
        assert_eq!(get("CA_KEYFILE"), Some("/keys/key.pem"));
        assert_eq!(get("CA_CERTFILE"), Some("/keys/cert.pem"));
        // Options in a variable are split at spaces; what is not known is told.
        for (script, known) in [
            ("fabric-ca-server start $OPTS", true),
            ("exec fabric-ca-server start ${OPTS} -d", true),
            ("O=\"-b a:b -H /home/ca\"; fabric-ca-server start -d $O", true),
            ("fabric-ca-server start -H /home/ca -d $MORE", false),
            ("fabric-ca-server start -H /home/ca --db.datasource $MORE/ca.db", false),
            ("fabric-ca-server start -H /home/ca -b admin:$PASSWORD", true),
        ] {
            let mut environment = Environment::from([("OPTS".to_owned(), "-b a:b -H /home/ca".to_owned())]);
            let unknown = add_flags(&words(&["sh", "-c"], &[script], &environment), &mut environment);
            assert_eq!(environment.get("FABRIC_CA_SERVER_HOME").map(String::as_str), Some("/home/ca"), "{script}");
            assert_eq!(unknown, !known, "{script}");
        }
        let environment = Environment::from([("CMD".to_owned(), "exec peer node start".to_owned())]);
        assert_eq!(start(&words(&["sh", "-c", "$CMD"], &[], &environment)), Start::Node(NodeRole::Peer));
        let mut environment = Environment::new();
        let args = ["start", "--db.type", "postgres", "--db.datasource", "host=db user=ca"];
        add_flags(&words(&["fabric-ca-server"], &args, &environment), &mut environment);
        let get = |name: &str| environment.get(&format!("FABRIC_CA_SERVER_{name}")).map(String::as_str);
        assert_eq!((get("DB_TYPE"), get("DB_DATASOURCE")), (Some("postgres"), Some("host=db user=ca")));
    }
}
