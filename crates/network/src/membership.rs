//! The orderers that take part in a channel's consensus, by the channel's configuration: consenters, followers, and kinds of consensus
//! other than raft and SmartBFT. Reports channels that a consenter must have and does not have.

use fabkeep_ledger::certificate::CertificateSummary;
use fabkeep_ledger::channel_config::{ChannelConfig, ChannelOrganization, Consenter};
use fabkeep_ledger::layout::NodeRole;

use crate::Remedy;
use crate::facts::{KeyFacts, KeyPurpose, NodeFacts};
use crate::finding::{Finding, Rule};
use crate::heights::Relation;
use crate::remedy::OrLeaveOut;

/// How a channel orders its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consensus {
    /// etcd's raft.
    Raft,
    /// SmartBFT.
    Bft,
    /// Kafka brokers, up to Fabric 2.x.
    Kafka,
    /// One orderer, for trials.
    Solo,
    /// Something else.
    Other,
}

impl Consensus {
    /// By the name that a channel's configuration has for it.
    pub fn of(name: &str) -> Consensus {
        match name {
            "etcdraft" => Consensus::Raft,
            "BFT" => Consensus::Bft,
            "kafka" => Consensus::Kafka,
            "solo" => Consensus::Solo,
            _ => Consensus::Other,
        }
    }

    /// Returns what a consenter is recognised by (O7).
    fn recognised_by(self) -> KeyPurpose {
        if self == Consensus::Bft { KeyPurpose::Enrolment } else { KeyPurpose::Tls }
    }
}

/// Public keys of a node that a channel's consensus would know it by.
fn own_keys(node: &NodeFacts, consensus: Consensus) -> Vec<&str> {
    let wanted = consensus.recognised_by();
    let of_purpose = node.keys.iter().filter(|key| key.purpose == wanted);
    of_purpose.filter_map(|key| Some(key.certificate.as_ref()?.key_sha256.as_str())).collect()
}

/// Certificates whose keys say whose a node is.
struct Own<'n> {
    /// Of the MSP's CAs.
    authorities: Vec<&'n KeyFacts>,
    /// Of the CAs beside the TLS certificate.
    tls_authorities: Vec<&'n KeyFacts>,
}

impl<'n> Own<'n> {
    fn of(node: &'n NodeFacts) -> Own<'n> {
        let within = |key: &&KeyFacts, folders: &[&str]| key.path.split('/').any(|part| folders.contains(&part));
        let is_ca = |key: &&KeyFacts| key.certificate.as_ref().is_some_and(|certificate| certificate.is_ca);
        let beside: Vec<&KeyFacts> =
            node.keys.iter().filter(|key| key.path.starts_with("tls/")).filter(is_ca).collect();
        let named =
            || node.keys.iter().filter(|key| within(key, &["tlscacerts", "tlsintermediatecerts"])).filter(is_ca);
        Own {
            authorities: node.keys.iter().filter(|key| within(key, &["cacerts", "intermediatecerts"])).collect(),
            tls_authorities: if beside.is_empty() { named().collect() } else { beside },
        }
    }
}

fn facts<'n>(keys: &[&'n KeyFacts]) -> impl Iterator<Item = &'n CertificateSummary> {
    keys.iter().filter_map(|key| key.certificate.as_ref()).collect::<Vec<_>>().into_iter()
}

/// Names and places of certificates, in a sentence's part.
fn listed(keys: &[&KeyFacts]) -> String {
    let one = |key: &&KeyFacts| Some(format!("{} in {}", key.certificate.as_ref()?.common_name, key.path));
    keys.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Keys of the TLS CAs that a channel's configuration names for an organization.
fn tls_keys_of<'c>(config: &'c ChannelConfig, msp_id: &str) -> Vec<&'c str> {
    let owner = format!("organization {msp_id}");
    let known = config.certificates.iter().filter(|known| known.owner == owner && known.usage.starts_with("TLS"));
    known.map(|known| known.certificate.key_sha256.as_str()).collect()
}

/// Nodes whose identity or TLS is of another network than the channels that they hold, and nodes whose enrolment certificate is revoked
/// there.
pub(crate) fn identities(nodes: &[NodeFacts], configs: &[&ChannelConfig], findings: &mut Vec<Finding>) {
    for node in nodes.iter().filter(|node| matches!(node.role, NodeRole::Peer | NodeRole::Orderer)) {
        let own = Own::of(node);
        for ledger in &node.ledgers {
            let Some(config) = configs.iter().find(|config| config.channel == ledger.channel) else { continue };
            let subject = format!("{} {}", node.id, ledger.channel);
            let msp_id = node.msp_id.as_deref();
            let of_node: Vec<&ChannelOrganization> =
                config.organizations.iter().filter(|known| msp_id.is_none_or(|id| known.msp_id == id)).collect();
            let known =
                |own: &CertificateSummary| of_node.iter().any(|organization| organization.has_root(&own.key_sha256));
            // An organization that has left the channel is in its configuration no more.
            if !of_node.is_empty() && !own.authorities.is_empty() && !facts(&own.authorities).any(known) {
                let of_whom = msp_id.map_or("any organization".to_owned(), |id| format!("organization {id}"));
                findings.push(Finding::error(
                    Rule::EveryKey,
                    &subject,
                    format!(
                        "none of its MSP's CA certificates ({}) is one of {of_whom} in the channel's configuration: the identity belongs to another network, or to a CA that the channel does not know",
                        listed(&own.authorities)
                    ),
                    OrLeaveOut("give the node the MSP with which it took part in the channel, from its CA's records or an earlier recovery point"),
                ));
            }
            let tls = msp_id.map(|id| tls_keys_of(config, id)).unwrap_or_default();
            let known = |own: &CertificateSummary| tls.contains(&own.key_sha256.as_str());
            if !tls.is_empty() && !own.tls_authorities.is_empty() && !facts(&own.tls_authorities).any(known) {
                findings.push(Finding::warning(
                    Rule::EveryKey,
                    &subject,
                    format!(
                        "none of the CAs beside its TLS certificate ({}) is one of its organization's TLS CAs in the channel's configuration: other nodes refuse its connections",
                        listed(&own.tls_authorities)
                    ),
                    "give the node the TLS certificate, key and CA of its own network; or add the CA to the channel's configuration",
                ));
            }
            let msp = msp_id.and_then(|id| config.validation.msps.get(id));
            let enrolled = node.keys.iter().filter(|key| key.purpose == KeyPurpose::Enrolment);
            let revoked = |certificate: &&CertificateSummary| msp.is_some_and(|msp| msp.revokes(&certificate.serial));
            if let Some(certificate) = enrolled.filter_map(|key| key.certificate.as_ref()).find(revoked) {
                findings.push(Finding::warning(
                    Rule::Certificates,
                    &subject,
                    format!(
                        "the enrolment certificate of {} is in its organization's revocation list in the channel's configuration: other nodes reject its signatures",
                        certificate.common_name
                    ),
                    "enrol the node again, and back up again",
                ));
            }
        }
    }
}

/// Returns the relation of an orderer to a channel. If its keys or the channel's consenters are unknown, it is treated as a consenter: then
/// more is demanded of it.
pub fn relation(node: &NodeFacts, config: &ChannelConfig) -> Relation {
    let consensus = Consensus::of(&config.consensus_type);
    let own = own_keys(node, consensus);
    if own.is_empty() || config.consenters.is_empty() {
        return Relation::Other;
    }
    let known = config.consenters.iter().any(|consenter| is_of(consenter, consensus, &own));
    if known { Relation::Consenter } else { Relation::Follower }
}

/// Returns whether a consenter is the one with these keys.
fn is_of(consenter: &Consenter, consensus: Consensus, own: &[&str]) -> bool {
    match consensus {
        Consensus::Bft => consenter.identity_key.as_deref().is_some_and(|key| own.contains(&key)),
        _ => own.contains(&consenter.client_tls_key.as_str()) || own.contains(&consenter.server_tls_key.as_str()),
    }
}

/// Consenters of a channel that are not in the set, while others are.
fn others_of(config: &ChannelConfig, orderers: &[&NodeFacts], findings: &mut Vec<Finding>) {
    let consensus = Consensus::of(&config.consensus_type);
    let known: Vec<&str> = orderers.iter().flat_map(|node| own_keys(node, consensus)).collect();
    let (here, absent): (Vec<&Consenter>, Vec<&Consenter>) =
        config.consenters.iter().partition(|consenter| is_of(consenter, consensus, &known));
    if here.is_empty() || absent.is_empty() {
        return;
    }
    let named: Vec<String> = absent.iter().map(|consenter| format!("{}:{}", consenter.host, consenter.port)).collect();
    findings.push(Finding::note(
        Rule::ConsenterKey,
        &config.channel,
        format!(
            "{} of the channel's {} consenters are not in the set: {}",
            absent.len(),
            config.consenters.len(),
            named.join(", ")
        ),
        Remedy::from("no action is needed if they are backed up by another organization, or are not restored now")
            .or(Remedy::from("find out why they are missing").and(Remedy::ListNodes)),
    ));
}

/// Judges every orderer against every channel's configuration.
pub(crate) fn check(nodes: &[NodeFacts], configs: &[&ChannelConfig], findings: &mut Vec<Finding>) {
    let orderers: Vec<&NodeFacts> = nodes.iter().filter(|node| node.role == NodeRole::Orderer).collect();
    for config in configs {
        let holders: Vec<&NodeFacts> = orderers.iter().copied().filter(|node| holds(node, &config.channel)).collect();
        if !holders.is_empty() {
            unsupported(config, &holders, findings);
        }
        for node in &orderers {
            match (holds(node, &config.channel), relation(node, config)) {
                (true, Relation::Follower) => findings.push(Finding::warning(
                    Rule::ConsenterKey,
                    format!("{} {}", node.id, config.channel),
                    format!(
                        "the node's {} key is not the key of any of the channel's {} consenters",
                        Consensus::of(&config.consensus_type).recognised_by(),
                        config.consenters.len()
                    ),
                    "either it is a follower, whose raft log is not judged, or its certificate was renewed with a new key: compare it with the channel configuration before a restore",
                )),
                (false, Relation::Consenter) => findings.push(Finding::error(
                    Rule::LogPresent,
                    format!("{} {}", node.id, config.channel),
                    "the channel's configuration names this orderer as a consenter, but it has no block of the channel",
                    OrLeaveOut("restore its ledger directory from another orderer or an earlier recovery point, or join it to the channel"),
                )),
                _ => {}
            }
        }
        same_keys(config, &holders, findings);
        others_of(config, &orderers, findings);
    }
    logs_without_chain(&orderers, configs, findings);
    peers_beside(nodes, findings);
}

fn holds(node: &NodeFacts, channel: &str) -> bool {
    node.ledgers.iter().any(|ledger| ledger.channel == channel)
}

fn unsupported(config: &ChannelConfig, holders: &[&NodeFacts], findings: &mut Vec<Finding>) {
    let names = |nodes: &[&NodeFacts]| nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(", ");
    let finding = match Consensus::of(&config.consensus_type) {
        Consensus::Raft | Consensus::Bft => return,
        Consensus::Solo => Finding::warning(
            Rule::LogPresent,
            &config.channel,
            format!(
                "the channel is ordered by a solo orderer ({}): there is no other copy of its ledger",
                names(holders)
            ),
            "nothing for a restore; Fabric 3 does not support solo orderers",
        ),
        Consensus::Kafka => Finding::error(
            Rule::LogPresent,
            &config.channel,
            format!(
                "the channel is ordered by Kafka ({}): the data of the brokers is not in the set, and fabkeep does not support Kafka",
                names(holders)
            ),
            Remedy::from("move the ordering service to raft (Fabric's migration from Kafka)")
                .or(Remedy::ExcludeNodes.and("back the brokers up separately")),
        ),
        Consensus::Other => Finding::error(
            Rule::LogPresent,
            &config.channel,
            format!("the channel's consensus type {:?} is not supported ({})", config.consensus_type, names(holders)),
            Remedy::ExcludeNodes,
        ),
    };
    findings.push(finding);
}

/// Two orderers that a channel would take for one.
fn same_keys(config: &ChannelConfig, holders: &[&NodeFacts], findings: &mut Vec<Finding>) {
    let consensus = Consensus::of(&config.consensus_type);
    if !matches!(consensus, Consensus::Raft | Consensus::Bft) {
        return;
    }
    for (position, node) in holders.iter().enumerate() {
        let own = own_keys(node, consensus);
        let twin =
            holders[..position].iter().find(|other| own_keys(other, consensus).iter().any(|key| own.contains(key)));
        if let Some(twin) = twin {
            findings.push(Finding::error(
                Rule::ConsenterKey,
                format!("{} {}", node.id, config.channel),
                format!(
                    "it has the same {} key as {}: the channel treats both as one consenter",
                    consensus.recognised_by(),
                    twin.id
                ),
                OrLeaveOut("restore each node's own certificate and key"),
            ));
        }
    }
}

/// A log that `channel remove` leaves behind looks like a chain that was lost: the channel's configuration tells the two apart, where another
/// node has the channel.
fn logs_without_chain(orderers: &[&NodeFacts], configs: &[&ChannelConfig], findings: &mut Vec<Finding>) {
    for node in orderers {
        for raft in node.raft.iter().filter(|raft| !holds(node, &raft.channel)) {
            let config = configs.iter().find(|config| config.channel == raft.channel);
            // A consenter has its error already.
            if config.is_some_and(|config| relation(node, config) == Relation::Consenter) {
                continue;
            }
            findings.push(Finding::warning(
                Rule::LogsWiped,
                format!("{} {}", node.id, raft.channel),
                "the orderer has a raft log of this channel and no block files",
                "if the channel was removed here, delete its log and snapshots before joining it again; otherwise the chain is lost: restore it",
            ));
        }
    }
}

/// Certificate authorities of different organizations with one key. Those of one organization may share it: they serve in turns.
pub(crate) fn authorities(nodes: &[NodeFacts], configs: &[&ChannelConfig], findings: &mut Vec<Finding>) {
    let authorities: Vec<&NodeFacts> =
        nodes.iter().filter(|node| node.role == NodeRole::CertificateAuthority).collect();
    let keys = |node: &NodeFacts| -> Vec<String> {
        let own = node.keys.iter().filter(|key| key.purpose == KeyPurpose::Authority);
        own.filter_map(|key| Some(key.certificate.as_ref()?.key_sha256.clone())).collect()
    };
    // Whether the MSPs of a node's organization name one of the keys, as far as a channel's configuration says.
    let is_trusted = |node: &NodeFacts, keys: &[String]| {
        let beside = nodes.iter().filter(|other| other.id.organization == node.id.organization);
        let msps: Vec<&str> = beside.filter_map(|other| other.msp_id.as_deref()).collect();
        let organizations = configs.iter().flat_map(|config| &config.organizations);
        let own = organizations.filter(|organization| msps.contains(&organization.msp_id.as_str()));
        let roots: Vec<&str> = own.flat_map(|own| &own.roots).map(|(_, key)| key.as_str()).collect();
        (!roots.is_empty()).then(|| keys.iter().any(|key| roots.contains(&key.as_str())))
    };
    for (position, node) in authorities.iter().enumerate() {
        let own = keys(node);
        let same = |other: &&&NodeFacts| {
            other.id.organization != node.id.organization && keys(other).iter().any(|key| own.contains(key))
        };
        let Some(twin) = authorities[..position].iter().find(same) else { continue };
        let foreign = match (is_trusted(node, &own), is_trusted(twin, &own)) {
            (Some(false), Some(true)) => Some((node, twin)),
            (Some(true), Some(false)) => Some((twin, node)),
            _ => None,
        };
        findings.push(match foreign {
            Some((foreign, other)) => Finding::error(
                Rule::CaKey,
                &foreign.id,
                format!(
                    "its certificate and key are those of {}, a CA of another organization, and the MSP of its own organization does not trust them: the key of the organization's own CA is not in the set",
                    other.id
                ),
                OrLeaveOut("restore the CA's own certificate, key and database from an earlier recovery point"),
            ),
            None => Finding::warning(
                Rule::CaKey,
                &node.id,
                format!(
                    "it has the same certificate and key as {}, a CA of another organization: one of the two may be a copy of the other, and then its own key is not in the set",
                    twin.id
                ),
                "no action is needed if the two organizations share one CA; otherwise restore each CA's own certificate, key and database",
            ),
        });
    }
}

/// Nodes of one identity, and peers that have no channel of their organization's other peers.
fn peers_beside(nodes: &[NodeFacts], findings: &mut Vec<Finding>) {
    let members: Vec<&NodeFacts> =
        nodes.iter().filter(|node| matches!(node.role, NodeRole::Peer | NodeRole::Orderer)).collect();
    let enrolment =
        |node: &NodeFacts| -> Vec<String> { own_keys(node, Consensus::Bft).into_iter().map(str::to_owned).collect() };
    for (position, node) in members.iter().enumerate() {
        let own = enrolment(node);
        let same = |other: &&&NodeFacts| enrolment(other).iter().any(|key| own.contains(key));
        if let Some(twin) = members[..position].iter().find(same) {
            findings.push(Finding::warning(
                Rule::EveryKey,
                &node.id,
                format!("it has the same enrolment key as {}: other nodes treat both as one node", twin.id),
                "restore each node's own certificate and key",
            ));
        }
    }
    // Certificates for several hosts are shared on purpose at times; between consenters the channel's check has said so.
    for (position, node) in members.iter().enumerate() {
        let own = own_keys(node, Consensus::Raft);
        let same = |other: &&&NodeFacts| own_keys(other, Consensus::Raft).iter().any(|key| own.contains(key));
        if let Some(twin) = members[..position].iter().find(same) {
            findings.push(Finding::note(
                Rule::EveryKey,
                &node.id,
                format!("it has the same TLS key as {}", twin.id),
                "no action is needed if one certificate names both hosts",
            ));
        }
    }
    let peers: Vec<&NodeFacts> = members.into_iter().filter(|node| node.role == NodeRole::Peer).collect();
    for peer in &peers {
        let beside = peers.iter().filter(|other| {
            other.id != peer.id && other.id.organization == peer.id.organization && other.msp_id == peer.msp_id
        });
        let mut missed: Vec<&str> = beside
            .flat_map(|other| &other.ledgers)
            .map(|ledger| ledger.channel.as_str())
            .filter(|channel| !holds(peer, channel))
            .collect();
        missed.sort_unstable();
        missed.dedup();
        for channel in missed {
            findings.push(Finding::note(
                Rule::NotPersistent,
                format!("{} {channel}", peer.id),
                "other peers of its organization have this channel; this peer does not have it, and none of its own records names it",
                "no action is needed if it never joined the channel or left it",
            ));
        }
    }
}
