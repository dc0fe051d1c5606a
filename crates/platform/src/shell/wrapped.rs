//! Programs that run another command, which stands behind them or in their options.

use super::{KEYWORDS, MAX_DEPTH, assignment, base, is_text_option};

/// A program that runs the command behind it.
struct Wrapper {
    name: &'static str,
    /// How many words of its own stand behind its options.
    own: usize,
    /// Its options that have a value.
    with_value: &'static [&'static str],
}

const fn wrapper(name: &'static str, own: usize, with_value: &'static [&'static str]) -> Wrapper {
    Wrapper { name, own, with_value }
}

const WRAPPERS: [Wrapper; 27] = [
    wrapper("busybox", 0, &[]),
    wrapper("chroot", 1, &[]),
    wrapper("chpst", 0, &["-u", "-U", "-b", "-e", "-n", "-l", "-L", "-m", "-d", "-o", "-p", "-f", "-c", "-t"]),
    wrapper("chrt", 1, &["-T", "-P", "-D"]),
    wrapper("command", 0, &[]),
    wrapper("daemonize", 0, &["-a", "-c", "-e", "-E", "-l", "-o", "-p", "-u"]),
    wrapper("doas", 0, &["-u", "-C"]),
    wrapper("dumb-init", 0, &["-r", "--rewrite"]),
    wrapper("env", 0, &["-u", "-C", "--unset", "--chdir"]),
    wrapper("exec", 0, &["-a"]),
    wrapper("flock", 1, &["-w", "-E"]),
    wrapper("gosu", 1, &[]),
    wrapper("ionice", 0, &["-c", "-n", "--class", "--classdata"]),
    wrapper("nice", 0, &["-n", "--adjustment"]),
    wrapper("nohup", 0, &[]),
    wrapper("numactl", 0, &["-C", "-N", "-m", "-i"]),
    wrapper("s6-setuidgid", 1, &[]),
    wrapper("screen", 0, &["-S", "-t", "-c", "-e", "-h", "-p", "-s", "-T", "-Logfile"]),
    wrapper("setsid", 0, &[]),
    wrapper("stdbuf", 0, &["-i", "-o", "-e"]),
    wrapper("su-exec", 1, &[]),
    wrapper("sudo", 0, &["-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U", "--user", "--group", "--chdir"]),
    wrapper("systemd-run", 0, &["-u", "-p", "-E", "-M", "-H", "--unit", "--property", "--uid", "--gid", "--setenv"]),
    wrapper("taskset", 1, &[]),
    wrapper("time", 0, &["-f", "-o"]),
    wrapper("timeout", 1, &["-k", "-s", "--kill-after", "--signal"]),
    wrapper("tini", 0, &["-p", "-e"]),
];

/// Whether the next word is an option's value.
fn has_value(option: &str, with_value: &[&str]) -> bool {
    if option.starts_with("--") || with_value.contains(&option) {
        return with_value.contains(&option);
    }
    // `-dmS name`, but `-n5`: the value stands behind the first of the letters that has one.
    let mut letters = option.chars().skip(1);
    let valued =
        letters.find(|letter| with_value.iter().any(|known| known.strip_prefix('-') == Some(&letter.to_string())));
    valued.is_some() && letters.next().is_none()
}

/// What stands before a command's program: each assignment with its value as it is written, in order. Where the program stands.
pub(crate) fn before_program(words: &[String], mut assign: impl FnMut(&str, &str)) -> usize {
    let (mut at, mut exports, mut own) = (0, false, 0);
    let mut wrapper: Option<&Wrapper> = None;
    while let Some(word) = words.get(at) {
        match (assignment(word), base(word)) {
            (Some((name, value)), _) => assign(name, value),
            (_, "export" | "declare" | "readonly" | "local") => exports = true,
            (_, name) if KEYWORDS.contains(&name) => {}
            _ if exports => {}
            _ if word.starts_with('-') && wrapper.is_some() => {
                at += usize::from(wrapper.is_some_and(|known| has_value(word, known.with_value)));
            }
            _ if own > 0 => own -= 1,
            (_, name) => match WRAPPERS.iter().find(|known| known.name == name) {
                Some(found) => (wrapper, own) = (Some(found), found.own),
                None => break,
            },
        }
        at += 1;
    }
    at.min(words.len())
}

/// The command that an expanded one runs through whatever wrappers; a text for a shell as `sh -c TEXT`. `assign` is told of what `env` sets.
pub(crate) fn unwrapped(mut command: Vec<String>, mut assign: impl FnMut(&str, &str)) -> Vec<String> {
    for _ in 0..MAX_DEPTH {
        let at = before_program(&command, &mut assign);
        command.drain(..at);
        match inner(&command) {
            Some(next) => command = next,
            None => break,
        }
    }
    command
}

/// The command that programs run which do not simply have it behind them.
fn inner(command: &[String]) -> Option<Vec<String>> {
    let (program, words) = command.split_first()?;
    let text = |text: &str| vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()];
    let behind_dashes = || words.iter().skip_while(|word| *word != "--").skip(1).cloned();
    match base(program) {
        "su" | "sg" | "runuser" => {
            let long = words.iter().find_map(|word| word.strip_prefix("--command=")).map(str::to_owned);
            let at = words.iter().position(|word| is_text_option(word) || word == "--command");
            if let Some(given) = long.or_else(|| at.and_then(|at| words.get(at + 1).cloned())) {
                return Some(text(&given));
            }
            let values = ["-u", "-g", "-G", "-s", "-w", "--user", "--group", "--shell"];
            (base(program) == "runuser").then(|| behind_options(words, &values)).filter(|inner| !inner.is_empty())
        }
        "start-stop-daemon" => {
            let value = |names: [&str; 2]| {
                let at = words.iter().position(|word| names.contains(&word.as_str()));
                let long = || words.iter().find_map(|word| word.strip_prefix(names[1])?.strip_prefix('='));
                at.and_then(|at| words.get(at + 1).map(String::as_str)).or_else(long).map(str::to_owned)
            };
            let started = value(["-a", "--startas"]).or_else(|| value(["-x", "--exec"]))?;
            Some(std::iter::once(started).chain(behind_dashes()).collect())
        }
        "dlv" => {
            let at = words.iter().position(|word| word == "exec")?;
            let program = words[at + 1..].iter().find(|word| !word.starts_with('-'))?;
            Some(std::iter::once(program.clone()).chain(behind_dashes()).collect())
        }
        "tmux" => {
            let at = words.iter().position(|word| matches!(word.as_str(), "new" | "new-session"))?;
            let inner = behind_options(&words[at + 1..], &["-s", "-n", "-c", "-x", "-y", "-t", "-F", "-e"]);
            match inner.as_slice() {
                [] => None,
                [line] => Some(text(line)),
                _ => Some(inner),
            }
        }
        "eval" if !words.is_empty() => Some(text(&words.join(" "))),
        _ => None,
    }
}

fn behind_options(words: &[String], with_value: &[&str]) -> Vec<String> {
    let mut at = 0;
    while let Some(option) = words.get(at).filter(|word| word.starts_with('-')) {
        at += 1 + usize::from(has_value(option, with_value));
    }
    words.get(at..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::{settled, tokens, without_redirections};
    use super::*;

    #[test]
    fn a_command_is_found_behind_its_wrappers_and_redirections() {
        for line in [
            "orderer start",
            "exec orderer start >>/var/log/o.log 2>&1",
            "orderer start &>o.log",
            "orderer start 2> o.log </dev/null",
            "orderer>o.log start",
            "A=b nohup setsid orderer start",
            "/usr/bin/env -u X A=b orderer start",
            "sudo -E -iu fabric -- orderer start",
            "screen -dmS o1 orderer start",
            "screen -d -m -S o1 orderer start",
            "start-stop-daemon --start --background --exec orderer -- start",
            "start-stop-daemon -S -b --exec=orderer -- start",
            "taskset -c 0,1 orderer start",
            "nice -n5 ionice -c2 -n 7 taskset 0x1 orderer start",
            "nice -n 5 chrt -f 1 orderer start",
            "timeout -k 5 10 orderer start",
            "gosu fabric orderer start",
            "runuser -u fabric -- orderer start",
            "dlv exec orderer --headless --listen=:2345 -- start",
            "tmux new-session -d -s o1 orderer start",
            "systemd-run --unit o1 -p A=b orderer start",
        ] {
            let words: Vec<String> = without_redirections(&tokens(line)).iter().map(|word| settled(word)).collect();
            assert_eq!(unwrapped(words, |_, _| ()), ["orderer", "start"], "{line}");
        }
        for line in [
            "su fabric -c 'orderer start'",
            "su - fabric -s /bin/sh -c 'orderer start'",
            "runuser -l fabric -c 'orderer start'",
            "su --command='orderer start' fabric",
            "tmux new -d 'orderer start'",
            "eval 'orderer start'",
        ] {
            assert_eq!(unwrapped(tokens(line), |_, _| ()), ["sh", "-c", "orderer start"], "{line}");
        }
        let mut set = Vec::new();
        let assign = |name: &str, value: &str| set.push((name.to_owned(), value.to_owned()));
        assert_eq!(unwrapped(tokens("env A=b C=d peer node start"), assign), ["peer", "node", "start"]);
        assert_eq!(set, [("A".to_owned(), "b".to_owned()), ("C".to_owned(), "d".to_owned())]);
        for line in ["echo orderer", "su fabric", "screen -r o1", "tmux attach", "systemctl start orderer"] {
            assert_ne!(unwrapped(tokens(line), |_, _| ()).first().map(String::as_str), Some("orderer"), "{line}");
        }
    }
}
