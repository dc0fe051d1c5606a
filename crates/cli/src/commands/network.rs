//! The network that a command is about: on a cluster, in an inventory, or below a directory.

use fabkeep_platform::{Host, Platform, PlatformError, discover};

use crate::arguments::Where;
use crate::error::CliError;
use crate::output::Output;

/// Prints what was remarked on a network that was discovered for this run. A backup's recovery point contains it.
pub fn print_remarks(place: &Where, platform: &dyn Platform, output: &Output) {
    if place.root.is_some() {
        output.findings(platform.findings());
    }
}

/// Opens the platform that the arguments name.
pub fn open(place: &Where) -> Result<Box<dyn Platform>, CliError> {
    if place.cluster.is_meant() {
        return Ok(Box::new(place.cluster.open()?));
    }
    Ok(Box::new(open_host(place)?))
}

/// Opens the network on hosts that the arguments name.
pub fn open_host(place: &Where) -> Result<Host, PlatformError> {
    let Some(root) = &place.root else { return Host::open(&place.inventory) };
    let wrong = |source| PlatformError::Io { path: root.display().to_string(), source };
    let base = std::path::absolute(root).map_err(wrong)?;
    let found = discover(&base, &base)?;
    Host::discovered(&found, &base)
}
