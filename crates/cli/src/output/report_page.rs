//! The report as one HTML page. The template escapes everything; figures are drawn as SVG with shares of their width,
//! so that they fit a phone and a sheet of paper.

use askama::Template;
use fabkeep_engine::{
    CommandPurpose, Report, ReportedCertificate, ReportedChannel, ReportedStage, SizeOf, Timeline, TimelineOf,
};
use fabkeep_network::{Finding, Severity};

use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{remedy, units};

/// Is near the beginning of every page.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"fabkeep";
/// Most certificates that are listed one by one before the rest is folded.
const CERTIFICATES_SHOWN: usize = 20;
/// Days before its expiry from which a certificate is marked.
const SOON_DAYS: i64 = 90;
const VERY_SOON_DAYS: i64 = 30;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    complete: bool,
    warnings: usize,
    age: String,
    rto: Option<String>,
    channels: Vec<ChannelPlot<'a>>,
    timelines: Vec<TimelinePlot<'a>>,
    sizes: Vec<SizeBar<'a>>,
    certificates: Vec<CertificateRow<'a>>,
    more_certificates: Vec<CertificateRow<'a>>,
    findings: Vec<FindingRow<'a>>,
    commands: Vec<(&'static str, &'a str)>,
}

/// A channel's heights, on a scale that begins near the lowest of them.
struct ChannelPlot<'a> {
    channel: &'a ReportedChannel,
    from: u64,
    to: u64,
    dots: Vec<Dot<'a>>,
}

struct Dot<'a> {
    node: &'a str,
    role: &'a str,
    height: u64,
    behind: u64,
    at: f64,
}

struct TimelinePlot<'a> {
    title: &'static str,
    timeline: &'a Timeline,
    seconds: String,
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    stage: &'a ReportedStage,
    from: f64,
    width: f64,
    seconds: String,
    bytes: Option<String>,
}

struct SizeBar<'a> {
    size: &'a SizeOf,
    width: f64,
    bytes: String,
    files: String,
}

struct CertificateRow<'a> {
    certificate: &'a ReportedCertificate,
    day: &'a str,
    width: f64,
    class: &'static str,
    left: String,
}

struct FindingRow<'a> {
    finding: &'a Finding,
    class: &'static str,
    code: &'static str,
    rule: &'static str,
    remedy: String,
}

/// Renders a report as a page.
pub fn render(report: &Report) -> Result<String, CliError> {
    let mut certificates = certificate_rows(&report.certificates);
    let more_certificates = certificates.split_off(certificates.len().min(CERTIFICATES_SHOWN));
    let largest = report.sizes.kinds.iter().map(|size| size.bytes).max().unwrap_or_default();
    let page = Page {
        report,
        complete: report.point.verdict == "complete",
        warnings: report.findings.iter().filter(|finding| finding.severity >= Severity::Warning).count(),
        age: units::span(report.rpo.seconds),
        rto: report.rto.as_ref().map(|rto| units::seconds(rto.seconds)),
        channels: report.channels.iter().map(plot).collect(),
        timelines: report.timelines.iter().map(timeline).collect(),
        sizes: report.sizes.kinds.iter().map(|size| size_bar(size, largest)).collect(),
        certificates,
        more_certificates,
        findings: report.findings.iter().map(finding_row).collect(),
        commands: report.commands.iter().map(|known| (purpose(&known.purpose), known.command.as_str())).collect(),
    };
    page.render().map_err(|error| {
        CliError::new(
            Code::Failed,
            format!("the page cannot be written: {error}"),
            "this is a bug: report it with the command and its output",
        )
    })
}

/// Returns a share in per cent, of something that may be nothing.
fn share(part: f64, whole: f64) -> f64 {
    let share = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    (share.clamp(0.0, 100.0) * 100.0).round() / 100.0
}

fn plot(channel: &ReportedChannel) -> ChannelPlot<'_> {
    let lowest = channel.nodes.iter().map(|node| node.height).min().unwrap_or(channel.height);
    // Room for the lowest dot beside the end of the scale.
    let spread = channel.height.saturating_sub(lowest);
    let from = if spread == 0 { 0 } else { lowest.saturating_sub((spread / 2).max(1)) };
    let dots = channel.nodes.iter().map(|node| Dot {
        node: &node.node,
        role: &node.role,
        height: node.height,
        behind: node.behind,
        at: share(node.height.saturating_sub(from) as f64, channel.height.saturating_sub(from) as f64),
    });
    ChannelPlot { channel, from, to: channel.height, dots: dots.collect() }
}

fn timeline(timeline: &Timeline) -> TimelinePlot<'_> {
    let bars = timeline.stages.iter().map(|stage| Bar {
        stage,
        from: share(stage.begun_seconds, timeline.seconds),
        width: share(stage.seconds, timeline.seconds).max(0.4),
        seconds: units::seconds(stage.seconds),
        bytes: (stage.bytes > 0).then(|| units::bytes(stage.bytes)),
    });
    TimelinePlot {
        title: match timeline.of {
            TimelineOf::Capture => "Capture",
            TimelineOf::Drill => "Drill",
        },
        timeline,
        seconds: units::seconds(timeline.seconds),
        bars: bars.collect(),
    }
}

fn size_bar(size: &SizeOf, largest: u64) -> SizeBar<'_> {
    SizeBar {
        size,
        width: share(size.bytes as f64, largest as f64).max(0.4),
        bytes: units::bytes(size.bytes),
        files: units::files(size.files),
    }
}

fn certificate_rows(certificates: &[ReportedCertificate]) -> Vec<CertificateRow<'_>> {
    let longest = certificates.iter().map(|certificate| certificate.days).max().unwrap_or_default();
    certificates.iter().map(|certificate| certificate_row(certificate, longest)).collect()
}

fn certificate_row(certificate: &ReportedCertificate, longest: i64) -> CertificateRow<'_> {
    let ReportedCertificate { days, not_after, .. } = certificate;
    CertificateRow {
        certificate,
        day: not_after.get(..10).unwrap_or("?"),
        width: share(*days as f64, longest as f64).max(0.4),
        class: match days {
            ..VERY_SOON_DAYS => "bad",
            VERY_SOON_DAYS..SOON_DAYS => "warn",
            _ => "good",
        },
        left: if *days < 0 { format!("expired {} days ago", -days) } else { format!("{days} days") },
    }
}

fn finding_row(finding: &Finding) -> FindingRow<'_> {
    FindingRow {
        finding,
        class: match finding.severity {
            Severity::Error => "bad",
            Severity::Warning => "warn",
            Severity::Note => "note",
        },
        code: finding.rule.code(),
        rule: finding.rule.text(),
        remedy: remedy::text(&finding.remedy),
    }
}

fn purpose(purpose: &CommandPurpose) -> &'static str {
    match purpose {
        CommandPurpose::Verify => "Verify every object and chain of this point",
        CommandPurpose::Plan => "Show what a restore would do; changes nothing",
        CommandPurpose::Restore => "Restore the whole network",
        CommandPurpose::RestoreMissing => "Restore only what is missing",
        CommandPurpose::RestoreNode(_) => "Restore one node; its existing data is set aside",
        CommandPurpose::RestoreIntoFolder => "Restore into a folder, beside everything",
        CommandPurpose::EarlierHeight(_) => "Go back to an earlier height of a channel; shows the plan",
    }
}
