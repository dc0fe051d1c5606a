//! Shells in containers: POSIX sh and the few tools that BusyBox, toybox and GNU coreutils share. A shell stays open between commands,
//! because starting a process in a container is far more expensive than a command in a running shell.
//!
//! A shell writes `ready`, then takes commands, one per line. Its answer to a command consists of items and a final line `.`.
//! [`super::answer`] describes the items. A command that fails ends the shell with an exit code, and nothing more is written:
//! an error message is never mixed with the bytes of a file.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use super::Connection;
use super::answer::{Answer, END};
use super::exec::{ContainerRef, Exec, exit_code};
use crate::volume::{ASIDE, ASIDE_POINT};
use parking_lot::Mutex;

/// The tools that the commands need.
const TOOLS: &str = "find stat readlink head tail dd tr wc sha256sum";

/// A shell that was idle for longer is not used again: proxies in between may have dropped its stream.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// How long an idle shell may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Exit codes of the commands.
mod code {
    /// There is no such file.
    pub const MISSING: i32 = 2;
    /// The container's user may not read it.
    pub const DENIED: i32 = 13;
    /// The file is shorter than the range.
    pub const SHORT: i32 = 14;
    /// Reading failed in the middle.
    pub const READ: i32 = 15;
    /// The container lacks a tool.
    #[cfg(test)]
    pub const TOOLS: i32 = 126;
}

/// What a shell runs.
///
/// `part FILE OFFSET LENGTH` writes a range of a file, in blocks as large as they get: small writes make small frames, which cost most.
/// Blocks at the edges go through pipes, which hide that a read failed: when `pad` is set, they are filled up with zeros, so that the
/// length always holds; the hash is made without it and shows the difference. In the middle the failure of `dd` shows it.
///
/// `list ROOT START EXPRESSION…` describes everything below START in ROOT that `find` does not leave out by EXPRESSION: an item `now` with
/// the container's time, items `entries` with a line for each entry, items `links` with two lines for each symbolic link, items `odd` with
/// names that hold a line break (a `?` in its place), an item `errors` with what `find` and `stat` said; `-` when ROOT is missing.
///
/// `range FILE OFFSET LENGTH` writes a range as items `data`.
///
/// `many ROOT` reads lines `p PATH` (as it is) or `z PATH` (without the zeros at its end, as files have that are made longer than what is in
/// them) up to a line `.`. For each it writes `-` when it is not there, `!` when it may not be read, or `=LENGTH SENT`: its length and how
/// many bytes follow as items `data`; the others are zeros. Whatever else `stat` says of it ends the shell.
const SHELL: &str = r#"for tool in $1; do command -v $tool >/dev/null || exit 126; done
[ -e /proc/self/fd/0 ] || exit 126
export TZ=UTC LC_ALL=C LANGUAGE=
B=1048576
P=8388608
nl='
'
zeros() { if [ -n "$pad" ]; then dd if=/dev/zero bs=$B count=1 2>/dev/null; fi; }
edge() { { dd if="$1" bs=$B skip=$(($2 / B)) count=1 2>/dev/null | tail -c +$(($2 % B + 1)); zeros; } | head -c "$3"; }
part() {
  e=$(($2 + $3)); a=$((($2 + B - 1) / B * B)); z=$((e / B * B))
  [ $z -lt $a ] && { edge "$1" $2 $3; return 0; }
  [ $a -gt $2 ] && edge "$1" $2 $((a - $2))
  [ $z -gt $a ] && { dd if="$1" bs=$B skip=$((a / B)) count=$(((z - a) / B)) 2>/dev/null || return 15; }
  [ $e -gt $z ] && edge "$1" $z $((e - z))
  return 0
}
data() {
  at=$2; to=$(($2 + $3))
  while [ $at -lt $to ]; do
    next=$(((at / P + 1) * P)); [ $next -gt $to ] && next=$to
    echo "+data $((next - at))"
    pad=yes; part "$1" $at $((next - at)) || return 15
    pad=; part "$1" $at $((next - at)) | sha256sum
    at=$next
  done
}
SAY='say() { n=$(printf "%s" "$2" | wc -c); echo "+$1 $((n))"; printf "%s" "$2"; printf "%s" "$2" | sha256sum; }'
eval "$SAY"
STAT="$SAY"'
t=$(stat -c "%f %u %g %h %s %i %y|%z|%n" "$@" 2>/dev/null) || { t=; for f; do
  r=$(stat -c "%f %u %g %h %s %i %y|%z|%n" "$f" 2>&1) && t="$t$r
" || printf "%s\n" "$r" >&2
done; }
[ -z "$t" ] || say entries "$t"'
LINKS="$SAY"'
t=; for f; do r=$(readlink "$f") && t="$t$f
$r
"; done
[ -z "$t" ] || say links "$t"'
ODD="$SAY"'
t=$(for f; do printf "%s" "$f" | tr "\n" "?"; echo; done)
say odd "$t"'
list() (
  root=$1; start=$2; shift 2
  [ -e "$root" ] || { echo -; exit 0; }
  cd "$root" || exit 13
  say now "$(date +%s)"
  odd="*$nl*"
  { errors=$( {
    find "$start" "$@" -name "$odd" -prune -o -exec sh -c "$STAT" entries {} + >&3 || echo "find: exit code $?" >&2
    find "$start" "$@" -name "$odd" -prune -o -type l -exec sh -c "$LINKS" links {} + >&3
    find "$start" "$@" -name "$odd" -prune -exec sh -c "$ODD" odd {} + >&3
  } 2>&1 ); } 3>&1
  say errors "$errors"
)
range() (
  [ -r "$1" ] || { [ -e "$1" ] && exit 13; exit 2; }
  [ "$(stat -c %s "$1")" -ge $(($2 + $3)) ] || exit 14
  data "$1" $2 $3
)
many() (
  cd "$1" || exit 2
  while IFS= read -r line && [ "$line" != . ]; do
    f=./${line#??}
    n=$(stat -L -c %s "$f" 2>&1) || case $n in
      *': No such file or directory' | *': Not a directory') echo -; continue ;;
      *': Permission denied') echo '!'; continue ;;
      *) exit 15 ;;
    esac
    if [ ! -r "$f" ]; then echo '!'; continue; fi
    s=$n
    case $line in
      z*)
        # Halving finds where its zeros begin; what is written there meanwhile comes with the next copy. What cannot be read is no zero.
        lo=0; hi=$(((n + 65535) / 65536))
        while [ $((hi - lo)) -gt 1 ]; do
          mid=$(((lo + hi) / 2))
          if [ "$({ dd if="$f" bs=65536 skip=$mid count=$((hi - mid)) 2>/dev/null || echo x; } | tr -d '\000' | wc -c)" -eq 0 ]; then hi=$mid; else lo=$mid; fi
        done
        s=$((hi * 65536)); [ $s -gt $n ] && s=$n ;;
    esac
    echo "=$n $s"
    [ $s -eq 0 ] && continue
    if [ "$s" -le 65536 ]; then
      echo "+data $s"; head -c "$s" < "$f" || exit 15; head -c "$s" < "$f" | sha256sum
    else
      data "$f" 0 $s || exit 15
    fi
  done
)
echo ready
while IFS= read -r command; do eval "$command" || exit $?; echo .; done"#;

/// Idle shells, by container.
#[derive(Default)]
pub(crate) struct Shells(Mutex<HashMap<ContainerRef, Vec<(Shell, Instant)>>>);

/// A shell in a container that runs a command.
pub(crate) struct Shell {
    place: ContainerRef,
    answer: Answer<BufReader<Exec>>,
}

/// Lists everything below `path` in `root`.
pub(crate) fn list(root: &str, path: &str, excluded: &[String]) -> String {
    let start = if path.is_empty() { ".".to_owned() } else { format!("./{path}") };
    // What a restore set aside is not the node's any more.
    let patterns =
        excluded.iter().map(|path| pattern(&format!("./{path}"))).chain([quote(&format!("./{ASIDE}{ASIDE_POINT}"))]);
    let left_out: String = patterns.map(|pattern| format!(" -path {pattern} -prune -o")).collect();
    format!("list {} {}{left_out}", quote(root), quote(&start))
}

/// Returns a range of a file.
pub(crate) fn range(path: &str, from: u64, len: u64) -> String {
    format!("range {} {from} {len}", quote(path))
}

/// Many files: their lines follow.
pub(crate) fn many(root: &str) -> String {
    format!("many {}", quote(root))
}

/// Quotes a word for the shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes a path for `find -path`, which takes patterns.
fn pattern(path: &str) -> String {
    let mut out = String::new();
    for character in path.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    quote(&out)
}

/// Returns whether a container lacks the shell or a tool, rather than the stream having failed.
fn has_no_tools(error: &io::Error) -> bool {
    match exit_code(error) {
        // More is a signal's: the container ended.
        Some(code) => code < 128,
        None => {
            let text = error.to_string();
            ["executable file not found", "no such file or directory", "not found in $PATH", "permission denied"]
                .iter()
                .any(|sign| text.contains(sign))
        }
    }
}

impl Connection {
    /// Returns whether a container has the shell and the tools.
    pub fn has_tools(&self, place: &ContainerRef) -> io::Result<bool> {
        match self.open_shell(place) {
            Ok(shell) => {
                self.shells.put(shell);
                Ok(true)
            }
            Err(error) if has_no_tools(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the time in a container, in seconds since 1970.
    pub fn time_in(&self, place: &ContainerRef) -> io::Result<i64> {
        let mut shell = self.command(place, r#"say now "$(date +%s)""#)?;
        let told = shell.answer.bytes("now")?;
        shell.answer.end()?;
        self.shells.put(shell);
        let told = String::from_utf8_lossy(&told);
        told.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{told:?} is no time")))
    }

    /// Runs a command in a shell of a container: an idle one, or a new one.
    pub fn command(&self, place: &ContainerRef, command: &str) -> io::Result<Shell> {
        if command.contains('\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name with a line break"));
        }
        while let Some(mut shell) = self.shells.take(place) {
            // An empty command shows whether its stream still works.
            shell.limit_silence(Some(ANSWER));
            let alive = shell.write(b":\n").is_ok() && shell.answer.line().is_ok_and(|line| line == END);
            shell.limit_silence(None);
            if alive {
                shell.write(format!("{command}\n").as_bytes())?;
                return Ok(shell);
            }
        }
        let mut shell = self.open_shell(place)?;
        shell.write(format!("{command}\n").as_bytes())?;
        Ok(shell)
    }

    fn open_shell(&self, place: &ContainerRef) -> io::Result<Shell> {
        let exec = self.exec(place, SHELL, &[TOOLS], true)?;
        let mut shell =
            Shell { place: place.clone(), answer: Answer::new(BufReader::with_capacity(BUFFER_BYTES, exec)) };
        match shell.answer.line() {
            Ok(line) if line == "ready" => Ok(shell),
            Ok(_) => Err(io::Error::other("the shell did not write that it is ready")),
            Err(error) => Err(shell.stream().finish().err().unwrap_or(error)),
        }
    }
}

impl Shells {
    fn take(&self, place: &ContainerRef) -> Option<Shell> {
        let mut all = self.0.lock();
        let idle = all.get_mut(place)?;
        idle.retain(|(_, since)| since.elapsed() < MAX_IDLE);
        idle.pop().map(|(shell, _)| shell)
    }

    fn put(&self, shell: Shell) {
        let mut all = self.0.lock();
        all.entry(shell.place.clone()).or_default().push((shell, Instant::now()));
    }

    /// Ends all idle shells.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Shell {
    fn stream(self) -> Exec {
        self.answer.into_inner().into_inner()
    }

    fn limit_silence(&mut self, limit: Option<Duration>) {
        self.answer.get_mut().get_mut().give_up_after(limit);
    }

    /// Writes to the command.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answer.get_mut().get_mut().write(bytes)
    }

    /// Returns the command's answer, item by item.
    pub fn answer(&mut self) -> &mut Answer<BufReader<Exec>> {
        &mut self.answer
    }

    /// The command's answer was read to its end: the shell is kept for the next command.
    pub fn keep(self, connection: &Connection) {
        connection.shells.put(self);
    }

    /// Returns why the answer broke off: what the exit code says, where the shell ended by itself; else `error`.
    pub fn why(self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return error;
        }
        let place = self.place.clone();
        let Err(ended) = self.stream().finish() else { return error };
        match exit_code(&ended) {
            Some(code::MISSING) => io::ErrorKind::NotFound.into(),
            Some(code::DENIED) => {
                io::Error::new(io::ErrorKind::PermissionDenied, "the container's user may not read it")
            }
            Some(code::SHORT) => {
                io::Error::new(io::ErrorKind::FileTooLarge, "it is shorter than it was when it was listed")
            }
            Some(code::READ) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("{place}: reading failed in the middle of the file"))
            }
            _ => ended,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::path::Path;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::super::answer::Item;
    use super::*;

    struct Local {
        child: Child,
        answer: Answer<BufReader<ChildStdout>>,
    }

    impl Local {
        /// Returns a shell of this machine; `None` where it has not got it. `first`: a folder of tools that come before the machine's.
        fn start(shell: &[&str], tools: &str, first: Option<&Path>) -> Option<Local> {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", SHELL, "fabkeep", tools]);
            if let Some(first) = first {
                command.env("PATH", format!("{}:{}", first.display(), std::env::var("PATH").unwrap()));
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().ok()?;
            let answer = Answer::new(BufReader::new(child.stdout.take().unwrap()));
            Some(Local { child, answer })
        }

        fn run(&mut self, command: &str, input: &str) {
            let stdin = self.child.stdin.as_mut().unwrap();
            stdin.write_all(format!("{command}\n{input}").as_bytes()).unwrap();
        }

        fn text(&mut self, name: &str) -> String {
            String::from_utf8(self.answer.bytes(name).unwrap()).unwrap()
        }

        /// Items `data` until so many bytes came.
        fn data(&mut self, len: usize) -> Vec<u8> {
            let mut out = Vec::new();
            while out.len() < len {
                out.extend(self.answer.bytes("data").unwrap());
            }
            out
        }

        fn word(&mut self, word: &str) {
            assert_eq!(self.answer.next().unwrap(), Item::Word(word.to_owned()));
        }

        fn code(mut self) -> Option<i32> {
            self.answer.get_mut().read_to_end(&mut Vec::new()).unwrap();
            self.child.wait().unwrap().code()
        }
    }

    /// As in containers: Alpine's and BusyBox's, Debian's and Ubuntu's, Red Hat's.
    const SHELLS: [&[&str]; 4] = [&["sh"], &["dash"], &["bash"], &["busybox", "sh"]];

    fn tool(folder: &Path, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn every_usual_shell_runs_the_commands_alike() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("it's a root");
        let root_text = root.to_str().unwrap();
        let large: Vec<u8> = (0..9_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut padded = large[..100_000].to_vec();
        padded.resize(4 << 20, 0);
        std::fs::create_dir_all(root.join("d d")).unwrap();
        std::fs::create_dir_all(root.join("left*out")).unwrap();
        std::fs::create_dir_all(root.join(".before-20261130T184622581Z-4c4cf4/x")).unwrap();
        std::fs::create_dir_all(root.join(".before-x")).unwrap();
        std::fs::write(root.join("large"), &large).unwrap();
        std::fs::write(root.join("padded"), &padded).unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        std::fs::write(root.join("d d/it's"), "hello").unwrap();
        std::fs::write(root.join("d d/a\nb"), "odd").unwrap();
        std::os::unix::fs::symlink("large", root.join("link")).unwrap();
        let mut seen = 0;
        for shell in SHELLS {
            let Some(mut local) = Local::start(shell, TOOLS, None) else { continue };
            seen += 1;
            local.word("ready");
            local.run(&list(root_text, "", &["left*out".to_owned()]), "");
            assert!(local.text("now").parse::<u64>().is_ok(), "{shell:?}");
            let entries = local.text("entries");
            let mut names: Vec<&str> = entries.lines().map(|line| line.rsplit('|').next().unwrap()).collect();
            names.sort_unstable();
            assert_eq!(
                names,
                [".", "./.before-x", "./d d", "./d d/it's", "./empty", "./large", "./link", "./padded"],
                "{shell:?}"
            );
            assert_eq!(local.text("links"), "./link\nlarge\n", "{shell:?}");
            assert_eq!(local.text("odd").trim_end(), "./d d/a?b", "{shell:?}");
            assert_eq!(local.text("errors"), "", "{shell:?}");
            local.answer.end().unwrap();
            let file = root.join("large");
            for (from, len) in [(0, 9_000_000), (100, 8_500_000), (1_048_570, 10), (5, 10), (8_999_999, 1)] {
                local.run(&range(file.to_str().unwrap(), from, len), "");
                let expected = &large[from as usize..(from + len) as usize];
                assert!(local.data(len as usize) == expected, "{shell:?} {from} {len}");
                local.answer.end().unwrap();
            }
            local.run(&many(root_text), "p d d/it's\nz padded\np gone\np empty\n.\n");
            local.word("=5 5");
            assert_eq!(local.data(5), b"hello");
            // Zeros do not travel; what is before them does.
            local.word(&format!("={} 131072", padded.len()));
            assert!(local.data(131_072) == padded[..131_072], "{shell:?}");
            local.word("-");
            local.word("=0 0");
            local.answer.end().unwrap();
            local.run(&list(&format!("{root_text}/none"), "", &[]), "");
            local.word("-");
            local.answer.end().unwrap();
            // Shorter than it was: the shell ends with the reason as its exit code.
            local.run(&range(file.to_str().unwrap(), 0, 9_000_001), "");
            assert_eq!(local.code(), Some(code::SHORT), "{shell:?}");
            let mut local = Local::start(shell, TOOLS, None).unwrap();
            local.word("ready");
            local.run(&range("/none", 0, 1), "");
            assert_eq!(local.code(), Some(code::MISSING), "{shell:?}");
            // Without a tool there is no shell; without input it ends.
            assert_eq!(Local::start(shell, "stat no-such-tool", None).unwrap().code(), Some(code::TOOLS), "{shell:?}");
            let mut local = Local::start(shell, TOOLS, None).unwrap();
            drop(local.child.stdin.take());
            assert_eq!(local.code(), Some(0), "{shell:?}");
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_read_error_anywhere_in_a_file_hands_on_no_byte_of_its_piece() {
        let folder = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let file = folder.path().join("large");
        std::fs::write(&file, &large).unwrap();
        let (tools, state) = (folder.path().join("bin"), folder.path().join("count"));
        std::fs::create_dir(&tools).unwrap();
        // The call that fails writes half of what it read.
        let script = |failing: usize| {
            format!(
                "case \"$*\" in *large*) ;; *) exec /bin/dd \"$@\" ;; esac\nn=$(cat {0} 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {0}\n\
                 [ $n = {failing} ] && {{ /bin/dd \"$@\" 2>/dev/null | head -c 500000; exit 1; }}\nexec /bin/dd \"$@\"",
                state.display()
            )
        };
        for failing in 1..=4 {
            tool(&tools, "dd", &script(failing));
            let _ = std::fs::remove_file(&state);
            let mut local = Local::start(&["sh"], TOOLS, Some(&tools)).unwrap();
            local.word("ready");
            local.run(&range(file.to_str().unwrap(), 0, 3_000_000), "");
            drop(local.child.stdin.take());
            assert!(local.answer.bytes("data").is_err(), "call {failing}");
        }
        // The next reading is whole.
        let mut local = Local::start(&["sh"], TOOLS, Some(&tools)).unwrap();
        local.word("ready");
        local.run(&range(file.to_str().unwrap(), 0, 3_000_000), "");
        assert!(local.data(3_000_000) == large);
    }

    #[test]
    fn only_what_stat_calls_missing_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let tools = folder.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        std::fs::write(folder.path().join("-n"), "n").unwrap();
        std::fs::write(folder.path().join("bad"), "bad").unwrap();
        let stat =
            String::from_utf8(Command::new("sh").args(["-c", "command -v stat"]).output().unwrap().stdout).unwrap();
        for (message, said) in [
            ("No such file or directory", Ok("-")),
            ("Not a directory", Ok("-")),
            ("Permission denied", Ok("!")),
            ("Input/output error", Err(code::READ)),
            ("Stale file handle", Err(code::READ)),
        ] {
            let script = format!(
                "case \"$*\" in *bad*) echo \"stat: cannot statx '$4': {message}\" >&2; exit 1 ;; esac\nexec {} \"$@\"",
                stat.trim()
            );
            tool(&tools, "stat", &script);
            let mut local = Local::start(&["sh"], TOOLS, Some(&tools)).unwrap();
            local.word("ready");
            local.run(&many(folder.path().to_str().unwrap()), "p -n\np bad\n.\n");
            local.word("=1 1");
            assert_eq!(local.data(1), b"n");
            match said {
                Ok(word) => local.word(word),
                Err(code) => assert_eq!(local.code(), Some(code), "{message}"),
            }
        }
    }

    #[test]
    fn what_find_and_stat_complain_of_comes_apart_from_the_entries() {
        let folder = tempfile::tempdir().unwrap();
        let tools = folder.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("b"), "b").unwrap();
        let find =
            String::from_utf8(Command::new("sh").args(["-c", "command -v find"]).output().unwrap().stdout).unwrap();
        for message in ["find: './a': Input/output error", "find: ./a: I/O error", "find: „./a“: Keine Berechtigung"]
        {
            tool(&tools, "find", &format!("{} \"$@\"; echo \"{message}\" >&2; exit 1", find.trim()));
            let mut local = Local::start(&["sh"], TOOLS, Some(&tools)).unwrap();
            local.word("ready");
            local.run(&list(root.to_str().unwrap(), "", &[]), "");
            local.text("now");
            assert_eq!(local.text("entries").lines().count(), 3);
            assert!(local.text("errors").starts_with(message));
            local.answer.end().unwrap();
        }
    }
}
