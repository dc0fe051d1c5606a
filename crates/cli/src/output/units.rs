//! Bytes, durations, dates and hashes in readable form.

/// Bytes: `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Files: `1 file`, `7 files`.
pub fn files(files: u64) -> String {
    counted(files, "file")
}

/// Objects: `1 object`, `7 objects`.
pub fn objects(objects: u64) -> String {
    counted(objects, "object")
}

/// Recovery points: `1 recovery point`, `7 recovery points`.
pub fn points(points: u64) -> String {
    counted(points, "recovery point")
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Seconds: `0.42 s`, `3 min 20 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.2} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// Returns the day of a time in seconds since 1970: `2036-11-20`.
pub fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// Returns the beginning of a hash.
pub fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
