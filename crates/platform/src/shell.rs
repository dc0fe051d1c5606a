//! Text as a shell reads it: words, commands, assignments, expansions. Nothing of it is executed; who reads it says what is known beside the
//! variables.

mod wrapped;

use fabkeep_ledger::node_settings::Environment;

pub(crate) use wrapped::{before_program, unwrapped};

/// Stand for a `$` and a backtick that begin no expansion.
const DOLLAR: char = '\u{4}';
const BACKTICK: char = '\u{5}';
/// Stands before an expansion in quotes: what comes of it is one word.
const QUOTED: char = '\u{6}';
/// Stands where the value of an expansion that is not in quotes is split.
const SPLIT: char = '\u{7}';
/// Words that a command may stand behind.
const KEYWORDS: [&str; 14] =
    ["then", "else", "elif", "do", "if", "while", "until", "{", "}", "!", "fi", "done", "esac", "--"];
/// How deep an expansion inside another one is replaced.
const MAX_DEPTH: usize = 8;
/// Length of a value behind which nothing more is replaced, in bytes.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// What is known of expansions that no variable tells.
pub(crate) trait Resolver {
    /// A variable that nothing sets.
    fn variable(&self, name: &str) -> Option<String>;
    /// Any other expansion, as it is written: `$(…)`, `${…}`, `$1`. What is not known stays as it is.
    fn other(&self, expansion: &str) -> Option<String>;
}

/// The last part of a path.
pub(crate) fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Whether a token separates commands.
pub(crate) fn is_separator(token: &str) -> bool {
    matches!(token, ";" | "&" | "|" | "(" | ")")
}

/// Whether a program is a shell.
pub(crate) fn is_shell(program: &str) -> bool {
    matches!(base(program), "sh" | "bash" | "ash" | "dash" | "zsh")
}

/// Whether an option of a shell says that a script follows: `-c`, `-ec`, `-xc`.
pub(crate) fn is_text_option(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

/// The words of a script: quotes and comments are taken away, what separates commands stands alone.
pub(crate) fn tokens(script: &str) -> Vec<String> {
    read(script, true)
}

/// The words of one line in which nothing separates commands.
pub(crate) fn words(line: &str) -> Vec<String> {
    read(line, false)
}

fn read(text: &str, script: bool) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        // A value that is not in quotes, as files of settings have them: `…@tcp(db:3306)/ca?a=b&c=d`.
        let in_value = |word: &Option<String>| {
            let goes_on = next.is_some_and(|next| is_name(next) || next == '/');
            goes_on && word.as_ref().is_some_and(|word| word.contains('=') && !word.ends_with('='))
        };
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(literal(c)),
            (_, '\\') => match chars.next() {
                Some((_, '\n')) | None => {}
                Some((_, next)) => {
                    let word = word.get_or_insert_default();
                    if quote.is_some() && !matches!(next, '$' | '`' | '"' | '\\') {
                        word.push('\\');
                    }
                    word.push(literal(next));
                }
            },
            (_, '`' | '$') if c == '`' || matches!(next, Some('(' | '{')) => {
                let end = at + length(&text[at..]);
                let word = word.get_or_insert_default();
                word.extend(quote.map(|_| QUOTED));
                word.push_str(&text[at..end]);
                while chars.next_if(|(at, _)| *at < end).is_some() {}
            }
            (Some(_), '$') => {
                let end = at + length(&text[at..]);
                let (word, expansion) = (word.get_or_insert_default(), &text[at..end]);
                word.push(QUOTED);
                // What stands behind the quotes is no part of the name.
                match expansion
                    .strip_prefix('$')
                    .filter(|name| name.starts_with(|c: char| is_name(c) && !c.is_ascii_digit()))
                {
                    Some(name) => word.extend(["${", name, "}"]),
                    None => word.push_str(expansion),
                }
                while chars.next_if(|(at, _)| *at < end).is_some() {}
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if script && word.is_none() => while chars.next_if(|(_, next)| *next != '\n').is_some() {},
            // A redirection is a word of its own.
            (None, '<' | '>') if script => {
                let begins = |c: char| c.is_ascii_digit() || matches!(c, '&' | '<' | '>');
                if word.as_ref().is_some_and(|word| !word.chars().all(begins)) {
                    out.extend(word.take());
                }
                word.get_or_insert_default().push(c);
            }
            // `2>&1`, `&>log`
            (None, '&') if script && next == Some('>') => {
                out.extend(word.take());
                word = Some(c.to_string());
            }
            (None, '&') if word.as_ref().is_some_and(|word| word.ends_with('>')) => {
                word.get_or_insert_default().push(c);
            }
            (None, '&' | '(' | ')') if in_value(&word) => {
                word.get_or_insert_default().push(c);
            }
            (None, ';' | '&' | '|' | '(' | ')' | '\n') if script => {
                out.extend(word.take());
                out.push(if c == '\n' { ';' } else { c }.to_string());
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

fn literal(c: char) -> char {
    match c {
        '$' => DOLLAR,
        '`' => BACKTICK,
        c => c,
    }
}

/// A word as it is when nothing more is expanded in it.
pub(crate) fn settled(word: &str) -> String {
    word.replace(DOLLAR, "$").replace(BACKTICK, "`").replace(QUOTED, "")
}

/// Whether a word stands for all arguments of a script.
pub(crate) fn is_arguments(word: &str) -> bool {
    matches!(word.strip_prefix(QUOTED).unwrap_or(word), "$@" | "$*")
}

/// A text in which nothing is expanded.
pub(crate) fn unexpanded(text: &str) -> String {
    text.chars().map(literal).collect()
}

/// The words of a command without where it reads and writes: `>log`, `2>&1`, `< file`.
pub(crate) fn without_redirections(words: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let behind = word.strip_prefix('&').unwrap_or_else(|| word.trim_start_matches(|c: char| c.is_ascii_digit()));
        if !behind.starts_with(['<', '>']) {
            out.push(word.clone());
        } else if behind.trim_start_matches(['<', '>']).trim_start_matches('&').is_empty() {
            rest.next();
        }
    }
    out
}

/// One command of a script.
pub(crate) struct Statement<'t> {
    pub words: &'t [String],
    /// It may run or not: behind a test or a failure, inside an `if`, a loop and the like.
    pub conditional: bool,
    /// What stands behind it: empty at the end.
    pub separator: &'t str,
}

/// The commands of a script; empty ones too, for what separates them.
pub(crate) fn statements(tokens: &[String]) -> Vec<Statement<'_>> {
    let mut out = Vec::new();
    let (mut open, mut after_test, mut separators) = (0usize, false, String::new());
    for statement in tokens.split_inclusive(|token| is_separator(token)) {
        let (words, separator) = match statement.split_last() {
            Some((last, words)) if is_separator(last) => (words, last.as_str()),
            _ => (statement, ""),
        };
        let mut conditional = false;
        if let Some(first) = words.first() {
            match first.as_str() {
                "if" | "for" | "while" | "until" | "case" => open += 1,
                "fi" | "done" | "esac" => open = open.saturating_sub(1),
                _ => {}
            }
            conditional = open > 0 || separators == "||" || (separators == "&&" && after_test);
            after_test = matches!(first.as_str(), "[" | "[[" | "test");
            separators.clear();
        }
        separators.push_str(separator);
        out.push(Statement { words, conditional, separator });
    }
    out
}

fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let plain = name.chars().all(is_name) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
    plain.then_some((name, value))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// How many bytes the expansion has that a text begins with.
fn length(text: &str) -> usize {
    let rest = &text[1..];
    if text.starts_with('`') {
        return rest.find('`').map_or(text.len(), |end| end + 2);
    }
    if rest.starts_with(['(', '{']) {
        let mut depth = 0usize;
        let end = rest.char_indices().find(|(_, c)| {
            match c {
                '(' | '{' => depth += 1,
                ')' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        });
        return end.map_or(text.len(), |(at, _)| at + 2);
    }
    match rest.chars().next() {
        Some(c) if c.is_ascii_digit() || "@*#?!$-".contains(c) => 2,
        _ => 1 + rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
    }
}

/// A word with its expansions replaced: by the variables, else by what the resolver knows; what neither knows stays as it is.
pub(crate) fn expand(word: &str, variables: &Environment, resolver: &dyn Resolver) -> String {
    expand_in(word, variables, resolver, 0, false)
}

/// The words that a shell makes of one: what comes of an expansion that is not in quotes is split at spaces, and may be none.
pub(crate) fn fields(word: &str, variables: &Environment, resolver: &dyn Resolver) -> Vec<String> {
    let expanded = expand_in(word, variables, resolver, 0, true);
    if expanded.is_empty() && (word.is_empty() || word.contains(QUOTED)) {
        return vec![expanded];
    }
    expanded.split(SPLIT).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn expand_in(word: &str, variables: &Environment, resolver: &dyn Resolver, depth: usize, split: bool) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['$', '`', QUOTED]).filter(|_| depth < MAX_DEPTH && out.len() < MAX_VALUE_BYTES) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let unquoted = rest.strip_prefix(QUOTED);
        rest = unquoted.unwrap_or(rest);
        if !rest.starts_with(['$', '`']) {
            continue;
        }
        let (expansion, after) = rest.split_at(length(rest));
        match replaced(expansion, variables, resolver, depth) {
            Some(value) if split && unquoted.is_none() => {
                out.extend(value.chars().map(|c| if c.is_whitespace() { SPLIT } else { c }));
            }
            Some(value) => out.push_str(&value),
            None => out.push_str(expansion),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn replaced(expansion: &str, variables: &Environment, resolver: &dyn Resolver, depth: usize) -> Option<String> {
    let braced = || expansion.strip_prefix("${")?.strip_suffix('}');
    let plain = || expansion.strip_prefix('$').filter(|body| body.starts_with(is_name));
    let body = braced().or_else(plain).unwrap_or_default();
    let (name, operation) = body.split_at(body.find(|c| !is_name(c)).unwrap_or(body.len()));
    if name.is_empty() {
        // A `$` alone is none.
        return if expansion.len() > 1 { resolver.other(expansion) } else { None };
    }
    let value = variables.get(name).cloned().or_else(|| resolver.variable(name));
    let marks = [":-", ":=", ":?", ":+", "-", "=", "?", "+"];
    let usual = marks.into_iter().find_map(|mark| Some((mark, operation.strip_prefix(mark)?)));
    let found = match usual {
        _ if operation.is_empty() => value,
        Some((mark, usual)) => {
            let set = value.filter(|value| !(mark.starts_with(':') && value.is_empty()));
            let other = || expand_in(usual, variables, resolver, depth + 1, false);
            match mark {
                // What is behind these is what is said when it is not set.
                ":?" | "?" => set,
                ":+" | "+" => Some(set.map(|_| other()).unwrap_or_default()),
                _ => Some(set.unwrap_or_else(other)),
            }
        }
        None => value.and_then(|value| Some(cut(&value, operation)?.to_owned())),
    };
    found.or_else(|| resolver.other(expansion))
}

/// `#…`, `##*…`, `%…`, `%%…*`: what is left of a value without the beginning or end that matches.
fn cut<'v>(value: &'v str, operation: &str) -> Option<&'v str> {
    let mark = operation.chars().next().filter(|mark| matches!(mark, '#' | '%'))?;
    let pattern = &operation[1..];
    let (longest, pattern) = pattern.strip_prefix(mark).map_or((false, pattern), |pattern| (true, pattern));
    let is_plain = |text: &str| !text.contains(['*', '?', '[']);
    Some(match mark {
        '#' if is_plain(pattern) => value.strip_prefix(pattern).unwrap_or(value),
        _ if is_plain(pattern) => value.strip_suffix(pattern).unwrap_or(value),
        '#' => {
            let at = pattern.strip_prefix('*').filter(|at| is_plain(at))?;
            if longest { value.rsplit_once(at) } else { value.split_once(at) }.map_or(value, |(_, rest)| rest)
        }
        _ => {
            let at = pattern.strip_suffix('*').filter(|at| is_plain(at))?;
            if longest { value.split_once(at) } else { value.rsplit_once(at) }.map_or(value, |(rest, _)| rest)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Resolver for Nothing {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "PWD").then(|| "/here".to_owned())
        }

        fn other(&self, expansion: &str) -> Option<String> {
            (expansion == "$(pwd)" || expansion == "`pwd`").then(|| "/here".to_owned())
        }
    }

    #[test]
    fn words_are_as_a_shell_has_them() {
        for (text, expected) in [
            ("a 'b c' \"d e\"f # g", &["a", "b c", "d ef"][..]),
            ("a;b && c|d &\ne", &["a", ";", "b", "&", "&", "c", "|", "d", "&", ";", "e"]),
            ("(cd x; y) 2>&1 &>log", &["(", "cd", "x", ";", "y", ")", "2>&1", "&>log"]),
            ("a \\\n  b\\ c \"d\\\"e\"", &["a", "b c", "d\"e"]),
            ("A=$(cd \"$(dirname x)\" && pwd)/m b", &["A=$(cd \"$(dirname x)\" && pwd)/m", "b"]),
            ("A=`cat x y` b", &["A=`cat x y`", "b"]),
            ("S=root:pw@tcp(db:3306)/ca?a=b&c=d", &["S=root:pw@tcp(db:3306)/ca?a=b&c=d"]),
            ("A=b& c", &["A=b", "&", "c"]),
            ("a>b 2>c &>>d <e", &["a", ">b", "2>c", "&>>d", "<e"]),
            ("a&>b", &["a", "&>b"]),
        ] {
            assert_eq!(tokens(text), expected, "{text}");
        }
        assert_eq!(words("a;b 'c d'#e"), ["a;b", "c d#e"]);
    }

    #[test]
    fn no_script_makes_a_value_without_end() {
        let mut variables = Environment::from([("A".to_owned(), "x".to_owned())]);
        for _ in 0..64 {
            let doubled = expand("$A$A", &variables, &Nothing);
            variables.insert("A".to_owned(), doubled);
        }
        assert!(variables["A"].len() <= 4 * MAX_VALUE_BYTES);
        let deep = format!("{}{}", "${N:-".repeat(100_000), "}".repeat(100_000));
        assert_eq!(tokens(&deep), std::slice::from_ref(&deep));
        expand(&deep, &variables, &Nothing);
    }

    #[test]
    fn what_is_not_in_quotes_is_split_at_spaces() {
        let variables = Environment::from(
            [("O", "-b a:b  -H /x"), ("E", ""), ("A", "a b")].map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        for (text, expected) in [
            ("$O -d", &["-b", "a:b", "-H", "/x", "-d"][..]),
            ("\"$O\" ${O}", &["-b a:b  -H /x", "-b", "a:b", "-H", "/x"]),
            ("x$A'$A'", &["xa", "b$A"]),
            ("x\"$A\"y $E \"$E\" '' ${N:-$A}", &["xa by", "", "", "a", "b"]),
            ("A=$A \"`pwd`\" $N", &["A=a", "b", "/here", "$N"]),
        ] {
            let all: Vec<String> = words(text).iter().flat_map(|word| fields(word, &variables, &Nothing)).collect();
            assert_eq!(all.iter().map(|word| settled(word)).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn expansions_are_replaced_by_what_is_known() {
        let variables =
            Environment::from([("A", "a/b/c"), ("E", "")].map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (text, expected) in [
            ("$A/x ${A}x '$A'", "a/b/c/x a/b/cx $A"),
            ("${A##*/} ${A#*/} ${A%/*} ${A%%/*} ${A%c} ${A#x}", "c b/c a/b a a/b/ a/b/c"),
            ("${N:-x} ${N-${A}} ${E:-x} ${E-x}.", "x a/b/c x ."),
            ("${A:?set A} ${A?x} ${E?x}. ${E:?x} ${N?x}", "a/b/c a/b/c . ${E:?x} ${N?x}"),
            ("${A:+x} ${A+${A}} ${E:+x}. ${E+x} ${N:+x}. ${N+x}.", "x a/b/c . x . ."),
            ("$PWD ${PWD} $(pwd) `pwd`", "/here /here /here /here"),
            ("$N $1a ${A/x/y} $(x) $@ $", "$N $1a ${A/x/y} $(x) $@ $"),
            ("\\$A \"\\$A\"", "$A $A"),
        ] {
            let all: Vec<String> =
                words(text).iter().map(|word| settled(&expand(word, &variables, &Nothing))).collect();
            assert_eq!(all.join(" "), expected, "{text}");
        }
    }
}
