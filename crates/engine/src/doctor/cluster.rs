//! A cluster: rights, helper pods, claims and classes, snapshots, clocks, leftovers.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::PlatformError;
use fabkeep_platform::kubernetes::{
    ClockSeen, HelperTried, Kubernetes, Left, Preflight, Purpose, ReadIn, RightHeld, Without,
};

use super::{Diagnosis, DoctorOptions, Outcome, Topic};
use crate::Reporter;
use crate::capture::{self, CaptureOptions, Volumes};
use crate::event::step;
use crate::units;

/// Examines a cluster. Returns the nodes that cannot be looked at, because nothing that could read them runs.
pub(super) fn examine(
    out: &mut Diagnosis,
    cluster: &Preflight,
    network: Option<&Kubernetes>,
    options: &DoctorOptions,
    reporter: &dyn Reporter,
) -> BTreeSet<NodeId> {
    out.ok(Topic::Network, cluster.cluster(), "the API server answers");
    let namespaces = network.map_or_else(|| cluster.namespaces().to_vec(), Kubernetes::namespaces);
    match step(reporter, "ask for rights", None, || cluster.rights(&namespaces)) {
        Ok(held) => {
            let account = cluster.account();
            [Purpose::Backup, Purpose::Window, Purpose::Snapshot, Purpose::Restore]
                .into_iter()
                .for_each(|purpose| rights(out, &held, purpose, options, account.as_deref()));
            out.rights = held;
        }
        Err(error) => out.error(Topic::Rights, Outcome::Warning, "", error),
    }
    match cluster.clock() {
        Ok(Some(clock)) => out.clock(&clock.of, clock.ahead_seconds),
        Ok(None) => {
            out.note(Topic::Clocks, "the API server", "it does not tell its time", "compare the clocks by hand")
        }
        Err(error) => out.error(Topic::Clocks, Outcome::Warning, "the API server", error),
    }
    match cluster.left(&namespaces) {
        Ok(left) => {
            let mut left = left;
            left.extend(network.map(Kubernetes::scaled_down).unwrap_or_default());
            leftovers(out, left);
        }
        Err(error) => out.error(Topic::Leftovers, Outcome::Warning, "", error),
    }
    let Some(network) = network else { return BTreeSet::new() };
    storage(out, cluster, network, options);
    snapshots(out, network, options);
    step(reporter, "try helper pods", None, || helpers(out, network, options))
}

/// Reports the rights for one purpose: those that are there in one line, missing ones with what is lost.
fn rights(out: &mut Diagnosis, held: &[RightHeld], purpose: Purpose, options: &DoctorOptions, account: Option<&str>) {
    let (subject, role) = match purpose {
        Purpose::Backup => ("for a backup", "fabkeep-backup"),
        Purpose::Window => ("for windows that scale, fence or stop", "fabkeep-window"),
        Purpose::Snapshot => ("for snapshots", "fabkeep-snapshot"),
        Purpose::Restore => ("for a restore", "fabkeep-restore"),
    };
    let of_purpose = || held.iter().filter(|held| held.right.purpose == purpose);
    let places: BTreeSet<&Option<String>> = of_purpose().map(|held| &held.namespace).collect();
    let namespaces = places.iter().filter(|place| place.is_some()).count();
    let all = of_purpose().count();
    let missing: Vec<&RightHeld> = of_purpose().filter(|held| !held.allowed).collect();
    if missing.is_empty() {
        out.ok(
            Topic::Rights,
            subject,
            format!("all {all} rights are there, in {}", units::counted(namespaces, "namespace")),
        );
        return;
    }
    // Rights that are missing in the same namespaces, with the same loss, are one line.
    let mut by_right: BTreeMap<String, (Without, BTreeSet<Option<String>>)> = BTreeMap::new();
    for held in &missing {
        let known = by_right.entry(held.right.label()).or_insert((held.right.without, BTreeSet::new()));
        known.1.insert(held.namespace.clone());
    }
    if !options.wants(purpose) {
        let labels: Vec<&str> = by_right.keys().map(String::as_str).collect();
        let what = format!("{} of {all} are missing: {}", missing.len(), labels.join(", "));
        out.note(Topic::Rights, subject, what, grant(role, &BTreeSet::new(), account));
        return;
    }
    // Rights that are missing in the same places, with the same loss.
    type Loss<'l> = (bool, BTreeSet<Option<String>>, &'l str);
    let mut lines: BTreeMap<Loss<'_>, Vec<String>> = BTreeMap::new();
    for (label, (without, places)) in by_right {
        let (needed, lost) = match without {
            Without::Nothing => (true, ""),
            Without::Less(lost) => (false, lost),
        };
        lines.entry((!needed, places, lost)).or_default().push(label);
    }
    for ((less, places, lost), labels) in lines {
        let named: Vec<&str> = places.iter().flatten().map(String::as_str).collect();
        let mut places_text = match named.len() {
            0 => "in the whole cluster".to_owned(),
            1 => format!("in namespace {}", named[0]),
            _ => format!("in namespaces {}", named.join(", ")),
        };
        if places.contains(&None) && !named.is_empty() {
            places_text.push_str(" and in the whole cluster");
        }
        let (what, verb) = if labels.len() == 1 { ("right", "is") } else { ("rights", "are") };
        let loss = if less { format!(": {lost}") } else { String::new() };
        let what = format!("the {what} to {} {verb} missing {places_text}{loss}", labels.join(", "));
        let outcome = if less { Outcome::Warning } else { Outcome::Failed };
        out.add(Topic::Rights, outcome, subject, what, Some(grant(role, &places, account)));
    }
}

/// Returns the commands that give a role to this account.
fn grant(role: &str, places: &BTreeSet<Option<String>>, account: Option<&str>) -> Remedy {
    let service_account = account.and_then(|account| account.strip_prefix("system:serviceaccount:"));
    let to = match (service_account, account) {
        (Some(account), _) => format!("--serviceaccount={account}"),
        (None, Some(user)) => format!("--user={user}"),
        (None, None) => "--user=USER".to_owned(),
    };
    let commands: Vec<String> = places
        .iter()
        .map(|place| match place {
            Some(namespace) => format!("`kubectl -n {namespace} create rolebinding {role} --clusterrole={role} {to}`"),
            None => format!("`kubectl create clusterrolebinding {role} --clusterrole={role} {to}`"),
        })
        .collect();
    let create = format!("create the ClusterRole {role} (docs/kubernetes.md, Rights)");
    let bind = if commands.is_empty() { "bind it in each namespace".to_owned() } else { commands.join(" and ") };
    Remedy::from(create).and(bind)
}

fn leftovers(out: &mut Diagnosis, left: Vec<Left>) {
    if left.is_empty() {
        out.ok(Topic::Leftovers, "earlier runs", "they left no helper pods, snapshots or progress records");
    }
    for thing in left {
        match thing {
            Left::Helper { object, age_seconds } => {
                let what = format!("an earlier run left it {age_seconds} s ago, or a run that is active uses it");
                out.warn(Topic::Leftovers, object, what, Remedy::RemoveHelpers);
            }
            Left::Restore { object } => out.warn(
                Topic::Leftovers,
                &object,
                "a restore was begun and has not ended",
                Remedy::ContinueRestore.or(format!(
                    "if it is given up, `kubectl -n {} delete configmap {}`",
                    object.namespace, object.name
                )),
            ),
            Left::ScaledDown { object, replicas } => out.warn(
                Topic::Leftovers,
                object,
                format!("fabkeep scaled it to 0; it had {}", units::counted(replicas as usize, "replica")),
                Remedy::UndoWindow.or(Remedy::ContinueRestore),
            ),
        }
    }
}

fn storage(out: &mut Diagnosis, cluster: &Preflight, network: &Kubernetes, options: &DoctorOptions) {
    let claims = network.claim_states();
    let classes = match cluster.storage_classes() {
        Ok(classes) => classes,
        Err(error) => {
            out.error(Topic::Storage, Outcome::Warning, "storage classes", error);
            return;
        }
    };
    let mut good = 0;
    for claim in &claims {
        let subject = format!("claim {}/{}", claim.namespace, claim.name);
        let class = claim.class.as_deref().filter(|class| !class.is_empty());
        let missing = class.zip(classes.as_ref()).filter(|(class, all)| !all.iter().any(|(name, _)| name == class));
        if claim.phase != "Bound" {
            out.warn(
                Topic::Storage,
                &subject,
                format!("it is {} and not bound to a volume: nothing of it can be read", claim.phase),
                format!("find out why: `kubectl -n {} describe pvc {}`", claim.namespace, claim.name),
            );
        } else if let Some((class, all)) = missing {
            let default = all.iter().find(|(_, default)| *default).or(all.first()).map(|(name, _)| name.clone());
            let what =
                format!("the cluster has no storage class {class}: it can be backed up, and a restore here is refused");
            let remedy = Remedy::OtherStorageClass { from: class.to_owned(), to: default };
            let mut finding = Finding::warning(Rule::StorageClass, &subject, what, remedy);
            if options.wants(Purpose::Restore) {
                finding.severity = fabkeep_network::Severity::Error;
            }
            out.finding(Topic::Storage, finding);
        } else {
            good += 1;
        }
    }
    if classes.is_none() {
        out.note(
            Topic::Storage,
            "storage classes",
            "not checked: this account may not list them",
            "a restore needs the right: the ClusterRole fabkeep-restore has it (docs/kubernetes.md)",
        );
    }
    if good > 0 {
        let what = if classes.is_some() { "bound, and the cluster has their storage classes" } else { "bound" };
        out.ok(Topic::Storage, units::counted(good, "claim"), what);
    }
}

fn snapshots(out: &mut Diagnosis, network: &Kubernetes, options: &DoctorOptions) {
    let wanted = options.wants(Purpose::Snapshot);
    let bad = if wanted { Outcome::Failed } else { Outcome::Note };
    let as_snapshots = CaptureOptions { volumes: Volumes::Snapshot, ..options.capture.clone() };
    match capture::snapshot_steps(network, &as_snapshots) {
        Ok(steps) => out.ok(Topic::Snapshots, "", format!("they can be taken of every volume: {}", steps.join("; "))),
        Err(crate::EngineError::Refused(findings)) if wanted => {
            findings.into_iter().for_each(|finding| out.finding(Topic::Snapshots, finding));
        }
        Err(crate::EngineError::Refused(findings)) => {
            let first = findings.first().map(|finding| format!("{}: {}", finding.subject, finding.what));
            let what = format!(
                "a backup without snapshots needs none; they cannot be taken of {}, the first: {}",
                units::counted(findings.len(), "volume"),
                first.unwrap_or_default()
            );
            out.add(Topic::Snapshots, bad, "", what, findings.into_iter().next().map(|finding| finding.remedy));
        }
        Err(error) => out.error(Topic::Snapshots, bad, "", error),
    }
}

/// Tries helper pods, and says where each node is read. Returns the nodes that cannot be read.
fn helpers(out: &mut Diagnosis, network: &Kubernetes, options: &DoctorOptions) -> BTreeSet<NodeId> {
    let mut clocks: BTreeMap<String, ClockSeen> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    let mut by_helper: BTreeMap<String, Vec<(NodeId, &'static str)>> = BTreeMap::new();
    let mut own = 0;
    let is_left_out = |node: &NodeId| options.capture.exclude.contains(&node.to_string());
    for read in network.read_nodes().into_iter().filter(|read| !is_left_out(&read.node)) {
        if let Some(clock) = read.clock {
            clocks.entry(clock.of.clone()).or_insert(clock);
        }
        match read.read_in {
            Ok(ReadIn::Nothing) => {}
            Ok(ReadIn::Own { .. }) => own += 1,
            Ok(ReadIn::Helper { reason }) => {
                by_helper.entry(read.node.organization.clone()).or_default().push((read.node, reason));
            }
            Err(error) => {
                out.error(Topic::Helpers, Outcome::Failed, &read.node, error);
                unread.insert(read.node);
            }
        }
    }
    if own > 0 {
        out.ok(
            Topic::Helpers,
            units::counted(own, "node"),
            "read in their own running containers, which have the tools",
        );
    }
    if !options.pods {
        let needing: Vec<NodeId> = by_helper.into_values().flatten().map(|(node, _)| node).collect();
        out.note(
            Topic::Helpers,
            "helper pods",
            "not tried, as requested: whether they are admitted and their image can be pulled is not known",
            Remedy::TryHelperPods,
        );
        for node in &needing {
            out.note(
                Topic::Nodes,
                node,
                "not looked at: it is read in a helper pod, and none was made",
                Remedy::TryHelperPods,
            );
        }
        unread.extend(needing);
        return unread;
    }
    match network.try_helpers() {
        Ok(tried) => {
            for HelperTried { namespace, ran, clock } in tried {
                if let Some(clock) = clock {
                    clocks.entry(clock.of.clone()).or_insert(clock);
                }
                let needing = by_helper.remove(&namespace).unwrap_or_default();
                let nodes: Vec<String> = needing.iter().map(|(node, why)| format!("{node} ({why})")).collect();
                let subject = format!("namespace {namespace}");
                match ran {
                    Ok(root) => {
                        let rights = if root { "with root's rights" } else { "with the rights of the workload's user" };
                        let needed = match nodes.is_empty() {
                            true => "no node needs one now".to_owned(),
                            false => format!("needed for {}", nodes.join(", ")),
                        };
                        let what = format!(
                            "a helper pod was admitted, ran {rights}, has the tools, and was removed; {needed}"
                        );
                        out.ok(Topic::Helpers, subject, what);
                    }
                    Err(error) if needing.is_empty() => {
                        let next = next_of(&error).unwrap_or(Remedy::NameHelperImage);
                        let what = format!(
                            "{error}. A backup uses the nodes' own containers instead, as long as they run and have the tools"
                        );
                        out.warn(Topic::Helpers, subject, what, next);
                    }
                    Err(error) => {
                        let next = next_of(&error).unwrap_or(Remedy::NameHelperImage);
                        out.fail(
                            Topic::Helpers,
                            subject,
                            format!("{error}. It is needed for {}", nodes.join(", ")),
                            next,
                        );
                        unread.extend(needing.into_iter().map(|(node, _)| node));
                    }
                }
            }
        }
        Err(error) => out.error(Topic::Helpers, Outcome::Failed, "", error),
    }
    for clock in clocks.values() {
        out.clock(&clock.of, clock.ahead_seconds);
    }
    unread
}

fn next_of(error: &PlatformError) -> Option<Remedy> {
    match error {
        PlatformError::Cluster { next, .. }
        | PlatformError::Forbidden { next, .. }
        | PlatformError::NotHere { next, .. } => Some(next.clone()),
        _ => None,
    }
}
