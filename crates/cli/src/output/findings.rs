//! Prints findings: severity, rule, subject, what was found and what to do next.

use std::io::Write;

use fabkeep_network::{Finding, Severity};

/// Prints findings, each with its rule's sentence once.
pub fn print_findings(to: &mut dyn Write, findings: &[Finding]) {
    let mut explained = Vec::new();
    for finding in findings {
        let (subject, what) = (plain(&finding.subject), plain(&finding.what));
        let _ = writeln!(to, "{}[{}] {subject}: {what}", finding.severity, finding.rule);
        if finding.severity >= Severity::Warning && !explained.contains(&finding.rule) {
            let _ = writeln!(to, "  rule: {}", finding.rule.text());
            explained.push(finding.rule);
        }
        let _ = writeln!(to, "  next: {}", plain(&super::remedy::text(&finding.remedy)));
    }
}

/// Text without characters that a terminal obeys: names come from places where others can write.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
