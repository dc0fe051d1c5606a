//! Findings as text: severity, rule, subject, what, what to do.

use std::io::Write;

use fabkeep_network::{Finding, Severity};

/// Prints findings, each with its rule's sentence once.
pub fn print_findings(to: &mut dyn Write, findings: &[Finding]) {
    let mut explained = Vec::new();
    for finding in findings {
        let _ = writeln!(to, "{}[{}] {}: {}", finding.severity, finding.rule, finding.subject, finding.what);
        if finding.severity >= Severity::Warning && !explained.contains(&finding.rule) {
            let _ = writeln!(to, "  rule: {}", finding.rule.text());
            explained.push(finding.rule);
        }
        let _ = writeln!(to, "  next: {}", finding.remedy);
    }
}
