//! What nodes that are not restored do to those that are, and the other way round: a peer above the ordering service forks its chain (I1),
//! whichever of the two is restored; a raft orderer that has fewer entries than its leader remembers stops (O2).

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Observation, RaftFacts, Remedy, Rule, WalKind};
use fabkeep_platform::{BlockFiles, Platform, ProbeScope};

use crate::point::{CapturedNode, RecoveryPoint};
use crate::window::observe;

/// Heights by channel, each with who has it.
type Heights = BTreeMap<String, Vec<(NodeId, u64)>>;

/// Judges the nodes that are restored beside those of the platform that stay. `restored`: which nodes of the recovery point are.
pub(super) fn judge(
    platform: &dyn Platform,
    point: &RecoveryPoint,
    restored: &dyn Fn(&NodeId) -> bool,
    others_restart: bool,
) -> Vec<Finding> {
    let of_point = |role: NodeRole| {
        let nodes = point.nodes.iter().filter(move |node| node.facts.role == role && restored(&node.facts.id));
        heights(nodes)
    };
    let (peers, orderers) = (of_point(NodeRole::Peer), of_point(NodeRole::Orderer));
    let stays = platform
        .network()
        .nodes()
        .any(|node| matches!(node.role, NodeRole::Peer | NodeRole::Orderer) && !restored(&node.id));
    if !stays || (peers.is_empty() && orderers.is_empty()) {
        return Vec::new();
    }
    let asked = ProbeScope { block_files: BlockFiles::IfSilent, health: false };
    let observed = observe(platform, asked, |id| !restored(id));
    let (surviving_peers, surviving_orderers) =
        (surviving(&observed, NodeRole::Peer), surviving(&observed, NodeRole::Orderer));
    let mut findings = Vec::new();
    for channel in &point.channels {
        let of = |all: &Heights| all.get(&channel.name).cloned().unwrap_or_default();
        let highest = |all: &Heights| of(all).into_iter().max_by_key(|(_, height)| *height);
        // The ordering service as it will be.
        let service = [highest(&orderers), highest(&surviving_orderers)];
        if let Some((stays, ahead)) = highest(&surviving_orderers) {
            let behind = of(&orderers)
                .into_iter()
                .filter(|(id, height)| *height < ahead && has_raft_log(point, id, &channel.name));
            findings.extend(behind.map(|(orderer, height)| {
                let old = Behind { orderer, channel: &channel.name, height, stays: &stays, ahead };
                old.judge(others_restart)
            }));
        }
        let Some((orderer, service)) = service.into_iter().flatten().max_by_key(|(_, height)| *height) else {
            continue;
        };
        for (peer, height) in of(&peers).into_iter().filter(|(_, height)| *height > service) {
            findings.push(Finding::error(
                Rule::PeerAboveOrderer,
                format!("{peer} {}", channel.name),
                format!("it would be restored at height {height}, and the ordering service would be at {service} ({orderer}): the chain forks"),
                "restore the orderers from the same recovery point, or the peer from an older one",
            ));
        }
        if orderers.contains_key(&channel.name) {
            for (peer, height) in of(&surviving_peers).into_iter().filter(|(_, height)| *height > service) {
                findings.push(Finding::error(
                    Rule::PeerAboveOrderer,
                    format!("{peer} {}", channel.name),
                    format!("it stays at height {height}, and the restored ordering service would be at {service} ({orderer}): the chain forks"),
                    Remedy::RestoreNodes { nodes: vec![peer.clone()], replace: false }.or("take a newer recovery point"),
                ));
            }
        }
    }
    findings
}

fn has_raft_log(point: &RecoveryPoint, orderer: &NodeId, channel: &str) -> bool {
    let of_channel = |raft: &RaftFacts| raft.channel == channel && raft.kind == WalKind::Raft && raft.files > 0;
    point.nodes.iter().any(|node| node.facts.id == *orderer && node.facts.raft.iter().any(of_channel))
}

/// A raft orderer that would come back older than those that stay.
struct Behind<'a> {
    orderer: NodeId,
    channel: &'a str,
    height: u64,
    stays: &'a NodeId,
    ahead: u64,
}

impl Behind<'_> {
    /// The leader of those that stay may remember entries that it had, unless all of them are restarted.
    fn judge(&self, others_restart: bool) -> Finding {
        let Behind { orderer, channel, height, stays, ahead } = self;
        let subject = format!("{orderer} {channel}");
        let what = format!("it would come back at height {height}, and {stays}, which stays, has {ahead}");
        if others_restart {
            return Finding::note(
                Rule::OrderersLevel,
                subject,
                format!(
                    "{what}: every other orderer of the channel is restarted before it is started, so that no leader remembers later entries of it"
                ),
                "start it only when the restore is complete: it fetches the later blocks from the others",
            );
        }
        Finding::error(
            Rule::OrderersLevel,
            subject,
            format!("{what}: if the leader remembers later entries of it, it panics (\"tocommit(N) is out of range\")"),
            Remedy::Replicate { node: Some(orderer.clone()) }
                .or(Remedy::RestartOthers)
                .or("restore all orderers together"),
        )
    }
}

fn heights<'a>(nodes: impl Iterator<Item = &'a CapturedNode>) -> Heights {
    let mut out = Heights::new();
    for node in nodes {
        for ledger in &node.facts.ledgers {
            out.entry(ledger.channel.clone()).or_default().push((node.facts.id.clone(), ledger.height));
        }
    }
    out
}

fn surviving(observed: &[Observation], role: NodeRole) -> Heights {
    let mut out = Heights::new();
    for observation in observed.iter().filter(|observation| observation.role == role) {
        for channel in observation.channels.keys() {
            let height = observation.height(channel);
            out.entry(channel.clone()).or_default().extend(height.map(|height| (observation.node.clone(), height)));
        }
    }
    out
}
