//! Interprets a container's command as a shell would: the variables that it sets before a node starts, and the commands that it runs,
//! including those of mounted scripts. Nothing is executed.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use k8s_openapi::api::core::v1::Container;

use super::command::node_of;
use super::environment::{Environment, expand};
use super::mounts::normal;
use crate::shell::{self, Resolver, base, is_shell, is_text_option};

/// How deep scripts that run others are followed.
const MAX_DEPTH: usize = 4;

/// What a container's command does.
pub(super) struct Read {
    /// The words of the commands that it runs; separators stand alone.
    pub words: Vec<String>,
    /// The node settings that it makes.
    pub settings: Environment,
    /// Folders that it sets to what is known only when it runs.
    pub unknown: BTreeSet<String>,
}

/// Reads a container's command. `files` has the text of mounted files. `role`: what starts other nodes than one of these does not run.
pub(super) fn read(
    container: &Container,
    environment: &Environment,
    hostname: &str,
    files: &dyn Fn(&str) -> Option<String>,
    role: Option<NodeRole>,
) -> Read {
    let line = container.command.iter().flatten().chain(container.args.iter().flatten());
    let line: Vec<String> = line.map(|word| shell::unexpanded(&expand(word, environment))).collect();
    let mut environment = environment.clone();
    environment.entry("HOSTNAME".to_owned()).or_insert(hostname.to_owned());
    let folder = container.working_dir.clone().unwrap_or("/".to_owned());
    let (words, unknown, arguments) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut script = Script { files, role, folder, environment, arguments, words, unknown, starts: false, depth: 0 };
    script.statement(&line, false);
    let is_setting = |name: &str| ["CORE_", "ORDERER_", "FABRIC_"].iter().any(|prefix| name.starts_with(prefix));
    script.environment.retain(|name, _| is_setting(name));
    script
        .unknown
        .retain(|name| is_setting(name) && ["PATH", "LOCATION", "DIR", "HOME"].iter().any(|end| name.ends_with(end)));
    Read { words: script.words, settings: script.environment, unknown: script.unknown }
}

struct Script<'a> {
    files: &'a dyn Fn(&str) -> Option<String>,
    role: Option<NodeRole>,
    folder: String,
    environment: Environment,
    /// What `$@` stands for.
    arguments: Vec<String>,
    words: Vec<String>,
    unknown: BTreeSet<String>,
    /// A node is started: what comes later is not for it.
    starts: bool,
    depth: usize,
}

impl Script<'_> {
    fn run(&mut self, text: &str) {
        if self.depth == MAX_DEPTH {
            return;
        }
        self.depth += 1;
        for statement in shell::statements(&shell::tokens(text)).iter().filter(|known| !known.words.is_empty()) {
            self.statement(statement.words, statement.conditional);
        }
        self.depth -= 1;
    }

    /// One command with the assignments before it. What is set under a condition does not replace what is set already.
    fn statement(&mut self, words: &[String], conditional: bool) {
        let words = shell::without_redirections(words);
        let mut environment = self.environment.clone();
        let unknown = &mut self.unknown;
        let at = shell::before_program(&words, |name, value| {
            let value = in_shell(value, &environment);
            let stays = conditional && environment.get(name).is_some_and(|value| !value.is_empty());
            if !stays && value.contains(['$', '`']) {
                unknown.insert(name.to_owned());
            } else if !stays {
                unknown.remove(name);
                environment.insert(name.to_owned(), shell::settled(&value));
            }
        });
        let mut command: Vec<String> = Vec::new();
        for word in &words[at..] {
            if shell::is_arguments(word) {
                command.extend(self.arguments.iter().cloned());
            } else {
                let fields = shell::fields(word, &environment, &Pod(&environment));
                command.extend(fields.iter().map(|word| shell::settled(word)));
            }
        }
        let mut command = shell::unwrapped(command, |name, value| {
            environment.insert(name.to_owned(), value.to_owned());
        });
        if command.is_empty() {
            if !self.starts {
                self.environment = environment;
            }
            return;
        }
        let shell = command.iter().position(|word| is_shell(word));
        let after = |at: usize| command.get(at + 1..).unwrap_or_default().to_vec();
        let from = shell.map_or(0, |at| at + 1);
        let options = command[from..].iter().take_while(|word| word.starts_with('-'));
        let text = options.clone().position(|word| is_text_option(word)).map(|at| from + at + 1);
        let inline = text.and_then(|at| Some((command.get(at)?.clone(), after(at + 1))));
        let file = || {
            let at = if shell == Some(0) { from + options.count() } else { 0 };
            Some(((self.files)(&self.path(command.get(at)?))?, after(at)))
        };
        match (base(&command[0]), command.get(1)) {
            ("." | "source", Some(included)) => {
                if let Some(text) = (self.files)(&self.path(included)) {
                    self.run(&text);
                }
            }
            ("cd", Some(to)) => self.folder = self.path(to),
            _ => match inline.or_else(file) {
                Some((text, arguments)) => self.run_apart(&text, arguments, environment),
                None => {
                    let node = node_of(&command);
                    if node.is_some_and(|node| self.role.is_some_and(|role| role != node)) {
                        return;
                    }
                    if !self.starts && node.is_some() {
                        self.starts = true;
                        self.environment = environment;
                    }
                    self.words.append(&mut command);
                    self.words.push(";".to_owned());
                }
            },
        }
    }

    /// Runs a script in a shell of its own: what it sets is for a node that it starts.
    fn run_apart(&mut self, text: &str, arguments: Vec<String>, environment: Environment) {
        let own = (self.starts, self.folder.clone(), std::mem::replace(&mut self.environment, environment));
        let outer = std::mem::replace(&mut self.arguments, arguments);
        self.run(text);
        self.arguments = outer;
        if own.0 || (!self.starts && self.depth > 0) {
            self.environment = own.2;
        }
        self.folder = own.1;
    }

    fn path(&self, path: &str) -> String {
        if path.starts_with('/') { normal(path) } else { normal(&format!("{}/{path}", self.folder)) }
    }
}

/// What a container's script is known to be told beside its variables: the pod's name.
struct Pod<'e>(&'e Environment);

impl Resolver for Pod<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn other(&self, expansion: &str) -> Option<String> {
        let asks = matches!(expansion, "$(hostname)" | "$(hostname -s)" | "`hostname`");
        asks.then(|| self.0.get("HOSTNAME").cloned())?
    }
}

/// A word with what is known of its expansions; the rest stays as it is.
fn in_shell(word: &str, environment: &Environment) -> String {
    shell::expand(word, environment, &Pod(environment))
}
