//! Shells in containers: POSIX sh and the few tools that busybox and GNU coreutils share. A shell stays open between commands, because
//! starting a process in a container costs its node far more than a command in a shell that runs.
//!
//! A shell says `ready`, then takes commands, a line each. To each it says `go`, then what the command writes, and `fine`. A command that
//! fails ends the shell with its exit code. Every command's output tells by itself where it ends.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Connection;
use super::exec::{Exec, Place, exit_code};

/// The tools that the commands need.
const TOOLS: &str = "find stat readlink head tail dd tr wc sha256sum";

/// A shell that rested longer is not trusted: what stands between may have forgotten its stream.
const MAX_REST: Duration = Duration::from_secs(30);
/// How long a shell that rested may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest line of an answer.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// What a shell runs.
///
/// `part FILE OFFSET LENGTH` writes a range of a file, in blocks as large as they get: small writes make small frames, which cost most.
///
/// `list ROOT START EXPRESSION…` tells everything below START in ROOT that `find` does not leave out by EXPRESSION: a line for each entry,
/// a line `links`, two lines for each symbolic link, a line `end`; or a line `missing`.
///
/// `range FILE OFFSET LENGTH END` writes a range, then a line with its SHA-256, or, where END is `proven`, a line that says so. Reading
/// twice costs less than a copy through two more pipes.
///
/// `many ROOT` reads lines `p PATH` (as it is) or `z PATH` (without the zeros at its end, as files have that are made longer than what is in
/// them) up to a line `.`. For each it writes a line: the length, or `-` when it is not there, `!` when it may not be read; then the bytes
/// and a line with their SHA-256. Behind `z` two numbers: its length, and how many bytes come; the others are zeros.
const SHELL: &str = r#"for tool in $1; do command -v $tool >/dev/null || exit 126; done
[ -e /proc/self/fd/0 ] || exit 126
export TZ=UTC LC_ALL=C
B=1048576
piece() { dd if="$1" bs=$B skip=$(($2 / B)) count=1 2>/dev/null | tail -c +$(($2 % B + 1)) | head -c "$3"; }
part() {
  e=$(($2 + $3)); a=$((($2 + B - 1) / B * B)); z=$((e / B * B))
  [ $z -lt $a ] && { piece "$1" $2 $3; return 0; }
  [ $a -gt $2 ] && piece "$1" $2 $((a - $2))
  [ $z -gt $a ] && dd if="$1" bs=$B skip=$((a / B)) count=$(((z - a) / B)) 2>/dev/null
  [ $e -gt $z ] && piece "$1" $z $((e - z))
  return 0
}
list() (
  root=$1; start=$2; shift 2
  [ -e "$root" ] || { echo missing; exit 0; }
  cd "$root" || exit 13
  { errors=$( { find "$start" "$@" -exec stat -c '%f %u %g %s %i %y|%z|%n' {} + >&3; } 2>&1 ); } 3>&1
  case $errors in *ermission\ denied*) printf '%s\n' "$errors" >&2; exit 13 ;; esac
  echo links
  find "$start" "$@" -type l -print 2>/dev/null | while IFS= read -r l; do printf '%s\n' "$l"; readlink "$l"; done
  echo end
)
range() (
  [ -r "$1" ] || { [ -e "$1" ] && exit 13; exit 2; }
  [ "$(stat -c %s "$1")" -ge $(($2 + $3)) ] || exit 14
  part "$1" $2 $3
  if [ "$4" = proven ]; then echo proven; else part "$1" $2 $3 | sha256sum; fi
)
many() (
  cd "$1" || exit 2
  while IFS= read -r line && [ "$line" != . ]; do
    f=${line#??}
    if [ ! -e "$f" ]; then echo -; continue; fi
    if [ ! -r "$f" ]; then echo '!'; continue; fi
    n=$(stat -c %s "$f" 2>/dev/null) || { echo -; continue; }
    case $line in
      z*)
        # Halving finds where its zeros begin; what is written there meanwhile comes with the next copy.
        lo=0; hi=$(((n + 65535) / 65536))
        while [ $((hi - lo)) -gt 1 ]; do
          mid=$(((lo + hi) / 2))
          if [ "$(dd if="$f" bs=65536 skip=$mid count=$((hi - mid)) 2>/dev/null | tr -d '\000' | wc -c)" -eq 0 ]; then hi=$mid; else lo=$mid; fi
        done
        hi=$((hi * 65536)); [ $hi -gt $n ] && hi=$n
        echo "z$n $hi"; part "$f" 0 $hi; part "$f" 0 $hi | sha256sum; continue ;;
    esac
    echo "$n"
    if [ "$n" -le 65536 ]; then
      head -c "$n" < "$f"; head -c "$n" < "$f" | sha256sum
    else
      part "$f" 0 "$n"; part "$f" 0 "$n" | sha256sum
    fi
  done
)
echo ready
while IFS= read -r command; do echo go; eval "$command" || exit $?; echo fine; done"#;

/// Shells that rest, by container.
#[derive(Default)]
pub(crate) struct Shells(Mutex<HashMap<Place, Vec<(Shell, Instant)>>>);

/// A shell in a container, running a command: what is read is what the command writes.
pub(crate) struct Shell {
    place: Place,
    stream: BufReader<Exec>,
}

/// Lists everything below `path` in `root`.
pub(crate) fn list(root: &str, path: &str, excluded: &[String]) -> String {
    let start = if path.is_empty() { ".".to_owned() } else { format!("./{path}") };
    // What a restore set aside is not the node's any more.
    let patterns = excluded.iter().map(|path| pattern(&format!("./{path}"))).chain([quote("./.before-*")]);
    let left_out: String = patterns.map(|pattern| format!(" -path {pattern} -prune -o")).collect();
    format!("list {} {}{left_out}", quote(root), quote(&start))
}

/// A range of a file.
pub(crate) fn range(path: &str, from: u64, len: u64, proven: bool) -> String {
    format!("range {} {from} {len} {}", quote(path), if proven { "proven" } else { "hash" })
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

/// Whether a container lacks the shell or a tool, rather than the stream having failed.
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
    /// Whether a container has the shell and the tools.
    pub fn has_tools(&self, place: &Place) -> io::Result<bool> {
        match self.open_shell(place) {
            Ok(shell) => {
                self.shells.put(shell);
                Ok(true)
            }
            Err(error) if has_no_tools(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has a command run in a shell of a container: one that rests, or a new one.
    pub fn command(&self, place: &Place, command: &str) -> io::Result<Shell> {
        if command.contains('\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name with a line break"));
        }
        while let Some(mut shell) = self.shells.take(place) {
            if shell.begin(command, Some(ANSWER)).is_ok() {
                return Ok(shell);
            }
        }
        let mut shell = self.open_shell(place)?;
        shell.begin(command, None)?;
        Ok(shell)
    }

    fn open_shell(&self, place: &Place) -> io::Result<Shell> {
        let exec = self.exec(place, SHELL, &[TOOLS], true)?;
        let mut shell = Shell { place: place.clone(), stream: BufReader::with_capacity(BUFFER_BYTES, exec) };
        match shell.line() {
            Ok(line) if line == "ready" => Ok(shell),
            Ok(_) => Err(io::Error::other("the shell did not say that it is ready")),
            Err(error) => Err(shell.stream.into_inner().finish().err().unwrap_or(error)),
        }
    }
}

impl Shells {
    fn take(&self, place: &Place) -> Option<Shell> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = all.get_mut(place)?;
        resting.retain(|(_, since)| since.elapsed() < MAX_REST);
        resting.pop().map(|(shell, _)| shell)
    }

    fn put(&self, shell: Shell) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(shell.place.clone()).or_default().push((shell, Instant::now()));
    }

    /// Ends all that rest.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shell {
    fn begin(&mut self, command: &str, within: Option<Duration>) -> io::Result<()> {
        self.write(format!("{command}\n").as_bytes())?;
        self.stream.get_mut().give_up_after(within);
        let answer = self.line();
        self.stream.get_mut().give_up_after(None);
        if answer? == "go" { Ok(()) } else { Err(io::Error::other("the stream is out of step")) }
    }

    /// Writes to the command.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write(bytes)
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> io::Result<String> {
        line(&mut self.stream)
    }

    /// The command is done, and all that it wrote was read: the shell rests.
    pub fn done(mut self, connection: &Connection) -> io::Result<()> {
        match self.line() {
            Ok(line) if line == "fine" => {
                connection.shells.put(self);
                Ok(())
            }
            Ok(_) => Err(io::Error::other("the stream is out of step")),
            Err(error) => Err(self.end().err().unwrap_or(error)),
        }
    }

    /// The command ended before its output did: why, by its exit code, where the stream did not break.
    pub fn end(self) -> io::Result<()> {
        self.stream.into_inner().finish().map_err(|error| match exit_code(&error) {
            Some(2) => io::ErrorKind::NotFound.into(),
            Some(13) => {
                let text = error.to_string();
                let told = text.lines().find(|line| line.contains("ermission denied"));
                io::Error::new(io::ErrorKind::PermissionDenied, told.unwrap_or("permission denied").to_owned())
            }
            Some(14) => io::Error::new(io::ErrorKind::FileTooLarge, "it is shorter than it was when it was listed"),
            _ => error,
        })
    }
}

impl Read for Shell {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl BufRead for Shell {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.stream.consume(amount);
    }
}

/// A line of an answer, without its end.
pub(crate) fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(MAX_LINE_BYTES).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a line")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::*;

    struct Local {
        child: Child,
        out: BufReader<ChildStdout>,
    }

    impl Local {
        /// A shell of this machine; `None` where it has not got it.
        fn start(shell: &[&str], tools: &str) -> Option<Local> {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", SHELL, "fabkeep", tools]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().ok()?;
            let out = BufReader::new(child.stdout.take().unwrap());
            Some(Local { child, out })
        }

        fn line(&mut self) -> String {
            line(&mut self.out).unwrap()
        }

        fn run(&mut self, command: &str, input: &str) {
            let stdin = self.child.stdin.as_mut().unwrap();
            stdin.write_all(format!("{command}\n{input}").as_bytes()).unwrap();
            assert_eq!(self.line(), "go");
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.out.read_exact(&mut bytes).unwrap();
            bytes
        }

        fn code(mut self) -> Option<i32> {
            self.out.read_to_end(&mut Vec::new()).unwrap();
            self.child.wait().unwrap().code()
        }
    }

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    /// As in containers: Alpine's and busybox's, Debian's and Ubuntu's, Red Hat's.
    const SHELLS: [&[&str]; 4] = [&["sh"], &["dash"], &["bash"], &["busybox", "sh"]];

    #[test]
    fn every_usual_shell_runs_the_commands_alike() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("it's a root");
        let root_text = root.to_str().unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut padded = large[..100_000].to_vec();
        padded.resize(4 << 20, 0);
        std::fs::create_dir_all(root.join("d d")).unwrap();
        std::fs::create_dir_all(root.join("left*out")).unwrap();
        std::fs::create_dir_all(root.join(".before-x")).unwrap();
        std::fs::write(root.join("large"), &large).unwrap();
        std::fs::write(root.join("padded"), &padded).unwrap();
        std::fs::write(root.join("d d/it's"), "hello").unwrap();
        std::os::unix::fs::symlink("large", root.join("link")).unwrap();
        let mut seen = 0;
        for shell in SHELLS {
            let Some(mut local) = Local::start(shell, TOOLS) else { continue };
            seen += 1;
            assert_eq!(local.line(), "ready", "{shell:?}");
            local.run(&list(root_text, "", &["left*out".to_owned()]), "");
            let mut listed: Vec<String> =
                std::iter::from_fn(|| Some(local.line())).take_while(|l| l != "end").collect();
            let links = listed.split_off(listed.iter().position(|line| line == "links").unwrap());
            assert_eq!(links[1..], ["./link", "large"], "{shell:?}");
            let mut names: Vec<&str> = listed.iter().map(|line| line.rsplit('|').next().unwrap()).collect();
            names.sort_unstable();
            assert_eq!(names, [".", "./d d", "./d d/it's", "./large", "./link", "./padded"], "{shell:?}");
            assert_eq!(local.line(), "fine");
            let file = root.join("large");
            for (from, len) in [(0, 3_000_000), (100, 2_500_000), (1_048_570, 10), (5, 10), (2_999_999, 1)] {
                local.run(&range(file.to_str().unwrap(), from, len, false), "");
                let expected = &large[from as usize..(from + len) as usize];
                assert!(local.bytes(len as usize) == expected, "{shell:?} {from} {len}");
                assert_eq!(local.line().split(' ').next(), Some(sha256(expected).as_str()));
                assert_eq!(local.line(), "fine");
            }
            local.run(&range(file.to_str().unwrap(), 7, 9, true), "");
            assert_eq!(
                (local.bytes(9), local.line(), local.line()),
                (large[7..16].to_vec(), "proven".into(), "fine".into())
            );
            local.run(&many(root_text), "p d d/it's\nz padded\np gone\n.\n");
            assert_eq!((local.line().as_str(), local.bytes(5).as_slice()), ("5", b"hello".as_slice()));
            assert!(local.line().starts_with(&sha256(b"hello")));
            // Zeros do not travel; what is before them does.
            assert_eq!(local.line(), format!("z{} 131072", padded.len()), "{shell:?}");
            assert!(local.bytes(131_072) == padded[..131_072]);
            assert!(local.line().starts_with(&sha256(&padded[..131_072])));
            assert_eq!((local.line().as_str(), local.line().as_str()), ("-", "fine"));
            local.run(&list(&format!("{root_text}/none"), "", &[]), "");
            assert_eq!((local.line().as_str(), local.line().as_str()), ("missing", "fine"));
            // Shorter than it was: the shell ends, and says why by its code.
            local.run(&range(file.to_str().unwrap(), 0, 3_000_001, true), "");
            assert_eq!(local.code(), Some(14), "{shell:?}");
            let mut local = Local::start(shell, TOOLS).unwrap();
            local.line();
            local.run(&range("/none", 0, 1, true), "");
            assert_eq!(local.code(), Some(2), "{shell:?}");
            // Without a tool there is no shell; without anybody who asks it ends.
            assert_eq!(Local::start(shell, "stat no-such-tool").unwrap().code(), Some(126), "{shell:?}");
            let mut local = Local::start(shell, TOOLS).unwrap();
            drop(local.child.stdin.take());
            assert_eq!(local.code(), Some(0), "{shell:?}");
        }
        assert!(seen > 0);
    }
}
