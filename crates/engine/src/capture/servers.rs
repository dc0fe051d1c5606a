//! Data of database servers in directories that are not a database's: the files of a server that runs are of no one moment.

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, Rule, Severity};

use super::survey::{PlannedNode, SurveyedDirectory};

/// A kind of server: a file of its data, and one that is there while it runs.
const SERVERS: [(&str, &str, &str); 2] =
    [("PostgreSQL", "global/pg_control", "postmaster.pid"), ("MySQL", "ibdata1", "ibtmp1")];

/// Leaves out what belongs to a database server that runs. `any_dump`: a server's database is dumped by this capture.
pub(super) fn leave_out(
    node: &PlannedNode,
    surveyed: &mut SurveyedDirectory,
    any_dump: bool,
    findings: &mut Vec<Finding>,
) {
    if matches!(surveyed.directory.role, DirectoryRole::Database | DirectoryRole::StateDatabase) {
        return;
    }
    let mut left_out: Vec<(&str, String)> = Vec::new();
    for (server, file, runs) in SERVERS {
        let homes = surveyed.entries.iter().filter_map(|(entry, _)| {
            let home = entry.path.strip_suffix(file)?;
            (home.is_empty() || home.ends_with('/')).then_some(home)
        });
        let is_there = |path: &str| surveyed.entries.iter().any(|(entry, _)| entry.path == path);
        let running = homes.filter(|home| is_there(&format!("{home}{runs}")));
        left_out.extend(running.map(|home| (server, home.to_owned())));
    }
    for (server, home) in left_out {
        surveyed.entries.retain(|(entry, _)| entry.path.is_empty() || !entry.path.starts_with(&home));
        let path = home.trim_end_matches('/');
        // A restore leaves alone what is not captured.
        surveyed.directory.excluded.extend((!path.is_empty()).then(|| path.to_owned()));
        let finding = Finding::warning(
            Rule::LiveCopy,
            format!("{} {}/{path}", node.node.id, surveyed.directory.path).trim_end_matches('/'),
            format!(
                "it is the data of a {server} server that runs: a copy of its files would be of several moments, and they are left out"
            ),
            "nothing, if the server keeps a certificate authority's identities, of which the recovery point holds a dump; else stop it and back up again, or dump its databases beside",
        );
        findings.push(if any_dump { Finding { severity: Severity::Note, ..finding } } else { finding });
    }
}
