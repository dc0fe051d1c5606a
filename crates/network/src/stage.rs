//! The order in which the services of a network start: dependencies first. They stop in the opposite order, so that no peer is ever above
//! its orderers (I1).

use fabkeep_ledger::layout::NodeRole;

/// Services that start together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// State databases, and databases of certificate authorities.
    Databases,
    /// Certificate authorities.
    Authorities,
    /// Orderers: they need each other.
    Orderers,
    /// Peers.
    Peers,
    /// Chaincode that runs as a service.
    Chaincode,
    /// Workloads that are not nodes.
    Others,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Databases, Stage::Authorities, Stage::Orderers, Stage::Peers, Stage::Chaincode, Stage::Others];

    /// Returns the stage of a node.
    pub fn of(role: NodeRole) -> Stage {
        match role {
            NodeRole::StateDatabase | NodeRole::CaDatabase => Stage::Databases,
            NodeRole::CertificateAuthority => Stage::Authorities,
            NodeRole::Orderer => Stage::Orderers,
            NodeRole::Peer => Stage::Peers,
            NodeRole::Chaincode => Stage::Chaincode,
            NodeRole::Files => Stage::Others,
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Stage::Databases => "databases",
            Stage::Authorities => "certificate authorities",
            Stage::Orderers => "orderers",
            Stage::Peers => "peers",
            Stage::Chaincode => "chaincode",
            Stage::Others => "others",
        })
    }
}
