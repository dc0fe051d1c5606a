//! `fabkeep doctor`.

use fabkeep_engine::{
    CaptureOptions, Check, Diagnosis, DoctorNetwork, DoctorOptions, DoctorRepository, Outcome, Reporter, Seen, Topic,
    examine,
};
use fabkeep_network::{Remedy, Rule};
use fabkeep_platform::kubernetes::Preflight;
use serde_json::{Value, json};

use super::{key_files, network};
use crate::arguments::{Doctor, Examined};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, interrupt, plain, remedy};

pub fn run(arguments: &Doctor, output: &Output) -> Result<Code, CliError> {
    let drawn = Diagnosed::of(diagnose(&arguments.examined, output.reporter().as_ref()));
    if interrupt::is_asked() {
        return Ok(Code::Interrupted);
    }
    output.json(&drawn.document);
    drawn.lines.iter().for_each(|line| output.line(line));
    Ok(match drawn.worst {
        Outcome::Ok | Outcome::Note => Code::Done,
        Outcome::Warning => Code::DoneWithFindings,
        Outcome::Failed => Code::Refused,
    })
}

/// Examines what the arguments name.
pub fn diagnose(examined: &Examined, reporter: &dyn Reporter) -> Diagnosis {
    let options = DoctorOptions {
        capture: CaptureOptions {
            exclude: examined.exclude.clone(),
            work_folder: examined.work_dir.clone(),
            ..CaptureOptions::default()
        },
        purposes: examined.purposes.iter().map(|purpose| (*purpose).into()).collect(),
        pods: !examined.no_pods,
    };
    let repository = examined.repo.as_deref().map(|location| {
        let opened = key_files::open_pinned(location, examined.pin.root.as_deref());
        let found = |repository| {
            key_files::found(repository, examined.writer.as_deref(), examined.identity.identity.as_deref())
        };
        DoctorRepository { location, keys: opened.as_ref().map(found).unwrap_or_default(), opened }
    });
    let place = &examined.place;
    let network = if place.cluster.is_meant() {
        Preflight::open(&place.cluster.address(), &place.cluster.selection())
            .map(|cluster| DoctorNetwork::Cluster { cluster, network: place.cluster.open_network().map(Box::new) })
    } else {
        network::open_host(place).map(|host| DoctorNetwork::Host(Box::new(host)))
    };
    let network = network.unwrap_or_else(DoctorNetwork::NotOpened);
    examine(network, repository, &options, reporter)
}

/// A diagnosis as a document and as text.
pub struct Diagnosed {
    /// How the worst check ended.
    pub worst: Outcome,
    /// For programs.
    pub document: Value,
    /// For people.
    pub lines: Vec<String>,
}

/// A check as text.
struct Drawn {
    topic: Topic,
    outcome: Outcome,
    subject: String,
    what: String,
    next: Option<String>,
    rule: Option<Rule>,
    remedy: Option<Remedy>,
}

impl Diagnosed {
    pub fn of(mut diagnosis: Diagnosis) -> Diagnosed {
        let worst = diagnosis.worst();
        let checks: Vec<Drawn> = std::mem::take(&mut diagnosis.checks).into_iter().map(Drawn::of).collect();
        let document = json!({
            "outcome": worst,
            "checks": checks.iter().map(Drawn::json).collect::<Vec<_>>(),
            "rights": diagnosis.rights,
            "nodes": diagnosis.nodes,
            "effort": diagnosis.effort,
        });
        let mut lines: Vec<String> = checks.iter().flat_map(Drawn::lines).collect();
        let count = |outcome: Outcome| checks.iter().filter(|check| check.outcome == outcome).count();
        let (ok, notes) = (count(Outcome::Ok), count(Outcome::Note));
        let (warnings, failed) = (count(Outcome::Warning), count(Outcome::Failed));
        let verdict = match worst {
            Outcome::Ok | Outcome::Note => "nothing stands against a backup",
            Outcome::Warning => "a backup can be made; read the warnings first",
            Outcome::Failed => {
                "a backup, or what --for names, would fail: follow the advice of what failed, then run this again"
            }
        };
        lines.push(format!("{ok} ok, {notes} notes, {warnings} warnings, {failed} failed: {verdict}"));
        Diagnosed { worst, document, lines }
    }
}

impl Drawn {
    fn of(check: Check) -> Drawn {
        let Check { topic, outcome, subject, seen } = check;
        let (what, next, rule, remedy) = match seen {
            Seen::Text { what, next } => (what, next.as_ref().map(remedy::text), None, next),
            Seen::Finding(finding) => {
                let next = remedy::text(&finding.remedy);
                (finding.what, Some(next), Some(finding.rule), Some(finding.remedy))
            }
            Seen::Error(error) => {
                let error = CliError::from(error);
                (error.message, error.help, None, None)
            }
        };
        Drawn { topic, outcome, subject, what, next, rule, remedy }
    }

    fn json(&self) -> Value {
        let mut out = json!({"topic": self.topic, "outcome": self.outcome, "subject": self.subject, "what": self.what});
        if let Some(rule) = self.rule {
            out["rule"] = json!(rule);
        }
        match (&self.remedy, &self.next) {
            (Some(remedy), _) => out["remedy"] = json!(remedy),
            (None, Some(next)) => out["remedy"] = json!(next),
            (None, None) => {}
        }
        out
    }

    fn lines(&self) -> Vec<String> {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
        };
        let topic = match self.topic {
            Topic::Network => "network",
            Topic::Rights => "rights",
            Topic::Helpers => "helpers",
            Topic::Storage => "storage",
            Topic::Snapshots => "snapshots",
            Topic::Clocks => "clocks",
            Topic::Leftovers => "leftovers",
            Topic::Nodes => "nodes",
            Topic::Room => "room",
            Topic::Repository => "repository",
            Topic::Keys => "keys",
            Topic::Effort => "effort",
        };
        let rule = self.rule.map(|rule| format!(" [{}]", rule.code())).unwrap_or_default();
        let subject = if self.subject.is_empty() { String::new() } else { format!("{}: ", plain(&self.subject)) };
        let first = format!("{outcome:<8} {topic:<11}{subject}{}{rule}", plain(&self.what));
        let next = self.next.as_ref().filter(|_| self.outcome > Outcome::Ok);
        std::iter::once(first).chain(next.map(|next| format!("{:<20}next: {}", "", plain(next)))).collect()
    }
}
