//! Which configuration a block's signatures are checked against.

use std::collections::BTreeMap;

use fabkeep_ledger::block_signature::SignatureChecker;
use fabkeep_ledger::channel_config::{BlockValidation, ChannelConfig};

/// What signatures are checked against in a run of blocks.
pub(crate) struct Validation<'a> {
    /// The configuration in force before the run.
    pub before: Option<&'a ChannelConfig>,
    /// Configuration blocks in the run.
    pub changes: &'a BTreeMap<u64, ChannelConfig>,
    pub checker: &'a SignatureChecker,
}

impl Validation<'_> {
    /// The configuration in force before block `number`.
    pub fn of(&self, number: u64) -> Option<&BlockValidation> {
        let changed = self.changes.range(..number).next_back().map(|(_, config)| config);
        changed.or(self.before).map(|config| &config.validation)
    }
}
