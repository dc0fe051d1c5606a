//! A channel's configuration, read from a configuration block: organizations and their MSPs, orderers, consenters, policies.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::block::BlockSpan;
use crate::certificate::{Certificate, CertificateSummary};
use crate::msp::Msp;
use crate::policy::{Policy, PolicyError};
use crate::proto::{common, etcdraft, msp as msp_proto, orderer, peer};

const HEADER_TYPE_CONFIG: i32 = common::HeaderType::Config as i32;

/// Why a configuration block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A message inside does not decode.
    #[error("the configuration's {part} does not decode: {source}")]
    Decode {
        /// Which message.
        part: &'static str,
        /// What prost said.
        source: prost::DecodeError,
    },
    /// A part that every channel has is missing.
    #[error("the configuration has no {0}")]
    Missing(&'static str),
    /// The block validation policy cannot be understood.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Whether an organization runs orderers or peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrganizationKind {
    /// Member of the ordering service.
    Orderer,
    /// Member of the application.
    Application,
}

/// One organization in the channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChannelOrganization {
    /// Its group's name.
    pub name: String,
    /// Its MSP's identifier.
    pub msp_id: String,
    /// What it is in this channel.
    pub kind: OrganizationKind,
    /// SHA-256 of its root and intermediate certificates' keys with their subjects: `(common name, hex)`.
    pub roots: Vec<(String, String)>,
    /// Anchor peers, `host:port`.
    pub anchor_peers: Vec<String>,
    /// Orderer endpoints, `host:port`.
    pub endpoints: Vec<String>,
}

impl ChannelOrganization {
    /// Returns whether one of its root or intermediate certificates has this key (SHA-256, hex).
    pub fn has_root(&self, key: &str) -> bool {
        self.roots.iter().any(|(_, known)| known == key)
    }
}

/// One consenter: an orderer that takes part in consensus.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Consenter {
    /// Its number in the mapping (SmartBFT only).
    pub id: Option<u32>,
    /// Its MSP (SmartBFT only).
    pub msp_id: Option<String>,
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u32,
    /// SHA-256 of the key of its client TLS certificate, hex; empty when unreadable (O7).
    pub client_tls_key: String,
    /// SHA-256 of the key of its server TLS certificate, hex; empty when unreadable.
    pub server_tls_key: String,
    /// SHA-256 of its enrolment certificate's key, hex (SmartBFT only).
    pub identity_key: Option<String>,
    /// Enrolment certificate, PEM (SmartBFT only).
    #[serde(skip)]
    pub identity: Vec<u8>,
}

/// A certificate that a channel's configuration holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigCertificate {
    /// Whose: `organization Org1MSP`, `consenter host:port`.
    pub owner: String,
    /// What it is for: `root certificate`, `server TLS certificate`, …
    pub usage: String,
    /// Its face.
    pub certificate: CertificateSummary,
}

/// A channel's configuration: the parts that recovery needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChannelConfig {
    /// The channel's name.
    pub channel: String,
    /// The configuration's sequence number.
    pub sequence: u64,
    /// Organizations, by name.
    pub organizations: Vec<ChannelOrganization>,
    /// `etcdraft`, `BFT`, …
    pub consensus_type: String,
    /// `STATE_NORMAL` or `STATE_MAINTENANCE`.
    pub consensus_state: String,
    /// The consenters.
    pub consenters: Vec<Consenter>,
    /// Orderer addresses of the whole channel (deprecated; see the organizations' endpoints).
    pub orderer_addresses: Vec<String>,
    /// Capabilities of `channel`, `orderer` and `application`.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// Most transactions in a block.
    pub max_message_count: u32,
    /// Most bytes in a block.
    pub absolute_max_bytes: u32,
    /// Preferred bytes in a block.
    pub preferred_max_bytes: u32,
    /// Batch time-out as configured, `2s`.
    pub batch_timeout: String,
    /// Every certificate in it that can be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<ConfigCertificate>,
    /// What checks block signatures under this configuration.
    #[serde(skip)]
    pub validation: BlockValidation,
}

/// The block-validation policy with the MSPs that it speaks of.
#[derive(Debug, Clone, Default)]
pub struct BlockValidation {
    /// The orderer group's `BlockValidation` policy, with implicit references followed.
    pub policy: Policy,
    /// MSPs by identifier.
    pub msps: BTreeMap<String, Msp>,
    /// Enrolment certificates of SmartBFT consenters by number: `(MSP identifier, PEM)`.
    pub consenter_identities: BTreeMap<u32, (String, Vec<u8>)>,
}

fn decode<M: Message + Default>(part: &'static str, bytes: &[u8]) -> Result<M, ConfigError> {
    M::decode(bytes).map_err(|source| ConfigError::Decode { part, source })
}

/// Returns the channel and type in a transaction's header; `None` when the envelope does not decode (a peer marks such a transaction
/// invalid, the block stands).
pub fn envelope_header(envelope: &[u8]) -> Option<common::ChannelHeader> {
    let envelope = common::Envelope::decode(envelope).ok()?;
    let payload = common::Payload::decode(envelope.payload.as_slice()).ok()?;
    common::ChannelHeader::decode(payload.header?.channel_header.as_slice()).ok()
}

/// Returns whether a block is a configuration block: one envelope, of type CONFIG. Looks at the first bytes only for ordinary blocks.
pub fn is_config_block(buffer: &[u8], span: &BlockSpan) -> bool {
    span.envelope_count == 1
        && span
            .envelopes(buffer)
            .next()
            .and_then(envelope_header)
            .is_some_and(|header| header.r#type == HEADER_TYPE_CONFIG)
}

impl ChannelConfig {
    /// Reads a configuration block's one envelope; `None` when the envelope is not a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when it is one and cannot be read.
    pub fn from_envelope(envelope: &[u8]) -> Result<Option<ChannelConfig>, ConfigError> {
        let Some(header) = envelope_header(envelope).filter(|header| header.r#type == HEADER_TYPE_CONFIG) else {
            return Ok(None);
        };
        let envelope: common::Envelope = decode("envelope", envelope)?;
        let payload: common::Payload = decode("payload", &envelope.payload)?;
        let config: common::ConfigEnvelope = decode("configuration envelope", &payload.data)?;
        let config = config.config.ok_or(ConfigError::Missing("configuration"))?;
        Self::from_config(header.channel_id, &config).map(Some)
    }

    /// Reads a block as it is sent and as files contain it that a node is joined with; `None` when it is no configuration block.
    ///
    /// # Errors
    /// [`ConfigError`] when it does not decode, or is a configuration block and cannot be read.
    pub fn from_block(block: &[u8]) -> Result<Option<ChannelConfig>, ConfigError> {
        let block: common::Block = decode("block", block)?;
        if block.header.is_none() {
            return Ok(None);
        }
        match block.data.unwrap_or_default().data.as_slice() {
            [envelope] => Self::from_envelope(envelope),
            _ => Ok(None),
        }
    }

    fn from_config(channel: String, config: &common::Config) -> Result<ChannelConfig, ConfigError> {
        let root = config.channel_group.as_ref().ok_or(ConfigError::Missing("channel group"))?;
        let orderer_group = root.groups.get("Orderer").ok_or(ConfigError::Missing("orderer group"))?;
        let application_group = root.groups.get("Application");
        let mut validation = BlockValidation::default();
        let mut organizations = Vec::new();
        let mut certificates = Vec::new();
        let groups =
            [(OrganizationKind::Orderer, Some(orderer_group)), (OrganizationKind::Application, application_group)];
        for (kind, group) in groups {
            let Some(group) = group else { continue };
            for (name, organization) in group.groups.iter().collect::<BTreeMap<_, _>>() {
                let (organization, msp) = read_organization(name, kind, organization, &mut certificates)?;
                validation.msps.insert(organization.msp_id.clone(), msp);
                organizations.push(organization);
            }
        }
        let consensus: orderer::ConsensusType = value(orderer_group, "ConsensusType")?;
        let batch: orderer::BatchSize = value(orderer_group, "BatchSize")?;
        let timeout: orderer::BatchTimeout = value(orderer_group, "BatchTimeout")?;
        let addresses: common::OrdererAddresses = value(root, "OrdererAddresses")?;
        let consenters = read_consenters(&consensus, orderer_group, &mut certificates)?;
        for consenter in &consenters {
            if let (Some(id), Some(msp_id)) = (consenter.id, &consenter.msp_id) {
                validation.consenter_identities.insert(id, (msp_id.clone(), consenter.identity.clone()));
            }
        }
        validation.policy = Policy::of_group(orderer_group, "BlockValidation")?;
        let mut capabilities = BTreeMap::new();
        let capability_groups =
            [("channel", Some(root)), ("orderer", Some(orderer_group)), ("application", application_group)];
        for (name, group) in capability_groups {
            let Some(group) = group else { continue };
            let found: common::Capabilities = value(group, "Capabilities")?;
            let mut names: Vec<String> = found.capabilities.into_keys().collect();
            names.sort();
            capabilities.insert(name.to_owned(), names);
        }
        Ok(ChannelConfig {
            channel,
            sequence: config.sequence,
            organizations,
            consensus_state: consensus.state().as_str_name().to_owned(),
            consensus_type: consensus.r#type,
            consenters,
            orderer_addresses: addresses.addresses,
            capabilities,
            max_message_count: batch.max_message_count,
            absolute_max_bytes: batch.absolute_max_bytes,
            preferred_max_bytes: batch.preferred_max_bytes,
            batch_timeout: timeout.timeout,
            certificates,
            validation,
        })
    }
}

/// Returns a group's value, decoded; the default when the group does not have it.
fn value<M: Message + Default>(group: &common::ConfigGroup, key: &'static str) -> Result<M, ConfigError> {
    group.values.get(key).map_or_else(|| Ok(M::default()), |value| decode(key, &value.value))
}

fn read_organization(
    name: &str,
    kind: OrganizationKind,
    group: &common::ConfigGroup,
    certificates: &mut Vec<ConfigCertificate>,
) -> Result<(ChannelOrganization, Msp), ConfigError> {
    let msp: msp_proto::MspConfig = value(group, "MSP")?;
    let fabric: msp_proto::FabricMspConfig = decode("MSP", &msp.config)?;
    let owner = format!("organization {}", fabric.name);
    for (usage, list) in [
        ("root certificate", &fabric.root_certs),
        ("intermediate certificate", &fabric.intermediate_certs),
        ("administrator's certificate", &fabric.admins),
        ("TLS root certificate", &fabric.tls_root_certs),
        ("TLS intermediate certificate", &fabric.tls_intermediate_certs),
    ] {
        list.iter().for_each(|pem| note_certificate(&owner, usage, pem, certificates));
    }
    let msp = Msp::from_config(&fabric);
    let anchors: peer::AnchorPeers = value(group, "AnchorPeers")?;
    let endpoints: common::OrdererAddresses = value(group, "Endpoints")?;
    let organization = ChannelOrganization {
        name: name.to_owned(),
        msp_id: fabric.name,
        kind,
        roots: msp
            .authorities()
            .map(|root| {
                let summary = root.summary();
                (summary.common_name, summary.key_sha256)
            })
            .collect(),
        anchor_peers: anchors.anchor_peers.iter().map(|peer| format!("{}:{}", peer.host, peer.port)).collect(),
        endpoints: endpoints.addresses,
    };
    Ok((organization, msp))
}

fn note_certificate(owner: &str, usage: &str, pem: &[u8], certificates: &mut Vec<ConfigCertificate>) {
    let Ok(certificate) = Certificate::from_pem(pem) else { return };
    let known =
        ConfigCertificate { owner: owner.to_owned(), usage: usage.to_owned(), certificate: certificate.summary() };
    // An organization may stand in the channel as orderer and as member.
    if !certificates.contains(&known) {
        certificates.push(known);
    }
}

fn key_of(pem: &[u8]) -> String {
    Certificate::from_pem(pem).map(|certificate| certificate.summary().key_sha256).unwrap_or_default()
}

fn read_consenters(
    consensus: &orderer::ConsensusType,
    orderer_group: &common::ConfigGroup,
    certificates: &mut Vec<ConfigCertificate>,
) -> Result<Vec<Consenter>, ConfigError> {
    let mut note = |host: &str, port: u32, of: [(&str, &[u8]); 3]| {
        let owner = format!("consenter {host}:{port}");
        of.into_iter().for_each(|(usage, pem)| note_certificate(&owner, usage, pem, certificates));
    };
    const CLIENT: &str = "client TLS certificate";
    const SERVER: &str = "server TLS certificate";
    let mapping: common::Orderers = value(orderer_group, "Orderers")?;
    if consensus.r#type == "etcdraft" {
        let metadata: etcdraft::ConfigMetadata = decode("raft metadata", &consensus.metadata)?;
        for known in &metadata.consenters {
            let of: [(&str, &[u8]); 3] =
                [(CLIENT, &known.client_tls_cert), (SERVER, &known.server_tls_cert), ("", &[])];
            note(&known.host, known.port, of);
        }
        return Ok(metadata
            .consenters
            .iter()
            .map(|consenter| Consenter {
                id: None,
                msp_id: None,
                host: consenter.host.clone(),
                port: consenter.port,
                client_tls_key: key_of(&consenter.client_tls_cert),
                server_tls_key: key_of(&consenter.server_tls_cert),
                identity_key: None,
                identity: Vec::new(),
            })
            .collect());
    }
    for known in &mapping.consenter_mapping {
        let of: [(&str, &[u8]); 3] = [
            (CLIENT, &known.client_tls_cert),
            (SERVER, &known.server_tls_cert),
            ("enrolment certificate", &known.identity),
        ];
        note(&known.host, known.port, of);
    }
    Ok(mapping
        .consenter_mapping
        .into_iter()
        .map(|consenter| Consenter {
            id: Some(consenter.id),
            msp_id: Some(consenter.msp_id),
            host: consenter.host,
            port: consenter.port,
            client_tls_key: key_of(&consenter.client_tls_cert),
            server_tls_key: key_of(&consenter.server_tls_cert),
            identity_key: Some(key_of(&consenter.identity)),
            identity: consenter.identity,
        })
        .collect())
}
