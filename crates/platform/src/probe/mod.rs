//! Queries a node for its heights and health: parses the answers, independent of the stream that carries them.

pub(crate) mod answers;
pub(crate) mod block_files;
pub(crate) mod http;

use fabkeep_network::{HeightSource, Observation, Participating, Reading, Relation};

use answers::Metrics;

/// When a node's block files are read for its heights: the last file of each chain, at most 64 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFiles {
    /// Never.
    Never,
    /// Where nothing else answers.
    IfSilent,
    /// Always: so what the node says is compared with what it has.
    Always,
}

/// Which of a node's sources are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeScope {
    /// Its block files.
    pub block_files: BlockFiles,
    /// `/healthz`.
    pub health: bool,
}

/// Returns whether block files are to be read now.
pub(crate) fn wants_files(asked: ProbeScope, so_far: &Observation) -> bool {
    match asked.block_files {
        BlockFiles::Never => false,
        BlockFiles::IfSilent => so_far.channels.values().all(|answer| answer.readings.is_empty()),
        BlockFiles::Always => true,
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Takes the metrics' answer over into an observation.
pub(crate) fn take_metrics(into: &mut Observation, metrics: &Metrics, asked_ms: i64) {
    let answered_ms = now_ms();
    for (channel, &height) in &metrics.heights {
        into.add(channel, Reading { source: HeightSource::Metrics, height, asked_ms, answered_ms });
    }
    for (channel, leads) in &metrics.leads {
        into.channels.entry(channel.clone()).or_default().leads = Some(*leads);
    }
    for (channel, relation) in &metrics.relations {
        into.channels.entry(channel.clone()).or_default().relation = Some(Relation::from_metric(*relation));
    }
    for (channel, status) in &metrics.statuses {
        into.channels.entry(channel.clone()).or_default().participating = Participating::from_metric(*status);
    }
}

/// Asks an orderer's participation API: `ask` GETs a path of it.
pub(crate) fn ask_participation(ask: &dyn Fn(&str) -> Result<String, String>, into: &mut Observation) {
    let asked_ms = now_ms();
    let reported = ask("/participation/v1/channels").and_then(|text| answers::participation_channels(&text)).and_then(
        |channels| {
            let mut heights = Vec::new();
            for channel in channels {
                let text = ask(&format!("/participation/v1/channels/{channel}"))?;
                let answer: answers::Participation = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                let state = into.channels.entry(channel.clone()).or_default();
                state.relation.get_or_insert(Relation::from_word(&answer.relation));
                state.participating = state.participating.or(Participating::from_word(&answer.status));
                heights.push((channel, answer.height));
            }
            Ok(heights)
        },
    );
    take_heights(into, HeightSource::Participation, asked_ms, reported);
}

/// Adds what one source reported, or that it did not.
pub(crate) fn take_heights(
    into: &mut Observation,
    source: HeightSource,
    asked_ms: i64,
    reported: Result<Vec<(String, u64)>, String>,
) {
    let answered_ms = now_ms();
    match reported {
        Ok(heights) => {
            for (channel, height) in heights {
                into.add(&channel, Reading { source, height, asked_ms, answered_ms });
            }
        }
        Err(problem) => into.silent.push((source, problem)),
    }
}
