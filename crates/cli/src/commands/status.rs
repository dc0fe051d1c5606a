//! `fabkeep status`.

use std::time::{Duration, Instant};

use fabkeep_engine::{ChannelStatus, NetworkStatus, NodeStatus, StatusOptions, status};
use fabkeep_network::{Participating, Severity};

use super::{done, network};
use crate::arguments::Status;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, interrupt, table};

/// Time between the two queries of one status, from which the growth of chains is computed.
const BETWEEN: Duration = Duration::from_secs(1);

pub fn run(arguments: &Status, output: &Output) -> Result<Code, CliError> {
    let mut platform = network::open(&arguments.place)?;
    network::print_remarks(&arguments.place, platform.as_ref(), output);
    let options = |full: bool| StatusOptions {
        block_files: arguments.files && full,
        certificates: full,
        logs_since: (arguments.logs > 0 && full)
            .then(|| jiff::Timestamp::now() - jiff::SignedDuration::from_mins(i64::from(arguments.logs))),
    };
    // A first look only counts.
    let mut before = status(platform.as_ref(), &options(false), None)?;
    // Nodes that do not run add no blocks.
    if before.nodes.iter().any(|node| node.running != Some(false)) {
        wait(BETWEEN);
    }
    loop {
        let now = status(platform.as_ref(), &options(true), Some(&before))?;
        output.json(&now);
        print(&now, output);
        let Some(seconds) = arguments.watch else {
            let refused = now.window.is_some();
            return Ok(if refused { Code::DoneWithFindings } else { done(&now.findings) });
        };
        if wait(Duration::from_secs(seconds.max(1))) {
            return Ok(done(&now.findings));
        }
        before = now;
        // Pods come and go.
        platform = network::open(&arguments.place)?;
    }
}

/// Waits; whether Ctrl-C came meanwhile.
fn wait(how_long: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < how_long {
        if interrupt::is_asked() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    interrupt::is_asked()
}

fn print(now: &NetworkStatus, output: &Output) {
    output.line(format!("network {} at {}", now.network, now.at));
    let mut table =
        table(["node", "role", "runs", "channel", "height", "lag", "blocks/s", "raft", "health", "expires"]);
    for node in &now.nodes {
        let rows: Vec<Option<&ChannelStatus>> =
            if node.channels.is_empty() { vec![None] } else { node.channels.iter().map(Some).collect() };
        for (number, channel) in rows.into_iter().enumerate() {
            table.add_row(row(node, channel, number == 0));
        }
    }
    output.line(table.to_string());
    for node in now.nodes.iter() {
        let quiet = node.log.iter().filter(|message| message.severity < Severity::Warning);
        for message in quiet {
            output.line(format!("{}: {} errors in its log, the last one: {}", node.node, message.count, message.line));
        }
    }
    output.findings(&now.findings);
}

fn row(node: &NodeStatus, channel: Option<&ChannelStatus>, first: bool) -> Vec<String> {
    let once = |text: String| if first { text } else { String::new() };
    let number = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
    let raft = channel.map_or(String::new(), |channel| {
        let stands = match (channel.leads, channel.relation) {
            (Some(true), _) => "leader".to_owned(),
            (_, Some(relation)) => relation.to_string(),
            _ => String::new(),
        };
        match channel.participating {
            None | Some(Participating::Active) => stands,
            Some(other) if stands.is_empty() => other.to_string(),
            Some(other) => format!("{stands}, {other}"),
        }
    });
    vec![
        once(node.node.clone()),
        once(node.role.to_string()),
        once(node.running.map_or("unknown", |running| if running { "yes" } else { "no" }).to_owned()),
        channel.map_or(String::new(), |channel| channel.channel.clone()),
        channel.map_or(String::new(), |channel| number(channel.height)),
        channel.map_or(String::new(), |channel| number(channel.lag)),
        channel
            .and_then(|channel| channel.blocks_per_second)
            .map_or(String::new(), |rate| if rate == 0.0 { "0".to_owned() } else { format!("{rate:.1}") }),
        raft,
        once(node.health.clone().unwrap_or_default()),
        once(node.expires.as_ref().map_or(String::new(), |(days, _)| format!("{days} d"))),
    ]
}
