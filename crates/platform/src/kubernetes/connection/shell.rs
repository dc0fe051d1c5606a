//! What is run in containers: POSIX sh and the few tools that busybox and GNU coreutils share.

/// The tools that the scripts need.
pub(crate) const TOOLS: &str = "find stat head tail sha256sum dd cat tar tr wc mkdir mv rm touch truncate chmod chown";

/// Exits with 0 when every tool is there.
pub(crate) const PROBE: &str =
    "for tool in $1; do command -v $tool >/dev/null || { echo $tool; exit 1; }; done; [ -e /proc/self/fd/0 ]";

/// `part FILE OFFSET LENGTH`: a range of a file, in blocks as large as they get: small writes make small frames, which cost most.
const PART: &str = r#"B=1048576
piece() { dd if="$1" bs=$B skip=$(($2 / B)) count=1 2>/dev/null | tail -c +$(($2 % B + 1)) | head -c "$3"; }
part() {
  e=$(($2 + $3)); a=$((($2 + B - 1) / B * B)); z=$((e / B * B))
  [ $z -lt $a ] && { piece "$1" $2 $3; return 0; }
  [ $a -gt $2 ] && piece "$1" $2 $((a - $2))
  [ $z -gt $a ] && dd if="$1" bs=$B skip=$((a / B)) count=$(((z - a) / B)) 2>/dev/null
  [ $e -gt $z ] && piece "$1" $z $((e - z))
  return 0
}
"#;

/// A range of a file: its bytes, then a line with their SHA-256, or, where `$4` is `proven`, a line that ends them. Reading twice costs less
/// than a copy through two more pipes.
pub(crate) fn read() -> String {
    format!(
        r#"f=$1; off=$2; len=$3
{PART}
[ -r "$f" ] || {{ [ -e "$f" ] && exit 13; exit 2; }}
[ "$(stat -c %s "$f")" -ge $((off + len)) ] || exit 14
part "$f" $off $len
if [ "$4" = proven ]; then echo proven; else part "$f" $off $len | sha256sum; fi"#
    )
}

/// Many files, named by lines `p PATH` (as they are) or `z PATH` (without the zeros at its end, as files have that are made longer than
/// what is in them). For each a line: its length, or `-` when it is not there, `!` when it may not be read; then its bytes and a line
/// with their SHA-256. Behind `z` two numbers: its length, and how many bytes come; the others are zeros.
pub(crate) fn read_many() -> String {
    format!(
        r#"cd "$2" || exit 2
{PART}
head -c "$1" | while IFS= read -r line; do
  f=${{line#??}}
  if [ ! -e "$f" ]; then echo -; continue; fi
  if [ ! -r "$f" ]; then echo '!'; continue; fi
  n=$(stat -c %s "$f" 2>/dev/null) || {{ echo -; continue; }}
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
done"#
    )
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

/// Lists everything below `path` in `root`: a line for each entry, a line `links`, two lines for each symbolic link, a line `end`.
pub(crate) fn list(root: &str, path: &str, excluded: &[String]) -> String {
    let start = if path.is_empty() { ".".to_owned() } else { format!("./{path}") };
    let prune: String =
        excluded.iter().map(|path| format!("-path {} -prune -o ", pattern(&format!("./{path}")))).collect();
    // What a restore set aside is not the node's any more.
    let prune = format!("{prune}-path './.before-*' -prune -o ");
    let start = quote(&start);
    let root = quote(root);
    // The root may be a link, as mounted Secrets' files are; below it links are kept as links.
    format!(
        r#"export TZ=UTC LC_ALL=C
[ -e {root} ] || {{ echo missing; exit 0; }}
cd {root} || exit 13
find {start} {prune}-exec stat -c '%f %u %g %s %i %y|%z|%n' {{}} +
echo links
find {start} {prune}-type l -print | while IFS= read -r l; do printf '%s\n' "$l"; readlink "$l"; done
echo end"#
    )
}
