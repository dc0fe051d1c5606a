//! The engine: capture, verification and restore, each as a plan of steps that can be printed, with findings and typed events.
//!
//! Data flows one way: platform → capture → split → store; and back: store → transform → replay → restore → platform.
#![deny(missing_docs)]

mod attest;
mod blocks;
mod bundle;
mod capture;
mod contained;
mod content;
mod doctor;
mod drill;
mod error;
mod event;
mod genesis;
mod kept;
mod located;
mod logs;
mod misuse;
mod names;
mod objects;
mod point;
mod replay;
mod report;
mod repository;
mod restore;
mod status;
mod transform;
pub mod units;
mod validation;
mod verify;
mod window;

pub use attest::{
    Agreement, AttestOptions, Attestation, AttestedChannel, AttestedConfiguration, AttestedFinding, AttestedPeer,
    BlockRange, ComparedChannel, ComparedCommits, ComparedNode, Comparison, MAX_ATTESTATION_BYTES, attestation,
    compare_attestation,
};
pub use blocks::{BlockSummary, blocks};
pub use bundle::{Bundle, BundleFile, BundleNetwork, REDACTED, Redactor, is_secret_name};
pub use capture::{
    CaptureOptions, CapturePlan, Captured, Consistency, PlannedCapture, PlannedNode, Volumes, capture, plan_capture,
};
pub use doctor::{
    Check, Diagnosis, DoctorNetwork, DoctorOptions, DoctorRepository, Effort, KeyFiles, Outcome, Seen, Topic, examine,
};
pub use drill::{DrillCluster, DrillOptions, DrillPlace, Drilled, clean_folder, drill, plan_drill};
pub use error::{Difference, Done, EngineError, Next};
pub use event::{Event, Notice, Reporter, Silent};
pub use fabkeep_parallel::cores;
pub use genesis::genesis_blocks;
pub use kept::clean_kept;
pub use misuse::{Misuse, Request};
pub use names::{Answer, Callers, UsedName, names};
pub use point::{
    CapturedDirectory, CapturedEntry, CapturedNode, CapturedObject, Channel, Content, EntryContent, Omitted, Part,
    RecoveryPoint, Segment, Stage,
};
pub use report::{
    CommandPurpose, Report, ReportedCertificate, ReportedChannel, ReportedCommand, ReportedHeight, ReportedNode,
    ReportedOrganization, ReportedPoint, ReportedStage, ReportedWindow, Rpo, Rto, SizeKind, SizeOf, Sizes, Timeline,
    TimelineOf, report,
};
pub use repository::remark_finding;
pub use restore::{
    CaKeep, ClusterTarget, KeptFiles, RestoreOptions, RestorePlan, RestoreStep, RestoreTarget, Restored,
    RestoredDirectory, SetAside,
};
pub use status::{ChannelStatus, NetworkStatus, NodeStatus, StatusOptions, status};
pub use transform::{GoBack, HeightOf, LedgerFrom, RaftSource};
pub use verify::{NotProven, Proof, VerifyLevel, verify_point};
pub use window::{
    Question, Resumed, StepOutcome, UnsignedStep, WindowOptions, WindowReport, quoted, resume, resume_unsigned,
};
