//! The network that a command is about: on a cluster, in an inventory, or below a directory.

use fabkeep_platform::{Host, Platform, discover};

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
    let Some(root) = &place.root else { return Ok(Box::new(Host::open(&place.inventory)?)) };
    let base = std::path::absolute(root).map_err(CliError::io(root))?;
    let found = discover(&base, &base)?;
    Ok(Box::new(Host::discovered(&found, &base)?))
}
