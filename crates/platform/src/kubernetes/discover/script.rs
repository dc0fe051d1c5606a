//! Interprets a container's command as a shell would: the variables that it sets before a node starts, and the commands that it runs,
//! including those of mounted scripts. Nothing is executed.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Container;

use super::command::{base, is_separator, is_shell, node_of};
use super::environment::{Environment, expand};
use super::mounts::normal;

/// How deep scripts that run others are followed.
const MAX_DEPTH: usize = 4;
/// Stands for a `$` that is no expansion.
const DOLLAR: char = '\u{1}';

/// What a container's command does.
pub(super) struct Read {
    /// The words of the commands that it runs; separators stand alone.
    pub words: Vec<String>,
    /// The node settings that it makes.
    pub settings: Environment,
    /// Folders that it sets to what is known only when it runs.
    pub unknown: BTreeSet<String>,
}

/// Reads a container's command. `files` has the text of mounted files.
pub(super) fn read(
    container: &Container,
    environment: &Environment,
    hostname: &str,
    files: &dyn Fn(&str) -> Option<String>,
) -> Read {
    let line = container.command.iter().flatten().chain(container.args.iter().flatten());
    let line: Vec<String> = line.map(|word| expand(word, environment).replace('$', &DOLLAR.to_string())).collect();
    let mut environment = environment.clone();
    environment.entry("HOSTNAME".to_owned()).or_insert(hostname.to_owned());
    let folder = container.working_dir.clone().unwrap_or("/".to_owned());
    let (words, unknown, arguments) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut script = Script { files, folder, environment, arguments, words, unknown, starts: false, depth: 0 };
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
        let tokens = tokens(text);
        // Open `if`s, loops and the like; whether a test or a failure comes first.
        let (mut open, mut after_test, mut separators) = (0usize, false, String::new());
        for statement in tokens.split_inclusive(|token| is_separator(token)) {
            let (words, separator) = match statement.split_last() {
                Some((last, words)) if is_separator(last) => (words, last.as_str()),
                _ => (statement, ""),
            };
            if !words.is_empty() {
                match words[0].as_str() {
                    "if" | "for" | "while" | "until" | "case" => open += 1,
                    "fi" | "done" | "esac" => open = open.saturating_sub(1),
                    _ => {}
                }
                let conditional = open > 0 || separators == "||" || (separators == "&&" && after_test);
                self.statement(words, conditional);
                after_test = matches!(words[0].as_str(), "[" | "[[" | "test");
                separators.clear();
            }
            separators.push_str(separator);
        }
        self.depth -= 1;
    }

    /// One command with the assignments before it. What is set under a condition does not replace what is set already.
    fn statement(&mut self, words: &[String], conditional: bool) {
        let mut environment = self.environment.clone();
        let (mut at, mut exports, mut wrapped) = (0, false, false);
        while let Some(word) = words.get(at) {
            match (assignment(word), base(word)) {
                (Some((name, value)), _) => {
                    let value = in_shell(value, &environment);
                    let stays = conditional && environment.get(name).is_some_and(|value| !value.is_empty());
                    if !stays && value.contains(['$', '`']) {
                        self.unknown.insert(name.to_owned());
                    } else if !stays {
                        self.unknown.remove(name);
                        environment.insert(name.to_owned(), settled(&value));
                    }
                }
                (_, "export" | "declare" | "readonly" | "local") => exports = true,
                (
                    _,
                    "then" | "else" | "elif" | "do" | "if" | "while" | "until" | "{" | "}" | "!" | "fi" | "done"
                    | "esac",
                ) => {}
                (
                    _,
                    "exec" | "env" | "nohup" | "time" | "command" | "sudo" | "tini" | "dumb-init" | "busybox" | "--",
                ) => {
                    wrapped = true;
                }
                (_, "gosu" | "su-exec" | "timeout") => {
                    wrapped = true;
                    at += 1;
                }
                _ if exports => {}
                _ if wrapped && word.starts_with('-') && !is_text_option(word) => {}
                _ => break,
            }
            at += 1;
        }
        let mut command: Vec<String> = Vec::new();
        for word in &words[at.min(words.len())..] {
            match word.as_str() {
                "$@" | "$*" => command.extend(self.arguments.iter().cloned()),
                word => command.push(settled(&in_shell(word, &environment))),
            }
        }
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
                    if !self.starts && node_of(&command).is_some() {
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

/// `-c`, `-ec`, `-xc`: a script follows.
fn is_text_option(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (plain && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then_some((name, value))
}

fn settled(word: &str) -> String {
    word.replace(DOLLAR, "$")
}

/// The words of a script: quotes and comments are taken away, separators stand alone.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), '$') => word.get_or_insert_default().push(DOLLAR),
            (None | Some('"'), '\\') => match chars.next() {
                Some('\n') | None => {}
                Some('$') => word.get_or_insert_default().push(DOLLAR),
                Some(next) => word.get_or_insert_default().push(next),
            },
            (None | Some('"'), '$') if matches!(chars.peek(), Some('(' | '{')) => {
                let word = word.get_or_insert_default();
                word.push(c);
                let (mut depth, mut rest) = (0usize, chars.clone());
                for inner in rest.by_ref() {
                    word.push(inner);
                    match inner {
                        '(' | '{' => depth += 1,
                        ')' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                chars = rest;
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while chars.next_if(|&next| next != '\n').is_some() {},
            // `2>&1`, `&>log`
            (None, '&') if chars.peek() == Some(&'>') || word.as_ref().is_some_and(|word| word.ends_with('>')) => {
                word.get_or_insert_default().push(c);
            }
            (None, ';' | '&' | '|' | '(' | ')' | '\n') => {
                out.extend(word.take());
                let separator = if c == '\n' { ';' } else { c };
                out.push(separator.to_string());
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

/// Replaces what is known of `$NAME`, `${NAME}`, `${NAME:-…}`, `${NAME##*…}` and `$(hostname)` as a shell does; the rest stays as it is.
pub(super) fn in_shell(text: &str, environment: &Environment) -> String {
    let hostname = ["$(hostname)", "$(hostname -s)", "`hostname`"]
        .iter()
        .fold(text.to_owned(), |text, asked| text.replace(asked, "${HOSTNAME}"));
    let mut out = String::new();
    let mut rest = hostname.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (body, after) = match rest[1..].strip_prefix('{').and_then(|body| body.split_once('}')) {
            Some(parts) => parts,
            None => rest[1..].split_at(rest[1..].find(|c| !is_name(c)).unwrap_or(rest.len() - 1)),
        };
        let (name, operation) = body.split_at(body.find(|c| !is_name(c)).unwrap_or(body.len()));
        let value = environment.get(name);
        let usual = [":-", "-", ":=", "="].iter().find_map(|mark| operation.strip_prefix(mark));
        let value = match operation.strip_prefix("##*") {
            _ if operation.is_empty() => value.cloned(),
            Some(mark) => value.and_then(|value| value.rsplit(mark).next()).map(str::to_owned),
            None => usual
                .map(|usual| value.filter(|value| !value.is_empty()).cloned().unwrap_or(in_shell(usual, environment))),
        };
        out.push_str(value.as_deref().unwrap_or(&rest[..rest.len() - after.len()]));
        rest = after;
    }
    out.push_str(rest);
    out
}
