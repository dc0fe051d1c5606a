//! Parses the answers of nodes: Prometheus text, JSON of the participation API, the output of `peer channel getinfo`.

use std::collections::BTreeMap;

/// What a node's metrics say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    /// `ledger_blockchain_height` by channel.
    pub heights: BTreeMap<String, u64>,
    /// `consensus_etcdraft_is_leader` (raft), `consensus_smartbft_is_leader`-like gauges by channel.
    pub leads: BTreeMap<String, bool>,
    /// `participation_consensus_relation` by channel.
    pub relations: BTreeMap<String, f64>,
    /// `participation_status` by channel.
    pub statuses: BTreeMap<String, f64>,
}

/// Reads Prometheus' text form, as far as it is of interest here.
pub(crate) fn metrics(text: &str) -> Metrics {
    let mut out = Metrics::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.split_once('}') else { continue };
        let channel = labels.split(',').find_map(|label| label.trim().strip_prefix("channel=\"")?.strip_suffix('"'));
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        let (Some(channel), Some(value)) = (channel, value.filter(|value| value.is_finite())) else { continue };
        match name {
            "ledger_blockchain_height" if value >= 0.0 => {
                out.heights.insert(channel.to_owned(), value as u64);
            }
            "consensus_etcdraft_is_leader" => {
                out.leads.insert(channel.to_owned(), value > 0.0);
            }
            "participation_consensus_relation" => {
                out.relations.insert(channel.to_owned(), value);
            }
            "participation_status" => {
                out.statuses.insert(channel.to_owned(), value);
            }
            _ => {}
        }
    }
    out
}

/// A channel as the participation API describes it: `GET /participation/v1/channels/<channel>`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Participation {
    /// Its height.
    pub height: u64,
    /// `active`, `onboarding`, `inactive`, `failed`.
    #[serde(default)]
    pub status: String,
    /// `consenter`, `follower`, `config-tracker`, `other`.
    #[serde(default, rename = "consensusRelation")]
    pub relation: String,
}

/// Names of the channels in the answer to `GET /participation/v1/channels`.
pub(crate) fn participation_channels(text: &str) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct ChannelName {
        name: String,
    }
    #[derive(serde::Deserialize)]
    struct Channels {
        #[serde(default)]
        channels: Option<Vec<ChannelName>>,
    }
    let answer: Channels =
        serde_json::from_str(text).map_err(|error| format!("the answer has an unexpected form: {error}"))?;
    Ok(answer.channels.unwrap_or_default().into_iter().map(|channel| channel.name).collect())
}

/// Returns the height in what `peer channel getinfo` prints: `Blockchain info: {"height":27,"currentBlockHash":…}`.
pub(crate) fn getinfo(text: &str) -> Result<u64, String> {
    #[derive(serde::Deserialize)]
    struct Info {
        height: u64,
    }
    let json = text.lines().find_map(|line| line.split_once("Blockchain info:")).map(|(_, json)| json.trim());
    let json = json.ok_or_else(|| "it did not print `Blockchain info`".to_owned())?;
    serde_json::from_str::<Info>(json).map(|info| info.height).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_fabric_writes_them() {
        let text = "# HELP ledger_blockchain_height Height of the chain in blocks.\n# TYPE ledger_blockchain_height gauge\n\
                    ledger_blockchain_height{channel=\"mychannel\"} 27\nledger_blockchain_height{channel=\"settlement\"} 1.2e+06\n\
                    ledger_blockchain_height{channel=\"odd\"} NaN\n\
                    consensus_etcdraft_is_leader{channel=\"mychannel\"} 1\nparticipation_consensus_relation{channel=\"mychannel\"} 2\n\
                    participation_status{channel=\"mychannel\"} 3\n\
                    go_goroutines 88\n";
        let read = metrics(text);
        assert_eq!(read.heights["mychannel"], 27);
        assert_eq!(read.heights["settlement"], 1_200_000);
        assert!(!read.heights.contains_key("odd"));
        assert!(read.leads["mychannel"]);
        assert_eq!((read.relations["mychannel"], read.statuses["mychannel"]), (2.0, 3.0));
        let list =
            r#"{"systemChannel":null,"channels":[{"name":"mychannel","url":"/participation/v1/channels/mychannel"}]}"#;
        assert_eq!(participation_channels(list).unwrap(), ["mychannel"]);
        assert!(participation_channels(r#"{"systemChannel":null,"channels":null}"#).unwrap().is_empty());
        let one = r#"{"name":"mychannel","url":"x","consensusRelation":"consenter","status":"active","height":224}"#;
        let one: Participation = serde_json::from_str(one).unwrap();
        assert_eq!((one.height, one.relation.as_str(), one.status.as_str()), (224, "consenter", "active"));
        let said = "2026 [channelCmd] InitCmdFactory -> INFO 001 Endorser and orderer connections initialized\n\
                    Blockchain info: {\"height\":224,\"currentBlockHash\":\"a=\",\"previousBlockHash\":\"b=\"}\n";
        assert_eq!(getinfo(said).unwrap(), 224);
        assert!(getinfo("Error: proposal failed").is_err());
    }
}
