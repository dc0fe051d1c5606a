//! Messages and documentation name only options that exist.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::arguments::Arguments;

/// Options of other programs: fabric-ca-client, mysql, mysqldump.
const OF_OTHERS: [&str; 9] = [
    "--aki",
    "--binary-mode",
    "--caname",
    "--complete-insert",
    "--help",
    "--hex-blob",
    "--revoke",
    "--serial",
    "--skip-extended-insert",
];

fn options(command: &clap::Command, out: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let long = argument.get_long().into_iter().chain(aliases);
        out.extend(long.map(|name| format!("--{name}")));
    }
    command.get_subcommands().for_each(|command| options(command, out));
}

/// Returns the options in a text: two hyphens and lowercase words.
fn named(text: &str) -> impl Iterator<Item = String> {
    let begins = text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(['-', '|', '<']));
    begins.filter_map(|(at, _)| {
        let name: String =
            text[at + 2..].chars().take_while(|char| char.is_ascii_lowercase() || *char == '-').collect();
        let name = name.trim_end_matches('-');
        (!name.is_empty()).then(|| format!("--{name}"))
    })
}

/// Returns the string literals of a line of Rust: what is between quotation marks.
fn literals(line: &str) -> String {
    if line.trim_start().starts_with("//") {
        return String::new();
    }
    line.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ")
}

fn files(folder: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, extension, out);
        } else if path.extension().is_some_and(|known| known == extension) {
            out.push(path);
        }
    }
}

#[test]
fn messages_and_documentation_name_options_that_exist() {
    let mut known: BTreeSet<String> = OF_OTHERS.map(str::to_owned).into();
    options(&Arguments::command(), &mut known);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut check = |path: &Path, number: usize, text: &str| {
        for option in named(text) {
            seen += 1;
            if !known.contains(&option) {
                wrong.push(format!("{}:{}: {option}", path.display(), number + 1));
            }
        }
    };
    for part in ["engine", "network", "store", "cli"] {
        let mut sources = Vec::new();
        files(&root.join("crates").join(part).join("src"), "rs", &mut sources);
        for path in sources.iter().filter(|path| !path.ends_with("options_in_texts.rs")) {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().enumerate().for_each(|(number, line)| check(path, number, &literals(line)));
        }
    }
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut pages);
    for path in &pages {
        let text = std::fs::read_to_string(path).unwrap();
        // Commands of fabkeep: lines that begin with its name, and options in backquotes.
        for (number, line) in text.lines().enumerate() {
            let command = line.trim_start().starts_with("fabkeep ").then_some(line);
            let command = command.map(|line| line.split(" #").next().unwrap_or(line));
            let quoted = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("--"));
            quoted.chain(command).for_each(|code| check(path, number, code));
        }
    }
    assert!(seen > 300, "{seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

/// What a rule's finding asks for is data: the command line makes the text.
#[test]
fn findings_of_the_rules_name_no_options() {
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../network/src"), "rs", &mut sources);
    assert!(sources.len() > 5);
    let mut found = Vec::new();
    for path in &sources {
        let text = std::fs::read_to_string(path).unwrap();
        found.extend(text.lines().flat_map(|line| named(&literals(line)).collect::<Vec<_>>()));
    }
    assert_eq!(found, Vec::<String>::new());
}
