//! fabkeep's repository: write-once objects, compressed with zstd and encrypted with age, in a folder or an object store.
//!
//! - A *blob* is a run of bytes, named by its keyed BLAKE3 hash. An *object* contains one or more blobs, sealed.
//! - A *recovery point* is a sealed manifest that names every blob it needs, and a signed commit record, which is written
//!   last and only if no object has its name. Without a commit record there is no recovery point.
//! - A *writer* holds the recipients (public keys), a signing key and the naming key: it can add recovery points and not read them. Reading
//!   needs the *identity*. `docs/format.md` describes every byte.
//!
//! This crate does not depend on Fabric: the body of a manifest is whatever the caller serializes.
#![deny(missing_docs)]

mod backend;
mod blob;
mod chance;
mod check;
mod clock;
mod commit;
mod config;
mod copy;
mod drills;
mod error;
mod faults;
mod forgotten;
mod history;
mod index;
mod json;
mod keys;
mod location;
mod marks;
mod memory;
mod moved;
mod pack;
mod places;
mod prune;
mod pruning;
mod reach;
mod reader;
mod remark;
mod repack;
mod repository;
mod retention;
mod revoked;
mod seal;
mod signed;
mod sources;
mod statement;
mod stats;
mod trial;
mod trust;
mod writer;

pub use blob::{BlobHasher, BlobId, NameKey};
pub use chance::Chance;
pub use check::{ObjectFault, ObjectsChecked, check_objects};
pub use clock::Clock;
pub use commit::{ChannelHeight, Commit, PointId, PointSummary, Previous};
pub use config::{FORMAT, RepositoryConfig};
pub use copy::{Copied, copy, copy_in};
pub use drills::{Drill, DrillResult, DrillStage, RecordedDrill};
pub use error::StoreError;
pub use faults::BadObject;
pub use history::History;
pub use index::{ObjectEntry, Sources};
pub use keys::{IdentityFile, Passphrase, WriterKey, default_key_folder};
pub use marks::{Mark, MarkChange, Marks};
pub use prune::{Amount, Blocking, PruneOptions, Pruned, Refused};
pub use reader::{BlobBytes, PointReader};
pub use remark::{Remark, RemarkKind};
pub use repack::Repacked;
pub use repository::{Initialized, Repository};
pub use retention::{ForgetPlan, KeepRules, Planned, Reason};
pub use revoked::{RevokedWriter, WriterState};
pub use statement::{Statement, open_statement};
pub use stats::{Needed, PointStats, Stats};
pub use trial::WriteTried;
pub use trust::Signer;
pub use writer::{PointWriter, WriteStats};

/// Longest object accepted, in bytes, sealed or open.
pub const MAX_OBJECT_BYTES: u64 = 512 << 20;
