//! Remarks of discovery: what could not be settled, and what a person should look at.

use fabkeep_network::Remedy;

/// What a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What could not be settled.
    pub what: String,
    /// What to do, where it is not said by what was found.
    pub remedy: Option<Remedy>,
}

impl From<String> for Remark {
    fn from(what: String) -> Remark {
        Remark { what, remedy: None }
    }
}

/// The remarks of one discovery.
#[derive(Debug, Default, Clone)]
pub(super) struct Remarks(Vec<Remark>);

impl Remarks {
    /// Adds a remark.
    pub fn push(&mut self, remark: impl Into<Remark>) {
        let remark = remark.into();
        if !self.0.contains(&remark) {
            self.0.push(remark);
        }
    }

    /// Returns each remark once, in the order in which they were added.
    pub fn finish(self) -> Vec<Remark> {
        self.0
    }
}

impl Extend<String> for Remarks {
    fn extend<T: IntoIterator<Item = String>>(&mut self, texts: T) {
        texts.into_iter().for_each(|text| self.push(text));
    }
}
