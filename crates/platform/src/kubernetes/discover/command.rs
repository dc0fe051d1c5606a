//! A container's command and arguments: which program they start, through which wrapper, and with which flags.

use k8s_openapi::api::core::v1::Container;

use super::environment::{Environment, expand};

/// Flags of `fabric-ca-server` that have a short form.
const SHORT: [(&str, &str); 2] = [("H", "home"), ("b", "boot")];

/// What a container starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// What its image starts.
    Image,
    /// A script whose text is not known.
    Script,
    /// A command that only waits until somebody runs another one in the container.
    Idle,
    /// Something else: the words say what.
    Words,
}

/// The words of a container's command and arguments, those of a shell's `-c` script included.
pub(super) fn words(container: &Container) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in container.command.iter().flatten().chain(container.args.iter().flatten()) {
        // `-c`, `-ec`, `-xc`: a script follows.
        let is_option = |last: &String| last.starts_with('-') && !last.starts_with("--") && last.ends_with('c');
        if out.last().is_some_and(is_option) {
            out.extend(split(word));
        } else {
            out.push(word.clone());
        }
    }
    out
}

/// The words of a shell script, as far as they matter here: quotes are taken away, separators stand alone.
fn split(script: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quote = None;
    for character in script.chars() {
        match (quote, character) {
            (Some(open), character) if character == open => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, ';' | '&' | '|' | '(' | ')') => out.extend([character.to_string(), String::new()]),
            (None, character) if character.is_whitespace() => out.push(String::new()),
            (_, character) => {
                if let Some(last) = out.last_mut() {
                    last.push(character);
                }
            }
        }
    }
    out.retain(|word| !word.is_empty());
    out
}

/// The last part of a path.
fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_shell(word: &str) -> bool {
    matches!(base(word), "sh" | "bash" | "ash" | "dash" | "busybox" | "tini" | "dumb-init" | "exec" | "env" | "--")
}

/// Whether Fabric's programs are started by these words.
pub(super) fn starts(words: &[String], program: &[&str]) -> bool {
    words.windows(program.len()).any(|window| {
        base(&window[0]) == program[0] && window[1..].iter().zip(&program[1..]).all(|(word, wanted)| word == wanted)
    })
}

/// What a container starts.
pub(super) fn start(container: &Container) -> Start {
    let words = words(container);
    if words.is_empty() {
        return Start::Image;
    }
    let programs: [&[&str]; 4] =
        [&["node", "start"], &["orderer"], &["fabric-ca-server", "start"], &["fabric-ca-server"]];
    if programs.iter().any(|program| starts(&words, program)) {
        return Start::Words;
    }
    if has_script(&words) {
        return Start::Script;
    }
    let only_idle = words.iter().all(|word| {
        is_shell(word)
            || is_idle(word)
            || word.starts_with('-')
            || is_separator(word)
            || matches!(word.as_str(), "while" | "true" | ":" | "do" | "done" | "infinity" | "/dev/null")
            || word.chars().next().is_some_and(|first| first.is_ascii_digit())
    });
    if only_idle { Start::Idle } else { Start::Words }
}

/// Whether a script is run: its path stands where a command stands.
fn has_script(words: &[String]) -> bool {
    let mut first = true;
    for word in words {
        let path = word.ends_with(".sh") || word.starts_with('/') || word.starts_with("./");
        if first && path && !is_shell(word) && !is_idle(word) {
            return true;
        }
        first = is_separator(word) || (first && (is_shell(word) || word.starts_with('-')));
    }
    false
}

fn is_separator(word: &str) -> bool {
    matches!(word, ";" | "&" | "|" | "(" | ")")
}

fn is_idle(word: &str) -> bool {
    matches!(base(word), "sleep" | "tail" | "cat" | "wait" | "null")
}

/// Adds what flags of `fabric-ca-server` say to the environment, under the names of the variables that say the same; flags count more.
pub(super) fn add_flags(container: &Container, environment: &mut Environment) {
    let words = words(container);
    if !words.iter().any(|word| base(word) == "fabric-ca-server") {
        return;
    }
    let mut words = words.iter().skip_while(|word| base(word) != "fabric-ca-server").peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-') else { continue };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, words.next_if(|next| !next.starts_with('-')).cloned()),
        };
        let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
        let Some(value) = value.filter(|_| !name.is_empty()) else { continue };
        let variable = format!("FABRIC_CA_SERVER_{}", name.replace(['.', '-'], "_").to_uppercase());
        let value = in_shell(&expand(&value, environment), environment);
        environment.insert(variable, value);
    }
}

/// Replaces `$NAME` and `${NAME}` as a shell does; what is not defined stays as it is.
fn in_shell(text: &str, environment: &Environment) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let body = &rest[1..];
        let (name, after) = match body.strip_prefix('{').and_then(|body| body.split_once('}')) {
            Some((name, after)) => (name, after),
            None => {
                let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
                body.split_at(end)
            }
        };
        match environment.get(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[..rest.len() - after.len()]),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(command: &[&str], args: &[&str]) -> Container {
        let list = |words: &[&str]| (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect());
        Container { command: list(command), args: list(args), ..Container::default() }
    }

    #[test]
    fn what_a_container_starts_is_known_through_its_wrappers() {
        for (command, args, expected) in [
            (&[][..], &[][..], Start::Image),
            (&["/bin/sh", "/scripts/run.sh"], &[], Start::Script),
            (&["/scripts/run.sh"], &[], Start::Script),
            (&["/bin/bash", "-c"], &["peer node start || tail -f /dev/null"], Start::Words),
            (&["sh", "-c", "/scripts/prepare && peer node start"], &[], Start::Words),
            (&["tail", "-f", "/dev/null"], &[], Start::Idle),
            (&["sleep", "infinity"], &[], Start::Idle),
            (&["/bin/bash"], &[], Start::Idle),
            (&["sh", "-c", "while true; do sleep 5; done"], &[], Start::Idle),
            (&["sh", "-c", "fabric-ca-client enroll -M /msp"], &[], Start::Words),
        ] {
            assert_eq!(start(&container(command, args)), expected, "{command:?} {args:?}");
        }
    }

    #[test]
    fn flags_of_a_certificate_authority_count_more_than_its_environment() {
        let mut environment = Environment::from([
            ("FABRIC_CA_SERVER_HOME".to_owned(), "/other".to_owned()),
            ("KEYS".to_owned(), "/keys".to_owned()),
        ]);
        let script = "fabric-ca-server start -b admin:pw -H /home/ca --ca.keyfile=${KEYS}/key.pem --ca.certfile \"$KEYS/cert.pem\" -d";
        add_flags(&container(&["sh", "-c"], &[script]), &mut environment);
        let get = |name: &str| environment.get(&format!("FABRIC_CA_SERVER_{name}")).map(String::as_str);
        assert_eq!(get("HOME"), Some("/home/ca"));
        assert_eq!(get("CA_KEYFILE"), Some("/keys/key.pem"));
        assert_eq!(get("CA_CERTFILE"), Some("/keys/cert.pem"));
        let mut environment = Environment::new();
        let args = ["start", "--db.type", "postgres", "--db.datasource", "host=db user=ca"];
        add_flags(&container(&["fabric-ca-server"], &args), &mut environment);
        let get = |name: &str| environment.get(&format!("FABRIC_CA_SERVER_{name}")).map(String::as_str);
        assert_eq!((get("DB_TYPE"), get("DB_DATASOURCE")), (Some("postgres"), Some("host=db user=ca")));
    }
}
