//! The log on standard error: steps, retries and requests, for diagnosis.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::Format;

/// Where it may be asked for instead: a level, or what `tracing` reads (`fabkeep_store=trace`).
const VARIABLE: &str = "FABKEEP_LOG";
/// What logs. Libraries are heard only when they are named: they do not keep secrets to themselves.
const OWN: [&str; 4] = ["fabkeep", "fabkeep_engine", "fabkeep_platform", "fabkeep_store"];

/// Starts it at the level that is asked for.
pub fn start(verbose: u8, format: Format) {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let level = match verbose {
        0 => asked.parse().unwrap_or(LevelFilter::OFF),
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = if verbose == 0 && asked.contains('=') {
        EnvFilter::new(asked)
    } else {
        EnvFilter::new(OWN.map(|name| format!("{name}={level}")).join(","))
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => log.init(),
        Format::Json => log.json().init(),
    }
}
