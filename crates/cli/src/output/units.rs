//! Bytes, durations, dates and hashes in readable form.

pub use fabkeep_engine::units::bytes;
use fabkeep_engine::units::counted;

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

/// Seconds: `0.42 s`, `3 min 20 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.2} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// A span of time in whole seconds: `45 s`, `12 min`, `3 h 12 min`, `5 d 3 h`.
pub fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..100 => format!("{seconds} s"),
        100..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Returns a time that is written as RFC 3339, to the second: `2026-11-20 14:15:06 UTC`. Another text is returned as it is.
pub fn moment(text: &str) -> String {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| text.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Returns the day of a time in seconds since 1970: `2036-11-20`.
pub fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// Returns the beginning of a hash.
pub fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
