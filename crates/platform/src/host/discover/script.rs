//! Start scripts and environment files: the variables that they set, and the nodes that they start. None of them is executed.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::node_settings::Environment;

use super::run::{self, Line};
use super::started::{Started, on_host};
use super::tree::text_of;

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
    ELSEWHERE.contains(&program.rsplit('/').next().unwrap_or(program))
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

struct Script<'a> {
    file: &'a Path,
    root: &'a Path,
    /// Directories that hold data.
    known: &'a [PathBuf],
    folder: PathBuf,
    environment: Environment,
    out: Vec<Started>,
    /// Variables and folder as they were before each open parenthesis.
    saved: Vec<(Environment, PathBuf)>,
    /// The files that it includes.
    reads: Vec<PathBuf>,
}

impl<'a> Script<'a> {
    fn new(file: &'a Path, folder: &Path, root: &'a Path, known: &'a [PathBuf], environment: Environment) -> Self {
        let (out, saved, reads) = (Vec::new(), Vec::new(), Vec::new());
        Script { file, root, known, folder: folder.to_path_buf(), environment, out, saved, reads }
    }

    fn run(&mut self, text: &str, depth: usize) {
        let joined = text.replace("\\\n", " ");
        for line in joined.lines() {
            for statement in statements(line) {
                self.statement(&statement, depth);
            }
        }
    }

    fn statement(&mut self, statement: &str, depth: usize) {
        let mut rest = statement.trim();
        while let Some(inner) = rest.strip_prefix('(') {
            self.saved.push((self.environment.clone(), self.folder.clone()));
            rest = inner.trim_start();
        }
        let closes = rest.chars().rev().take_while(|c| matches!(c, ')' | ' ' | '&')).filter(|&c| c == ')').count();
        let closes = if rest.contains("$(") { 0 } else { closes };
        let rest = if closes > 0 { rest.trim_end_matches([')', ' ', '&']) } else { rest };
        let words = words(rest);
        self.command(&words, depth);
        for _ in 0..closes {
            if let Some(before) = self.saved.pop() {
                (self.environment, self.folder) = before;
            }
        }
    }

    fn command(&mut self, words: &[Word], depth: usize) {
        let mut position = 0;
        let mut prefixed = self.environment.clone();
        let exports =
            matches!(words.first().map(|word| word.text.as_str()), Some("export" | "declare" | "set" | "local"));
        if exports {
            position = 1;
        }
        let mut only_assignments = true;
        while let Some(word) = words.get(position) {
            match word.text.as_str() {
                "env" | "exec" | "nohup" | "sudo" | "time" | "setsid" | "-x" | "-E" => {}
                _ => match word.assignment() {
                    Some((name, value)) => {
                        prefixed.insert(name.to_owned(), value.expand_marked(&prefixed));
                    }
                    None => {
                        only_assignments = exports;
                        break;
                    }
                },
            }
            position += 1;
        }
        if only_assignments || exports {
            self.environment = prefixed;
            return;
        }
        let command: Vec<String> = words[position..].iter().map(|word| word.expand_marked(&prefixed)).collect();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        match command.as_slice() {
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
            [program, words @ ..] if is_elsewhere(program) => self.container(words, &prefixed),
            command => {
                if let Some((role, arguments)) = node_command(command) {
                    let mut started = Started::on_host(role, self.file, &self.folder);
                    started.environment = prefixed;
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
    for (position, word) in words.iter().enumerate() {
        let rest = &words[position + 1..];
        match word.rsplit('/').next().unwrap_or(word) {
            "peer" if matches!(rest, ["node", "start", ..]) => return Some((NodeRole::Peer, &rest[2..])),
            "orderer"
                if position == 0 && matches!(rest.first(), None | Some(&"start" | &"&" | &">" | &">>" | &"2>&1")) =>
            {
                return Some((NodeRole::Orderer, rest));
            }
            "fabric-ca-server" if matches!(rest.first(), Some(&"start" | &"init")) => {
                return Some((NodeRole::CertificateAuthority, &rest[1..]));
            }
            _ => {}
        }
    }
    None
}

/// Splits a line at `;`, `&&`, `||` and `|` outside of quotes, and drops its comment.
fn statements(line: &str) -> Vec<String> {
    let (mut out, mut now) = (Vec::new(), String::new());
    let (mut quote, mut before) = (None, ' ');
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '$' && chars.peek() == Some(&'(') && quote != Some('\'') {
            now.push(c);
            now.push_str(&substitution(&mut chars));
            before = ')';
            continue;
        }
        match (quote, c) {
            (None, '#') if before.is_whitespace() => break,
            (None, ';' | '|') => out.push(std::mem::take(&mut now)),
            (None, '&') if chars.peek() == Some(&'&') => {
                chars.next();
                out.push(std::mem::take(&mut now));
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                now.push(c);
            }
            (Some(open), _) if open == c && before != '\\' => {
                quote = None;
                now.push(c);
            }
            _ => now.push(c),
        }
        before = c;
    }
    out.push(now);
    out.retain(|statement| !statement.trim().is_empty());
    out
}

/// A word, with the parts of it that are expanded.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub text: String,
    /// Per character: whether a `$` there is an expansion.
    expands: Vec<bool>,
}

/// Splits a statement into words.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut out: Vec<Word> = Vec::new();
    let mut now: Option<Word> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '$') if chars.peek() == Some(&'(') => {
                push(&mut now, c, true);
                substitution(&mut chars).chars().for_each(|c| push(&mut now, c, true));
            }
            (None, c) if c.is_whitespace() => out.extend(now.take()),
            (None | Some('"'), '\\') => {
                if let Some(next) = chars.next() {
                    push(&mut now, next, false);
                }
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                now.get_or_insert_with(|| Word { text: String::new(), expands: Vec::new() });
            }
            (Some(open), c) if c == open => quote = None,
            (quote, c) => push(&mut now, c, quote != Some('\'')),
        }
    }
    out.extend(now);
    out
}

/// What stands between the parentheses of `$(…)`, with them.
fn substitution(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let (mut out, mut depth) = (String::new(), 0usize);
    for c in chars.by_ref() {
        out.push(c);
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            _ => {}
        }
    }
    out
}

fn push(word: &mut Option<Word>, c: char, expands: bool) {
    let word = word.get_or_insert_with(|| Word { text: String::new(), expands: Vec::new() });
    word.text.push(c);
    word.expands.push(expands);
}

impl Word {
    /// A text in which every variable is replaced.
    pub fn expanding(text: &str) -> Word {
        Word { text: text.to_owned(), expands: vec![true; text.chars().count()] }
    }

    fn assignment(&self) -> Option<(&str, Word)> {
        let (name, value) = self.text.split_once('=')?;
        let plain = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        let skipped = name.chars().count() + 1;
        plain.then(|| (name, Word { text: value.to_owned(), expands: self.expands[skipped..].to_vec() }))
    }

    /// The word with its variables replaced. What cannot be known without running something is left out.
    pub fn expand(&self, environment: &Environment) -> String {
        self.expand_marked(environment).replace(UNKNOWN, "")
    }

    /// The word with its variables replaced, and [`UNKNOWN`] for each that is not known.
    fn expand_marked(&self, environment: &Environment) -> String {
        let chars: Vec<char> = self.text.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        if self.text == "~" || self.text.starts_with("~/") && self.expands.first() == Some(&true) {
            out = home(environment);
            at = 1;
        }
        while at < chars.len() {
            if chars[at] != '$' && chars[at] != '`' || !self.expands.get(at).copied().unwrap_or(false) {
                out.push(chars[at]);
                at += 1;
                continue;
            }
            let rest: String = chars[at..].iter().collect();
            let (value, len) = expansion(&rest, environment);
            out.push_str(&value);
            at += len.max(1);
        }
        // A folder in the middle of a word is the beginning of a path.
        match out.rfind(WORKING_FOLDER) {
            Some(position) => out.split_off(position),
            None => out,
        }
    }
}

/// The value of what `text` begins with, and how many characters that is.
fn expansion(text: &str, environment: &Environment) -> (String, usize) {
    let folder = || WORKING_FOLDER.to_string();
    let unknown = || UNKNOWN.to_string();
    let value = |name: &str| match name {
        "PWD" => Some(folder()),
        "HOME" => Some(home(environment)),
        name => environment.get(name).cloned(),
    };
    if let Some(inner) = text.strip_prefix("${") {
        let Some(end) = inner.find('}') else { return (unknown(), text.chars().count()) };
        let body = &inner[..end];
        let name: String = body.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let usual = [":-", "-", ":=", "="].iter().find_map(|mark| body[name.len()..].strip_prefix(mark));
        let found = value(&name).or_else(|| usual.map(|usual| Word::expanding(usual).expand_marked(environment)));
        return (found.unwrap_or_else(unknown), body.chars().count() + 3);
    }
    if text.starts_with("$(") || text.starts_with('`') {
        let (mut depth, mut len) = (0usize, 0);
        for (position, c) in text.chars().enumerate() {
            len = position + 1;
            match c {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                '`' if position > 0 => break,
                _ => {}
            }
        }
        let body: String = text.chars().take(len).collect();
        // The script's own folder, in the ways that scripts ask for it.
        let own = ["pwd", "dirname", "BASH_SOURCE", "$0"].iter().any(|word| body.contains(word));
        let up = body.matches("..").count();
        let climbed = if own { format!("{}{}", folder(), "/..".repeat(up)) } else { unknown() };
        return (climbed, len);
    }
    let name: String = text.chars().skip(1).take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let special = name.is_empty() && text.chars().nth(1).is_some_and(|c| "@*#?!$-".contains(c));
    (value(&name).unwrap_or_else(unknown), name.chars().count() + if special { 2 } else { 1 })
}

/// The home directory of who runs a script: taken for that of who runs this.
pub(super) fn home(environment: &Environment) -> String {
    environment.get("HOME").cloned().or_else(|| std::env::var("HOME").ok()).unwrap_or_else(|| UNKNOWN.to_string())
}

#[cfg(test)]
mod tests {
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
            let unknown = found[0].settle_unknown();
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
