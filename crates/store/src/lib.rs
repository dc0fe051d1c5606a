//! fabkeep's repository: write-once objects, each zstd inside age, in a folder or an object store.
//!
//! - A *blob* is a run of bytes, named by its keyed BLAKE3 hash. An *object* holds one blob or many, sealed.
//! - A *recovery point* is a sealed manifest that names every blob it needs, and a signed commit record, put last and only if
//!   nothing has its name. What has no commit record is not a recovery point.
//! - A *writer* holds the recipients (public keys), a signing key and the naming key: it can add and not read. Reading needs the
//!   *identity*. `docs/format.md` describes every byte.
//!
//! This crate knows nothing of Fabric: a manifest's body is whatever the caller serializes.
#![deny(missing_docs)]

mod backend;
mod blob;
mod check;
mod commit;
mod config;
mod copy;
mod error;
mod faults;
mod history;
mod index;
mod json;
mod keys;
mod location;
mod memory;
mod pack;
mod places;
mod reader;
mod remark;
mod repository;
mod seal;
mod signed;
mod sources;
mod trust;
mod writer;

pub use blob::{BlobHasher, BlobId, NameKey};
pub use check::{ObjectFault, ObjectsChecked, check_objects};
pub use commit::{ChannelHeight, Commit, PointId, PointSummary, Previous};
pub use config::{FORMAT, RepositoryConfig};
pub use copy::{Copied, copy};
pub use error::StoreError;
pub use faults::BadObject;
pub use history::History;
pub use index::{ObjectEntry, Sources};
pub use keys::{IdentityFile, WriterKey, default_key_folder};
pub use reader::{BlobBytes, PointReader};
pub use remark::{Remark, RemarkKind};
pub use repository::{Initialized, Repository};
pub use trust::Signer;
pub use writer::{PointWriter, WriteStats};

/// Longest object accepted, in bytes, sealed or open.
pub const MAX_OBJECT_BYTES: u64 = 512 << 20;
