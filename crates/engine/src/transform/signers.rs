//! Whether the orderers of today could go on from an earlier height: the configuration of that height decides whose blocks are accepted.

use std::collections::BTreeSet;

use fabkeep_ledger::channel_config::{ChannelConfig, ChannelOrganization, OrganizationKind, is_config_block};
use fabkeep_network::{Consensus, Finding, NodeFacts, Relation, Remedy, Rule, WalKind, consensus_relation};
use fabkeep_store::PointReader;

use super::quorum;
use crate::EngineError;
use crate::point::{CapturedNode, Channel};
use crate::replay::open_segment;

/// What forbids that a channel goes back to a height: orderers that are captured, and take part in the channel's consensus now, could not
/// order from there. `whole`: the channel as it was captured; `cut`: as it would be.
pub(super) fn judge(
    whole: &Channel,
    cut: &Channel,
    nodes: &[&CapturedNode],
    reader: &PointReader<'_>,
) -> Result<Option<Finding>, EngineError> {
    let (Some(now), Some(then)) = (&whole.config, &cut.config) else { return Ok(None) };
    let holds = |node: &&NodeFacts| node.raft.iter().any(|raft| raft.channel == whole.name);
    let orderers: Vec<&NodeFacts> = nodes.iter().map(|node| &node.facts).filter(holds).collect();
    let reasons = reasons(now, then, &orderers);
    if reasons.is_empty() {
        return Ok(None);
    }
    let next = first_height(whole, cut.height, reader, &|config| self::reasons(now, config, &orderers).is_empty())?;
    let way_out = next.map_or_else(
        || Remedy::from("restore the latest height"),
        |height| Remedy::ChooseHeight { channel: whole.name.clone(), height },
    );
    Ok(Some(Finding::error(
        Rule::EarlierHeight,
        &whole.name,
        format!("its orderers cannot order blocks from height {} on: {}", cut.height, reasons.join("; ")),
        way_out.or("add the orderers of that time to the recovery point"),
    )))
}

/// Why orderers that take part in consensus under one configuration cannot go on under an earlier one.
fn reasons(now: &ChannelConfig, then: &ChannelConfig, orderers: &[&NodeFacts]) -> Vec<String> {
    let takes_part = |config: &ChannelConfig, node: &NodeFacts| {
        matches!(consensus_relation(node, config), Relation::Consenter | Relation::Other)
    };
    let mut reasons = BTreeSet::new();
    for node in orderers.iter().filter(|node| takes_part(now, node)) {
        let Some(msp_id) = node.msp_id.as_deref() else { continue };
        let (Some(today), then) = (organization(now, msp_id), organization(then, msp_id)) else { continue };
        let Some(then) = then else {
            reasons.insert(format!("{msp_id} is no organization of the ordering service there"));
            continue;
        };
        let own: BTreeSet<&str> =
            node.keys.iter().filter_map(|key| Some(key.certificate.as_ref()?.key_sha256.as_str())).collect();
        let knows = |organization: &ChannelOrganization| own.iter().any(|key| organization.has_root(key));
        if knows(today) && !knows(then) {
            reasons.insert(format!("{} has an identity of a CA that {msp_id} does not have there", node.id));
        }
    }
    // Fewer than order now, where these suffice, were consenters then.
    let count = |config: &ChannelConfig| orderers.iter().filter(|node| takes_part(config, node)).count();
    let needed = |config: &ChannelConfig| quorum(kind(config), config.consenters.len());
    if count(now) >= needed(now) && count(then) < needed(then) {
        reasons.insert(format!(
            "{} of its {} consenters there are in the recovery point, and it orders nothing until {} run",
            count(then),
            then.consenters.len(),
            needed(then)
        ));
    }
    reasons.into_iter().collect()
}

fn kind(config: &ChannelConfig) -> WalKind {
    if Consensus::of(&config.consensus_type) == Consensus::Bft { WalKind::SmartBft } else { WalKind::Raft }
}

/// An organization of the ordering service.
fn organization<'c>(config: &'c ChannelConfig, msp_id: &str) -> Option<&'c ChannelOrganization> {
    let mut orderers = config.organizations.iter().filter(|known| known.kind == OrganizationKind::Orderer);
    orderers.find(|known| known.msp_id == msp_id)
}

/// The lowest height above another one whose configuration is right.
fn first_height(
    channel: &Channel,
    above: u64,
    reader: &PointReader<'_>,
    is_right: &dyn Fn(&ChannelConfig) -> bool,
) -> Result<Option<u64>, EngineError> {
    for segment in channel.segments.iter().filter(|segment| segment.end() > above) {
        let opened = open_segment(reader, &channel.name, segment)?;
        let blocks = opened.spans.iter().filter(|span| span.number >= above && is_config_block(&opened.bytes, span));
        for span in blocks {
            let envelope = span.envelopes(&opened.bytes).next().unwrap_or_default();
            if ChannelConfig::from_envelope(envelope).ok().flatten().is_some_and(|config| is_right(&config)) {
                return Ok(Some(span.number.saturating_add(1)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fabkeep_platform::{Host, discover};
    use fabkeep_store::{Repository, WriterKey};

    use super::*;
    use crate::{CaptureOptions, RecoveryPoint, Silent, capture};

    /// A recovery point of a network of real nodes.
    fn captured() -> RecoveryPoint {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &path("network")).unwrap();
        let location = path("repository").display().to_string();
        Repository::init(&location, Some(&path("identity")), Some(&path("writer")), &[]).unwrap();
        let found = discover(&path("network"), folder.path()).unwrap();
        let host = Host::new(&found.inventory, folder.path()).unwrap();
        let (repository, key) = (Repository::open(&location).unwrap(), WriterKey::read(&path("writer")).unwrap());
        capture(&host, &repository, key, &CaptureOptions::default(), &Silent).unwrap().point
    }

    #[test]
    fn orderers_go_on_only_from_a_configuration_that_knows_them() {
        let point = captured();
        let now = point.channel("mychannel").unwrap().config.clone().unwrap();
        let of_channel = |facts: &&NodeFacts| facts.raft.iter().any(|raft| raft.channel == "mychannel");
        let orderers: Vec<&NodeFacts> = point.nodes.iter().map(|node| &node.facts).filter(of_channel).collect();
        let reasons = |change: &dyn Fn(&mut ChannelConfig)| {
            let mut then = now.clone();
            change(&mut then);
            super::reasons(&now, &then, &orderers)
        };
        assert_eq!((orderers.len(), reasons(&|_| {})), (3, Vec::new()));

        let joined_later = reasons(&|then| then.organizations.retain(|known| known.kind != OrganizationKind::Orderer));
        assert_eq!(joined_later, ["OrdererMSP is no organization of the ordering service there"]);

        let another_ca = reasons(&|then| {
            let orderers = then.organizations.iter_mut().filter(|known| known.kind == OrganizationKind::Orderer);
            orderers.for_each(|known| known.roots = vec![("another".to_owned(), "00".to_owned())]);
        });
        assert_eq!(another_ca.len(), 3, "{another_ca:?}");
        assert!(another_ca[0].starts_with("OrdererOrg/orderer1 has an identity of a CA"), "{another_ca:?}");

        // Two of them were others then; one of them still leaves a majority.
        let others = |count: usize| {
            reasons(&|then| {
                for consenter in then.consenters.iter_mut().take(count) {
                    (consenter.client_tls_key, consenter.server_tls_key) = ("00".to_owned(), "00".to_owned());
                }
            })
        };
        assert_eq!(others(1), Vec::<String>::new());
        assert_eq!(
            others(2),
            ["1 of its 3 consenters there are in the recovery point, and it orders nothing until 2 run"]
        );
    }
}
