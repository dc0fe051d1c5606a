//! Start scripts and environment files: the variables that they set, and the nodes that they start. None of them is executed.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::node_settings::Environment;

use super::run::{self, Line};
use super::started::{Started, on_host};
use super::tree::text_of;
use crate::shell::{self, Resolver, is_text_option};

/// Stands for the folder that a script is started in, at the beginning of a path.
pub(super) const WORKING_FOLDER: char = '\u{1}';
/// Stands for what cannot be known without running something: arguments of a script, variables that it does not set, what commands print.
pub(super) const UNKNOWN: char = '\u{3}';
/// How deep files that include others are followed.
const MAX_INCLUDES: usize = 4;
/// What stands for the beginning of a path.
const PLACES: [char; 2] = [WORKING_FOLDER, UNKNOWN];
/// Commands that run what stands behind them in another place: a container, another machine.
const ELSEWHERE: [&str; 6] = ["docker", "podman", "nerdctl", "kubectl", "oc", "ssh"];

/// Whether a program runs what stands behind it in another place.
pub(super) fn is_elsewhere(program: &str) -> bool {
    ELSEWHERE.contains(&shell::base(program))
}

/// The nodes that a script starts, or that an environment file has settings for.
pub(super) fn read(file: &Path, root: &Path, known: &[PathBuf]) -> Vec<Started> {
    let Some(text) = text_of(file) else { return Vec::new() };
    let mut script = Script::new(file, file.parent().unwrap_or(Path::new("/")), root, known, Environment::new());
    script.run(&text, 0);
    if script.out.is_empty() {
        script.settings_alone();
    }
    script.out
}

/// The nodes that a script starts which something else runs, in this folder and with these variables.
pub(super) fn run_by(
    file: &Path,
    text: &str,
    folder: &Path,
    root: &Path,
    known: &[PathBuf],
    environment: &Environment,
) -> Vec<Started> {
    let mut script = Script::new(file, folder, root, known, environment.clone());
    script.run(text, 0);
    script.out
}

/// The same of one command, word by word, in which nothing is expanded.
pub(super) fn run_words(
    file: &Path,
    words: &[String],
    folder: &Path,
    root: &Path,
    known: &[PathBuf],
    environment: &Environment,
) -> Vec<Started> {
    let mut script = Script::new(file, folder, root, known, environment.clone());
    let words: Vec<String> = words.iter().map(|word| shell::unexpanded(word)).collect();
    script.command(&words, false, 0);
    script.out
}

/// The words of the commands that a line of a container's shell runs; what separates them stands alone.
pub(super) fn line(text: &str, environment: &Environment) -> Vec<String> {
    let mut environment = environment.clone();
    let mut out = Vec::new();
    for statement in shell::statements(&shell::tokens(text)) {
        let words = shell::without_redirections(statement.words);
        let program = shell::before_program(&words, |name, value| {
            let value = marked(value, &environment);
            environment.insert(name.to_owned(), value);
        });
        let command = words[program..].iter().flat_map(|word| fields(word, &environment)).collect();
        out.extend(shell::unwrapped(command, |_, _| ()));
        out.push(";".to_owned());
    }
    out
}

struct Script<'a> {
    file: &'a Path,
    root: &'a Path,
    /// Directories that hold data.
    known: &'a [PathBuf],
    folder: PathBuf,
    environment: Environment,
    out: Vec<Started>,
    /// Variables and folder as they were before each open parenthesis; nothing for a `case`, whose patterns end in one.
    saved: Vec<Option<(Environment, PathBuf)>>,
    /// The files that it includes.
    reads: Vec<PathBuf>,
}

impl<'a> Script<'a> {
    fn new(file: &'a Path, folder: &Path, root: &'a Path, known: &'a [PathBuf], environment: Environment) -> Self {
        let (out, saved, reads) = (Vec::new(), Vec::new(), Vec::new());
        Script { file, root, known, folder: folder.to_path_buf(), environment, out, saved, reads }
    }

    fn run(&mut self, text: &str, depth: usize) {
        for statement in shell::statements(&shell::tokens(text)) {
            match statement.words.first().map(String::as_str) {
                Some("case") => self.saved.push(None),
                Some("esac") => self.saved.truncate(self.saved.iter().rposition(Option::is_none).unwrap_or(0)),
                _ => self.command(statement.words, statement.conditional, depth),
            }
            match statement.separator {
                "(" => self.saved.push(Some((self.environment.clone(), self.folder.clone()))),
                ")" if self.saved.last().is_some_and(Option::is_some) => {
                    if let Some(before) = self.saved.pop().flatten() {
                        (self.environment, self.folder) = before;
                    }
                }
                _ => {}
            }
        }
    }

    /// What is set under a condition, and is set to something else already, is not known.
    fn command(&mut self, words: &[String], conditional: bool, depth: usize) {
        let words = shell::without_redirections(words);
        let mut environment = self.environment.clone();
        let program = shell::before_program(&words, |name, value| {
            let value = marked(value, &environment);
            let other = environment.get(name).is_some_and(|known| !known.is_empty() && *known != value);
            environment.insert(name.to_owned(), if conditional && other { UNKNOWN.to_string() } else { value });
        });
        let command: Vec<String> = words[program..].iter().flat_map(|word| fields(word, &environment)).collect();
        let command = shell::unwrapped(command, |name, value| {
            environment.insert(name.to_owned(), value.to_owned());
        });
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        match command.as_slice() {
            [] => self.environment = environment,
            ["." | "source", included, ..] if depth < MAX_INCLUDES => {
                let beside = self.folder.join(included.trim_start_matches(PLACES).trim_start_matches('/'));
                let named = on_host(included, &self.folder, &self.folder, self.root).path();
                if let Some((path, text)) =
                    [beside, named].into_iter().find_map(|path| Some((path.clone(), text_of(&path)?)))
                {
                    self.reads.extend(path.canonicalize());
                    self.run(&text, depth + 1);
                }
            }
            ["cd", to, ..] if !to.starts_with('-') => {
                let to = to.trim_start_matches(PLACES).trim_start_matches('/');
                let folder = super::normal(&self.folder.join(to));
                if folder.is_dir() {
                    self.folder = folder;
                }
            }
            [program, words @ ..] if is_elsewhere(program) => self.container(words, &environment),
            // A line in a shell of its own.
            [program, words @ ..] if shell::is_shell(program) && words.iter().any(|word| is_text_option(word)) => {
                let line = words.iter().skip_while(|word| !is_text_option(word)).nth(1);
                if let Some(line) = line.filter(|_| depth < MAX_INCLUDES) {
                    let outer = (std::mem::replace(&mut self.environment, environment), self.folder.clone());
                    self.run(line, depth + 1);
                    (self.environment, self.folder) = outer;
                }
            }
            command => {
                if let Some((role, arguments)) = node_command(command) {
                    let mut started = Started::on_host(role, self.file, &self.folder);
                    started.environment = environment;
                    started.take_flags(arguments);
                    started.starts = true;
                    started.reads.clone_from(&self.reads);
                    self.out.push(started);
                }
            }
        }
    }

    /// The node in a container that a command runs on this machine.
    fn container(&mut self, words: &[&str], environment: &Environment) {
        let line = Line { folder: &self.folder, root: self.root, known: self.known, environment };
        let Some(mut container) = run::container(words, &line) else { return };
        container.origin = self.file.display().to_string();
        container.reads.extend(self.reads.iter().cloned());
        self.out.extend(container.started(&self.folder));
    }

    /// Settings without a command that uses them.
    fn settings_alone(&mut self) {
        for (role, prefixes) in [
            (NodeRole::Peer, &["CORE_PEER_", "CORE_LEDGER_"][..]),
            (NodeRole::Orderer, &["ORDERER_"][..]),
            (NodeRole::CertificateAuthority, &["FABRIC_CA_SERVER_", "FABRIC_CA_HOME"][..]),
        ] {
            if self.environment.keys().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
                let mut started = Started::on_host(role, self.file, &self.folder);
                started.environment = self.environment.clone();
                if !started.is_of_a_client() {
                    self.out.push(started);
                }
            }
        }
    }
}

/// Which node a command line starts, and what stands behind the command.
pub(super) fn node_command<'a>(words: &'a [&'a str]) -> Option<(NodeRole, &'a [&'a str])> {
    let words = words.split(|word| shell::is_separator(word)).next().unwrap_or_default();
    if words.first().is_some_and(|word| matches!(*word, "echo" | "printf")) {
        return None;
    }
    for (position, word) in words.iter().enumerate() {
        let rest = &words[position + 1..];
        match shell::base(word) {
            "peer" if matches!(rest, ["node", "start", ..]) => return Some((NodeRole::Peer, &rest[2..])),
            "orderer" if position == 0 && matches!(rest.first(), None | Some(&"start")) => {
                return Some((NodeRole::Orderer, rest));
            }
            "fabric-ca-server" if rest.iter().any(|word| matches!(*word, "start" | "init")) => {
                return Some((NodeRole::CertificateAuthority, rest));
            }
            _ => {}
        }
    }
    None
}

/// What a script on this machine is known to be told: its folder, a home directory.
struct ScriptVariables<'e>(&'e Environment);

impl Resolver for ScriptVariables<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "PWD" => Some(WORKING_FOLDER.to_string()),
            "HOME" => Some(home(self.0)),
            _ => None,
        }
    }

    /// The script's own folder, in the ways that scripts ask for it.
    fn other(&self, expansion: &str) -> Option<String> {
        let asks = expansion.starts_with("$(") || expansion.starts_with('`');
        let own = asks && ["pwd", "dirname", "BASH_SOURCE", "$0"].iter().any(|word| expansion.contains(word));
        let climbed = || format!("{WORKING_FOLDER}{}", "/..".repeat(expansion.matches("..").count()));
        Some(if own { climbed() } else { UNKNOWN.to_string() })
    }
}

/// A word with its variables replaced. What cannot be known without running something is left out.
pub(super) fn expand(word: &str, environment: &Environment) -> String {
    marked(word, environment).replace(UNKNOWN, "")
}

/// A word with its variables replaced, and [`UNKNOWN`] for each that is not known.
fn marked(word: &str, environment: &Environment) -> String {
    in_place(&shell::expand(&from_home(word, environment), environment, &ScriptVariables(environment)))
}

/// The words that a shell makes of one, each with [`UNKNOWN`] for what is not known.
fn fields(word: &str, environment: &Environment) -> Vec<String> {
    let all = shell::fields(&from_home(word, environment), environment, &ScriptVariables(environment));
    all.iter().map(|word| in_place(word)).collect()
}

fn from_home(word: &str, environment: &Environment) -> String {
    let rest = if word == "~" { Some("") } else { word.strip_prefix('~').filter(|rest| rest.starts_with('/')) };
    rest.map_or(word.to_owned(), |rest| format!("{}{rest}", home(environment)))
}

/// An expanded word. A folder in the middle of it is the beginning of a path, in each of several words of one value.
fn in_place(expanded: &str) -> String {
    let of_part = |part: &str| match part.rfind(WORKING_FOLDER) {
        Some(position) => {
            let option = part[..position].rfind('=').filter(|_| part.starts_with('-'));
            format!("{}{}", option.map_or("", |at| &part[..=at]), &part[position..])
        }
        None => part.to_owned(),
    };
    shell::settled(expanded).split(' ').map(of_part).collect::<Vec<_>>().join(" ")
}

/// The home directory of who runs a script: taken for that of who runs this.
pub(super) fn home(environment: &Environment) -> String {
    environment.get("HOME").cloned().or_else(|| std::env::var("HOME").ok()).unwrap_or_else(|| UNKNOWN.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::started::Unknown;
    use super::*;

    fn run(text: &str) -> Vec<Started> {
        let file = Path::new("/net/start.sh");
        let mut script = Script::new(file, Path::new("/net"), Path::new("/net"), &[], Environment::new());
        script.run(text, 0);
        if script.out.is_empty() {
            script.settings_alone();
        }
        script.out
    }

    #[test]
    fn a_script_is_read_as_a_shell_reads_it() {
        let found = run("# a comment\nset -eu\nORG=org1.example.com # behind\n\
             export CORE_PEER_ID=peer0.$ORG CORE_PEER_LOCALMSPID='Org1MSP'\n\
             export CORE_PEER_FILESYSTEMPATH=\"${PWD}\"/data/\"peer0.${ORG}\"\n\
             export FABRIC_CFG_PATH=${CFG:-$PWD/../config}\n\
             CORE_PEER_MSPCONFIGPATH=$(cd \"$(dirname \"$0\")\" && pwd)/msp \\\n  nohup peer node start > log 2>&1 &\n");
        assert_eq!(found.len(), 1);
        let of = |name: &str| found[0].environment.get(name).map(String::as_str);
        assert_eq!(of("CORE_PEER_ID"), Some("peer0.org1.example.com"));
        assert_eq!(of("CORE_PEER_FILESYSTEMPATH"), Some("\u{1}/data/peer0.org1.example.com"));
        assert_eq!(of("FABRIC_CFG_PATH"), Some("\u{1}/../config"));
        assert_eq!(of("CORE_PEER_MSPCONFIGPATH"), Some("\u{1}/msp"));
    }

    #[test]
    fn several_nodes_of_one_script_have_their_own_settings() {
        let found = run("export ORDERER_GENERAL_LOCALMSPID=O\n\
             (export ORDERER_FILELEDGER_LOCATION=/a; orderer &)\n\
             (export ORDERER_FILELEDGER_LOCATION=/b; /usr/bin/orderer start &)\n\
             fabric-ca-server start -b admin:pw --ca.keyfile /k/priv_sk -H=/ca --db.datasource x.db\n\
             peer channel list\n");
        let ledgers: Vec<Option<&str>> =
            found.iter().map(|node| node.environment.get("ORDERER_FILELEDGER_LOCATION").map(String::as_str)).collect();
        assert_eq!(ledgers, [Some("/a"), Some("/b"), None]);
        let of = |name: &str| found[2].environment.get(name).map(String::as_str);
        assert_eq!(of("FABRIC_CA_SERVER_CA_KEYFILE"), Some("/k/priv_sk"));
        assert_eq!((of("FABRIC_CA_SERVER_HOME"), of("FABRIC_CA_SERVER_DB_DATASOURCE")), (Some("/ca"), Some("x.db")));
    }

    #[test]
    fn what_a_script_is_called_with_is_not_known() {
        let data = |text: &str| {
            let mut found =
                run(&format!("export CORE_PEER_FILESYSTEMPATH={text} CORE_PEER_ID=$1\npeer node start \"$@\"\n"));
            let unknown = found[0].settle_unknown() == Unknown::Data;
            (
                found[0].get("CORE_PEER_FILESYSTEMPATH").map(str::to_owned),
                found[0].get("CORE_PEER_ID").is_some(),
                unknown,
            )
        };
        for text in ["$PWD/data/$1", "$BASE/data", "$(cat place)/data", "`cat place`", "${2}", "\"$@\""] {
            assert_eq!(data(text), (None, false, true), "{text}");
        }
        for (text, known) in [("/data", "/data"), ("${BASE:-/data}", "/data"), ("'$1'", "$1"), ("$PWD/d", "\u{1}/d")] {
            assert_eq!(data(text), (Some(known.to_owned()), false, false), "{text}");
        }
        let home = std::env::var("HOME").unwrap_or_default();
        for text in ["$HOME/d", "~/d", "${HOME}/d"] {
            assert_eq!(data(text).0, Some(format!("{home}/d")), "{text}");
        }
        assert!(run("docker exec cli peer node start\nssh host peer node start\n").is_empty());
    }

    #[test]
    fn settings_of_a_client_are_no_node() {
        assert!(
            run("export CORE_PEER_LOCALMSPID=O\nexport CORE_PEER_MSPCONFIGPATH=$PWD/users/Admin@o/msp\n").is_empty()
        );
        assert_eq!(run("CORE_PEER_BCCSP_DEFAULT=PKCS11\n").len(), 1);
        assert!(run("FOO=bar\n").is_empty());
    }
}
