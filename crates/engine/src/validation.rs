//! Selects the configuration against which a block's signatures are checked.

use std::collections::BTreeMap;

use fabkeep_ledger::block::{BlockSpan, Slots};
use fabkeep_ledger::block_signature::{SignatureChecker, SignatureError, check_filter, check_genesis};
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
    /// Checks what the orderers (and, of a `peer`'s block, the peer) wrote about a block. Returns whether the signatures were checked: a
    /// chain that begins after a snapshot has no configuration to check them against, until a configuration block follows.
    pub fn check(&self, buffer: &[u8], span: &BlockSpan, slots: Slots<'_>, peer: bool) -> Result<bool, SignatureError> {
        if peer {
            check_filter(slots, span.envelope_count)?;
        }
        if span.number == 0 {
            return check_genesis(slots).map(|()| true);
        }
        match self.of(span.number) {
            Some(rules) => self.checker.check(&span.header_bytes(buffer), slots, rules).map(|()| true),
            None => Ok(false),
        }
    }

    /// Returns the configuration in force before block `number`.
    fn of(&self, number: u64) -> Option<&BlockValidation> {
        let changed = self.changes.range(..number).next_back().map(|(_, config)| config);
        changed.or(self.before).map(|config| &config.validation)
    }
}
