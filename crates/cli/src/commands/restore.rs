//! `fabkeep restore`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fabkeep_engine::{
    CaKeep, ClusterTarget, GoBack, KeptFiles, RestoreOptions, RestorePlan, RestoreStep, RestoreTarget, Restored,
    SetAside,
};
use fabkeep_network::{Finding, Rule, Severity};
use fabkeep_platform::Host;
use fabkeep_platform::kubernetes::Relocation;
use fabkeep_store::{Commit, Repository};

use super::{done, key_files, list};
use crate::arguments::{AnotherPlace, CaPart, Restore, Workloads};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Restore, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let (commit, of_repository) = list::point(&repository, &arguments.point)?;
    output.remarks(&of_repository);
    let code = restore_point(arguments, &repository, &commit, output)?;
    // Another point than the operator thinks of may be the latest. What others have put into the repository is none.
    let of_points = |finding: &&Finding| finding.rule != Rule::RepositoryOwn || finding.severity == Severity::Error;
    let of_points: Vec<Finding> = of_repository.iter().filter(of_points).cloned().collect();
    Ok(if code == Code::Done { done(&of_points) } else { code })
}

fn restore_point(
    arguments: &Restore,
    repository: &Repository,
    commit: &Commit,
    output: &Output,
) -> Result<Code, CliError> {
    let identity = key_files::identity(repository, &arguments.identity)?;
    let host = arguments.inventory.as_deref().map(Host::open).transpose()?;
    let target = target(arguments, host.as_ref())?;
    check_overrides(&arguments.r#override)?;
    let start = if let RestoreTarget::Cluster(_) = target { !arguments.no_start } else { arguments.start };
    let options = RestoreOptions {
        nodes: arguments.node.clone(),
        ledgers: arguments.ledger_from.clone(),
        replicate: arguments.replicate.clone(),
        restart_others: arguments.restart_others,
        raft_state: arguments.raft_state.into(),
        go_back: GoBack { heights: arguments.at_height.clone(), before: arguments.before },
        ca_keep: ca_keep(arguments),
        replace: arguments.replace,
        missing: arguments.missing,
        from_snapshots: arguments.from_snapshots,
        stop: arguments.stop,
        assume_stopped: arguments.assume_stopped.clone(),
        start,
        overrides: arguments.r#override.clone(),
        deadline: Duration::from_secs(arguments.deadline),
        threads: 0,
    };
    let plan = RestorePlan::make(repository, commit, &identity, &target, &options)?;
    print_plan(&plan, output);
    if arguments.dry_run {
        output.json(&plan);
        output.findings(&plan.findings);
        return Ok(if plan.refusals().is_empty() { done(&plan.findings) } else { Code::Refused });
    }
    let restored = plan.execute(output.reporter().as_ref())?;
    output.json(&restored);
    Ok(print(&restored, output))
}

/// Refuses codes that are no rule's: they would override nothing.
pub fn check_overrides(codes: &[String]) -> Result<(), CliError> {
    match codes.iter().find(|code| !Rule::ALL.iter().any(|rule| rule.code() == **code)) {
        Some(code) => Err(CliError::new(
            Code::Usage,
            format!("--override {code}: there is no such rule"),
            "name a rule by its code, as the finding does: --override B11",
        )),
        None => Ok(()),
    }
}

/// Returns the target of the restore.
fn target<'h>(arguments: &Restore, host: Option<&'h Host>) -> Result<RestoreTarget<'h>, CliError> {
    let relocation = relocation(&arguments.place)?;
    let existing_workloads = arguments.workloads == Workloads::Existing;
    let target = match (&arguments.to, host) {
        (Some(to), _) => RestoreTarget::Folder(to.clone()),
        (None, Some(host)) => RestoreTarget::Host(host),
        (None, None) if arguments.cluster.is_meant() => {
            let (address, helper) = (arguments.cluster.address(), arguments.cluster.helper());
            return Ok(RestoreTarget::Cluster(ClusterTarget {
                address,
                helper,
                relocation,
                existing_workloads,
                fenced: false,
            }));
        }
        (None, None) => {
            return Err(CliError::new(
                Code::Usage,
                "the target is missing",
                "name a cluster (--kubernetes, --context), a folder (--to DIR) or an inventory (--inventory FILE)",
            ));
        }
    };
    let of_clusters = [
        (relocation.is_asked(), "--map-namespace, --storage-class and --registry"),
        (arguments.missing, "--missing"),
        (arguments.from_snapshots, "--from-snapshots"),
        (existing_workloads, "--workloads"),
        (arguments.no_start, "--no-start"),
    ];
    match of_clusters.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(CliError::new(
            Code::Usage,
            format!("{option} applies only to a restore into a cluster"),
            "remove it, or name the cluster (--kubernetes, --context) without --to and --inventory",
        )),
        None => Ok(target),
    }
}

fn ca_keep(arguments: &Restore) -> CaKeep {
    let kept = |part| arguments.ca_keep.contains(&part);
    CaKeep { tls: kept(CaPart::Tls), config: kept(CaPart::Config) }
}

/// Returns the relocation that the arguments request.
pub fn relocation(arguments: &AnotherPlace) -> Result<Relocation, CliError> {
    let wrong = |what: String| CliError::new(Code::Usage, what, "write it as OLD=NEW");
    let mut namespaces = BTreeMap::new();
    for mapping in &arguments.map_namespace {
        let old = mapping
            .from
            .clone()
            .ok_or_else(|| wrong(format!("--map-namespace {}: the old namespace is missing", mapping.to)))?;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !mapping.to.chars().all(letters) || mapping.to.len() > 63 {
            return Err(wrong(format!("--map-namespace: {} is not a valid name of a namespace", mapping.to)));
        }
        if namespaces.values().any(|new| *new == mapping.to) || namespaces.contains_key(&old) {
            return Err(wrong(format!("--map-namespace {old}={}: one of these names is given twice", mapping.to)));
        }
        namespaces.insert(old, mapping.to.clone());
    }
    if let Some(mapping) = arguments.registry.iter().find(|mapping| mapping.from.is_none()) {
        return Err(wrong(format!("--registry {}: the old registry is missing", mapping.to)));
    }
    Ok(Relocation {
        namespaces,
        storage_classes: arguments.storage_class.clone(),
        registries: arguments.registry.clone(),
    })
}

/// Prints the plan as text.
pub fn print_plan(plan: &RestorePlan<'_>, output: &Output) {
    output.line(format!(
        "plan: restore {} into {}: {}, {}{}",
        plan.point,
        plan.target,
        units::files(plan.files),
        units::bytes(plan.bytes),
        kept_part(plan.kept)
    ));
    for (number, steps) in plan.steps.chunk_by(is_one_line).enumerate() {
        output.line(format!("  {:>3}. {}", number + 1, text(steps)));
    }
    if plan.steps.is_empty() {
        output.line("  nothing to do");
    }
}

/// Returns how much of what is restored need not be written, as the rest of a sentence.
fn kept_part(kept: KeptFiles) -> String {
    if kept.is_empty() {
        return String::new();
    }
    let stay = if kept.files == 1 { "is there as captured and stays" } else { "are there as captured and stay" };
    format!("; {} of these, {}, {stay}", units::files(kept.files), units::bytes(kept.bytes))
}

/// Returns whether a step is printed in the same line as the one before it.
fn is_one_line(before: &RestoreStep, step: &RestoreStep) -> bool {
    let place = |step: &RestoreStep| matches!(step, RestoreStep::SetAside { .. } | RestoreStep::Place { .. });
    if let (RestoreStep::Write { node: first, .. }, RestoreStep::Write { node: second, .. }) = (before, step) {
        return first == second;
    }
    let of_namespace = |step| object(step).and_then(|object| object.rsplit_once('/')).map(|(kind, _)| kind);
    let alike = std::mem::discriminant(before) == std::mem::discriminant(step);
    place(before) && place(step) || alike && object(step).is_some() && of_namespace(before) == of_namespace(step)
}

/// Returns the object or node of a step that is nothing more.
fn object(step: &RestoreStep) -> Option<&str> {
    match step {
        RestoreStep::Create { object }
        | RestoreStep::Replace { object }
        | RestoreStep::CreateStopped { object }
        | RestoreStep::CreateLate { object }
        | RestoreStep::Stop { node: object } => Some(object),
        _ => None,
    }
}

/// Returns `Kind namespace/name, name` of objects of one kind and namespace.
fn objects(steps: &[RestoreStep]) -> String {
    let all: Vec<&str> = steps.iter().filter_map(object).collect();
    let further = all.iter().skip(1).map(|object| object.rsplit_once('/').map_or(*object, |(_, name)| name));
    all.iter().take(1).copied().chain(further).collect::<Vec<_>>().join(", ")
}

/// Returns paths, the shortest way: names below the folder that they have in common.
fn below(paths: &[&Path]) -> String {
    let name = |path: &&Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder = paths.first().and_then(|path| path.parent()).filter(|folder| *folder != Path::new("/"));
    match (folder, paths.iter().map(name).collect::<Option<Vec<_>>>()) {
        (Some(folder), Some(names)) if paths.len() > 1 && paths.iter().all(|path| path.parent() == Some(folder)) => {
            format!("{} in {}", names.join(", "), folder.display())
        }
        _ => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// Returns steps as one line.
fn text(steps: &[RestoreStep]) -> String {
    let Some(first) = steps.first() else { return String::new() };
    match first {
        RestoreStep::GoOn { begun, filled, started } => {
            format!(
                "continue the run that began {begun}: it has filled the volumes of {filled} nodes and started {started} workloads"
            )
        }
        RestoreStep::Suspend { object } => format!("suspend {object} until the end of the restore"),
        RestoreStep::Create { .. } => format!("create {}", objects(steps)),
        RestoreStep::Replace { .. } => format!("replace {}; a copy of each existing one is kept", objects(steps)),
        RestoreStep::FromSnapshot { claim, snapshot } => format!(
            "make claim {claim} from the kept snapshot {snapshot}; hash every file in it, and write what differs"
        ),
        RestoreStep::FromRepository { claim, why } => format!("fill claim {claim} from the repository: {why}"),
        RestoreStep::Stop { .. } => format!("stop {}", objects(steps)),
        RestoreStep::CreateStopped { .. } => format!("create with 0 replicas: {}", objects(steps)),
        RestoreStep::CreateLate { .. } => format!("create after the data is in place: {}", objects(steps)),
        RestoreStep::Write { node, .. } => {
            let (mut paths, mut all, mut size) = (Vec::new(), 0, 0);
            let mut kept = KeptFiles::default();
            for step in steps {
                let RestoreStep::Write { path, files, bytes, kept: stay, .. } = step else { continue };
                paths.push(path.as_path());
                (all, size) = (all + files, size + bytes);
                kept += *stay;
            }
            let paths = below(&paths);
            let (all, size) = (units::files(all), units::bytes(size));
            format!("{node}: write and verify {paths} ({all}, {size}{})", kept_part(kept))
        }
        RestoreStep::Keep { node, path } => format!("{node}: keep {} as it is", path.display()),
        RestoreStep::SetAside { .. } | RestoreStep::Place { .. } => placed(steps),
        RestoreStep::Load { node, database } => {
            format!(
                "{node}: load the dump into {database} and compare; its present content is dumped or set aside first"
            )
        }
        RestoreStep::Restart { node } => format!("restart {node}, and wait until its channels have a leader"),
        RestoreStep::Start { nodes } => format!("start {}", nodes.join(", then ")),
    }
}

/// Returns how written directories take their places.
fn placed(steps: &[RestoreStep]) -> String {
    let count = steps.iter().filter(|step| matches!(step, RestoreStep::Place { .. })).count();
    let asides: Vec<(String, String)> = steps
        .iter()
        .filter_map(|step| match step {
            RestoreStep::SetAside { path, to } => Some((path.display().to_string(), to.display().to_string())),
            _ => None,
        })
        .collect();
    let mut out = match count {
        1 => "put it into place".to_owned(),
        count => format!("put {count} directories into place"),
    };
    let ending = asides.first().and_then(|(path, to)| to.strip_prefix(path.as_str()));
    match ending {
        Some(ending) if asides.iter().all(|(path, to)| to.strip_prefix(path.as_str()) == Some(ending)) => {
            out += &format!("; what exists is set aside as DIRECTORY{ending}, unless it equals the captured data");
        }
        _ => asides.iter().for_each(|(path, to)| {
            out += &format!("\n       {path} is set aside as {to}, unless it equals the captured data");
        }),
    }
    out
}

/// Prints the result of a restore as text.
pub fn print(restored: &Restored, output: &Output) -> Code {
    output.findings(&restored.findings);
    let objects = if restored.objects > 0 { format!("{} objects, ", restored.objects) } else { String::new() };
    output.line(format!(
        "restored {} into {}: {objects}{} directories, {} files, {}, {}{}",
        restored.point,
        restored.target,
        restored.directories.len(),
        restored.files,
        units::bytes(restored.bytes),
        units::seconds(restored.seconds),
        if restored.resumed { " (continued an earlier run)" } else { "" }
    ));
    for sentence in &restored.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for (node, heights) in restored.ready.iter().filter(|(_, heights)| !heights.is_empty()) {
        let heights: Vec<String> = heights.iter().map(|(channel, height)| format!("{channel} {height}")).collect();
        output.line(format!("  {node}: {}", heights.join(", ")));
    }
    for SetAside { what, to } in &restored.set_aside {
        output.line(format!("  set aside: {what} as {to} (remove it when the network works)"));
    }
    if !restored.kept.is_empty() {
        output.line(format!(
            "  kept in their places: {}, {}, which were there as captured (listed in DIRECTORY.before-POINT.kept)",
            units::files(restored.kept.files),
            units::bytes(restored.kept.bytes)
        ));
    }
    if !restored.started.is_empty() {
        output.line(format!("  started: {}", restored.started.join(", ")));
    }
    if !restored.well {
        output
            .line("the data is in place, but not everything is ready: follow the findings' advice, then run the same command again");
        return Code::Incomplete;
    }
    done(&restored.findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(steps: &[RestoreStep]) -> Vec<String> {
        steps.chunk_by(is_one_line).map(text).collect()
    }

    #[test]
    fn steps_of_one_kind_are_one_line() {
        let create = |object: &str| RestoreStep::Create { object: object.to_owned() };
        let steps =
            [create("Secret org1/a"), create("Secret org1/b"), create("Secret org2/a"), create("ConfigMap org2/c")];
        assert_eq!(lines(&steps), ["create Secret org1/a, b", "create Secret org2/a", "create ConfigMap org2/c"]);
        let write = |node: &str, path: &str| RestoreStep::Write {
            node: node.to_owned(),
            path: path.into(),
            files: 1,
            bytes: 10,
            kept: KeptFiles::default(),
        };
        let steps =
            [write("O/a", "/net/a/msp"), write("O/a", "/net/a/tls"), write("O/b", "/data"), write("O/b", "/x/tls")];
        assert_eq!(
            lines(&steps),
            [
                "O/a: write and verify msp, tls in /net/a (2 files, 20 B)",
                "O/b: write and verify /data, /x/tls (2 files, 20 B)"
            ]
        );
        let kept = |files| RestoreStep::Write {
            node: "O/c".to_owned(),
            path: "/data".into(),
            files: 3,
            bytes: 3 << 20,
            kept: KeptFiles { files, bytes: files << 20 },
        };
        assert_eq!(
            lines(&[kept(1), kept(0)]),
            [
                "O/c: write and verify /data, /data (6 files, 6.0 MiB; 1 file of these, 1.0 MiB, is there as captured and stays)"
            ]
        );
        assert!(lines(&[kept(2)])[0].ends_with("; 2 files of these, 2.0 MiB, are there as captured and stay)"));
    }

    #[test]
    fn what_is_set_aside_is_named_where_it_is_not_beside_its_place() {
        let place = |path: &str| RestoreStep::Place { path: path.into() };
        let aside = |path: &str, to: &str| RestoreStep::SetAside { path: path.into(), to: to.into() };
        let beside = [aside("/a", "/a.before-1"), place("/a"), aside("/b", "/b.before-1"), place("/b")];
        assert_eq!(
            lines(&beside),
            [
                "put 2 directories into place; what exists is set aside as DIRECTORY.before-1, unless it equals the captured data"
            ]
        );
        let inside = lines(&[aside("/a", "/a.before-1"), place("/a"), aside("/m", "/m/.before-1"), place("/m")]);
        assert!(inside.len() == 1 && inside[0].contains("/m is set aside as /m/.before-1"), "{inside:?}");
    }
}
