//! Messages and documentation name only options that exist.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::arguments::Arguments;

/// Options of other programs: osnadmin, fabric-ca-client, mysql, mysqldump.
const OF_OTHERS: [&str; 9] = [
    "--binary-mode",
    "--channel",
    "--complete-insert",
    "--config-block",
    "--help",
    "--hex-blob",
    "--revoke",
    "--skip-extended-insert",
    "--version",
];

/// The crates below the command line.
const BELOW: [&str; 5] = ["ledger", "store", "network", "platform", "engine"];

/// Files with commands of other programs, some of whose options have a name that fabkeep uses too.
const COMMANDS_OF_OTHERS: [(&str, &[&str]); 5] = [
    ("host/discover/docker.rs", &["--all", "--quiet"]),
    ("host/discover/unit.rs", &["--quiet"]),
    ("host/discover/run.rs", &["--context"]),
    ("shell/wrapped.rs", &["--start"]),
    ("platform/src/sql.rs", &["--output", "--quiet"]),
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

/// Returns the string literals of Rust code. Documentation is none.
fn literals(code: TokenStream, out: &mut Vec<String>) {
    let mut before = None;
    for token in code {
        match &token {
            TokenTree::Group(group) => {
                let is_attribute = matches!(&before, Some(TokenTree::Punct(mark)) if matches!(mark.as_char(), '#' | '!'))
                    && group.delimiter() == Delimiter::Bracket;
                if !is_attribute {
                    literals(group.stream(), out);
                }
            }
            TokenTree::Literal(literal) if literal.to_string().contains('"') => {
                out.push(literal.to_string());
            }
            _ => {}
        }
        before = Some(token);
    }
}

/// Returns the string literals of a source file.
fn literals_of(path: &Path) -> Vec<String> {
    let code: TokenStream = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let mut out = Vec::new();
    literals(code, &mut out);
    out
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
    let mut check = |path: &Path, text: &str| {
        for option in named(text) {
            seen += 1;
            if !known.contains(&option) {
                wrong.push(format!("{}: {option} in {text}", path.display()));
            }
        }
    };
    let mut sources = Vec::new();
    files(&root.join("crates/cli/src"), "rs", &mut sources);
    for path in sources.iter().filter(|path| !path.ends_with("options_in_texts.rs")) {
        literals_of(path).iter().for_each(|text| check(path, text));
    }
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut pages);
    for path in &pages {
        let text = std::fs::read_to_string(path).unwrap();
        // Commands of fabkeep: lines that begin with its name, and options in backquotes.
        for line in text.lines() {
            let command = line.trim_start().starts_with("fabkeep ").then_some(line);
            let command = command.map(|line| line.split(" #").next().unwrap_or(line));
            let quoted = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("--"));
            quoted.chain(command).for_each(|code| check(path, code));
        }
    }
    assert!(seen > 300, "{seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

/// What can be asked for is data below the command line, which alone knows its options.
#[test]
fn no_source_below_the_command_line_names_an_option() {
    let mut known = BTreeSet::new();
    options(&Arguments::command(), &mut known);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    let mut seen = 0;
    for part in BELOW {
        let mut sources = Vec::new();
        files(&root.join(part).join("src"), "rs", &mut sources);
        assert!(sources.len() > 5, "{part}");
        for path in &sources {
            let of_others = COMMANDS_OF_OTHERS.iter().find(|(file, _)| path.ends_with(file));
            let of_others = of_others.map_or(&[][..], |(_, options)| options);
            for text in literals_of(path) {
                seen += 1;
                let options = named(&text).filter(|option| known.contains(option));
                let options = options.filter(|option| !of_others.contains(&option.as_str()));
                found.extend(options.map(|option| format!("{}: {option} in {text}", path.display())));
            }
        }
    }
    assert!(seen > 3000, "{seen}");
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn literals_are_found_wherever_they_are_and_documentation_is_none() {
    let code = "//! `--repo`\n/// \"--node\"\nfn f() { // \"--to\"\n g!(\"one \\\n --two\", r#\"--three\"#, b\"--four\", '\"'); }";
    let mut out = Vec::new();
    literals(code.parse().unwrap(), &mut out);
    let options: Vec<String> = out.iter().flat_map(|text| named(text).collect::<Vec<_>>()).collect();
    assert_eq!(options, ["--two", "--three", "--four"]);
}
