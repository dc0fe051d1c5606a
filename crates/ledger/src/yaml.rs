//! YAML as Fabric's nodes read it.

use serde_norway::Value;

/// Longest configuration file that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Reads a configuration file.
///
/// # Errors
/// Where it is not YAML, never its text: that may hold a password.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format!("it is longer than {MAX_CONFIG_BYTES} bytes"));
    }
    read_yaml(bytes).map_err(|error| {
        error.location().map_or_else(|| "it is no YAML".to_owned(), |at| format!("line {}", at.line()))
    })
}

/// Reads YAML as Fabric's own reader does: a section that stands twice at the top counts as it stands last, and `<<` brings in another one.
///
/// # Errors
/// What the YAML reader says of the text as it is.
pub(crate) fn read_yaml(bytes: &[u8]) -> Result<Value, serde_norway::Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let read: Result<Value, _> = serde_norway::from_slice(bytes);
    let mut yaml = read.or_else(|error| match without_repeated_sections(bytes) {
        Some(text) => serde_norway::from_str(&text).map_err(|_| error),
        None => Err(error),
    })?;
    yaml.apply_merge()?;
    Ok(yaml)
}

/// Returns the text without the sections that a later one of the same name replaces; `None` if no name exists twice.
fn without_repeated_sections(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut sections: Vec<(Option<&str>, Vec<&str>)> = vec![(None, Vec::new())];
    for line in text.lines() {
        let name = line.split_once(':').map(|(name, _)| name).filter(|name| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '"') && !name.contains(' ')
        });
        if name.is_some() {
            sections.push((name, Vec::new()));
        }
        if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    let replaced = |at: usize| {
        let (name, _) = &sections[at];
        name.is_some() && sections[at + 1..].iter().any(|(later, _)| later == name)
    };
    if !(0..sections.len()).any(replaced) {
        return None;
    }
    let kept = (0..sections.len()).filter(|at| !replaced(*at)).flat_map(|at| sections[at].1.iter().copied());
    Some(kept.collect::<Vec<_>>().join("\n"))
}
