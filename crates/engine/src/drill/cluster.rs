//! A drill in scratch namespaces of a cluster: made and closed off first, checked from inside, filled and started by a restore, looked at, and
//! removed however it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeFacts, Remedy, Rule};
use fabkeep_platform::kubernetes::{
    FenceProbe, FenceSeen, Kubernetes, MadeScratch, ObjectState, Relocation, ScratchNamespace, Selection, Target,
};
use fabkeep_platform::{BlockFiles, Declaration, Platform, ProbeScope};
use serde_json::Value;

use super::{DrillCluster, DrillRequest, Drilled, proof, refused};
use crate::event::{Reporter, step};
use crate::misuse::Misuse;
use crate::point::RecoveryPoint;
use crate::restore::{ClusterTarget, RestoreOptions, RestoreTarget};
use crate::window::observe_all;
use crate::{EngineError, RestorePlan};
use fabkeep_parallel as parallel;

/// Longest name of a namespace, in bytes.
const MAX_NAME_BYTES: usize = 63;
/// How long the namespaces may take to go.
const GOING: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(500);
/// Certificate authorities asked at a time.
const AT_ONCE: usize = 8;

pub(super) fn drill(
    asked: &DrillRequest<'_, '_>,
    place: &DrillCluster,
    drilled: &mut Drilled,
) -> Result<(), EngineError> {
    let namespaces = step(asked.times, "open the recovery point", None, || namespaces_of(asked))?;
    let scratch = scratch_names(&namespaces, &place.prefix)?;
    drilled.namespaces = scratch.values().cloned().collect();
    let target = Target::open(&place.address)?;
    drilled.drill.place = format!("{}: {}", target.cluster(), drilled.namespaces.join(", "));
    measure_age(asked, place, &namespaces, drilled);
    step(asked.times, "look for the scratch namespaces", None, || must_be_new(&target, &drilled.namespaces))?;
    let plan = step(asked.times, "plan", None, || plan(asked, place, scratch.clone()))?;
    asked.check(&plan, drilled)?;
    asked.interrupted()?;
    let mut made = Scratch { target: &target, namespaces: Vec::new(), guards: true };
    let ended = in_scratch(asked, place, &plan, &namespaces, &scratch, &mut made, drilled);
    drilled.drill.rto_seconds = asked.times.elapsed();
    if asked.options.keep {
        made.guards = false;
        drilled.kept = !made.namespaces.is_empty();
    } else {
        drilled.left = step(asked.times, "tear down", None, || made.tear_down());
        if let Some(finding) = volumes_left(&target, &drilled.namespaces) {
            drilled.findings.push(finding);
        }
    }
    ended
}

/// Returns what a drill of a recovery point into a cluster would do.
///
/// # Errors
/// [`EngineError`] when the point cannot be read, or what was asked for cannot be done.
pub(super) fn planned<'a>(
    asked: &DrillRequest<'a, '_>,
    place: &DrillCluster,
) -> Result<(RestorePlan<'a>, Vec<String>), EngineError> {
    let scratch = scratch_names(&namespaces_of(asked)?, &place.prefix)?;
    let names: Vec<String> = scratch.values().cloned().collect();
    must_be_new(&Target::open(&place.address)?, &names)?;
    Ok((plan(asked, place, scratch)?, names))
}

/// The captured namespaces.
fn namespaces_of(asked: &DrillRequest<'_, '_>) -> Result<Vec<String>, EngineError> {
    let (point, _) = asked.repository.read_point::<RecoveryPoint>(asked.commit, asked.identity)?;
    let names = point.objects.iter().map(|object| match object.kind.as_str() {
        "Namespace" => object.name.clone(),
        _ => object.namespace.clone(),
    });
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Misuse::new(format!("recovery point {} was not captured on Kubernetes", asked.commit.id))
            .next("drill it into a folder")
            .into());
    }
    Ok(names.into_iter().collect())
}

/// Scratch namespaces by the captured ones.
fn scratch_names(namespaces: &[String], prefix: &str) -> Result<BTreeMap<String, String>, EngineError> {
    let valid = |name: &str| {
        let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        letters && name.len() <= MAX_NAME_BYTES && !name.starts_with('-') && !name.starts_with("kube-")
    };
    let mut out = BTreeMap::new();
    for namespace in namespaces {
        let name = format!("{prefix}{namespace}");
        if prefix.is_empty() || !valid(&name) || namespaces.contains(&name) {
            return Err(Misuse::new(format!("{name:?} cannot be the name of the scratch namespace of {namespace}"))
                .next(Remedy::OtherScratchNames)
                .into());
        }
        out.insert(namespace.clone(), name);
    }
    Ok(out)
}

/// A drill uses no namespace that is there already.
fn must_be_new(target: &Target, names: &[String]) -> Result<(), EngineError> {
    let declared: Vec<Declaration> = names
        .iter()
        .map(|name| Declaration {
            namespace: String::new(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            name: name.clone(),
            object: Value::Null,
        })
        .collect();
    let states = target.compare(&declared.iter().collect::<Vec<_>>())?;
    let there = names.iter().zip(states).filter(|(_, state)| *state != ObjectState::Missing);
    let findings: Vec<Finding> = there.map(|(name, _)| exists(name)).collect();
    if findings.is_empty() { Ok(()) } else { Err(EngineError::Precondition(findings)) }
}

fn exists(name: &str) -> Finding {
    Finding::error(
        Rule::DrillFenced,
        format!("Namespace {name}"),
        "it exists already: a drill uses only namespaces that it has made itself",
        Remedy::OtherScratchNames.or(Remedy::from("if an earlier drill has left it").and(Remedy::RemoveDrills)),
    )
}

fn plan<'a>(
    asked: &DrillRequest<'a, '_>,
    place: &DrillCluster,
    scratch: BTreeMap<String, String>,
) -> Result<RestorePlan<'a>, EngineError> {
    let relocation = Relocation {
        namespaces: scratch,
        storage_classes: place.storage_classes.clone(),
        registries: place.registries.clone(),
    };
    let target = RestoreTarget::Cluster(ClusterTarget {
        address: place.address.clone(),
        helper: place.helper.clone(),
        relocation,
        existing_workloads: false,
        fenced: true,
    });
    let options = RestoreOptions { start: true, replace: false, missing: false, ..asked.options.restore.clone() };
    RestorePlan::make(asked.repository, asked.commit, asked.identity, &target, &options)
}

/// How much the running network has more than the point. That it cannot be asked is no reason against a drill.
fn measure_age(asked: &DrillRequest<'_, '_>, place: &DrillCluster, namespaces: &[String], drilled: &mut Drilled) {
    let behind = step(asked.times, "ask the running network", None, || {
        let selection = Selection { namespaces: namespaces.to_vec(), ..Selection::default() };
        let living = Kubernetes::open(&place.living, &selection, place.helper.clone()).ok()?;
        Some(asked.behind(&living, ProbeScope { block_files: BlockFiles::Never, health: false }))
    });
    drilled.drill.rpo_blocks = behind.unwrap_or_default();
    let all = asked.commit.summary.channels.iter();
    let unknown: Vec<&str> = all
        .map(|known| known.channel.as_str())
        .filter(|channel| !drilled.drill.rpo_blocks.contains_key(*channel))
        .collect();
    if !unknown.is_empty() {
        let sentence =
            format!("how many blocks the running network has more on {}: no node of it answered", unknown.join(", "));
        drilled.drill.not_proven.push(sentence);
    }
}

/// Namespaces that this drill has made. They are removed when this is dropped.
struct Scratch<'t> {
    target: &'t Target,
    namespaces: Vec<ScratchNamespace>,
    guards: bool,
}

impl Scratch<'_> {
    /// Removes them, and waits until they are gone. Returns what could not be removed, and why.
    fn tear_down(&mut self) -> Vec<String> {
        self.guards = false;
        let mut left = Vec::new();
        for namespace in &self.namespaces {
            if let Err(error) = self.target.remove_scratch(namespace) {
                left.push(format!("Namespace {}: {error}", namespace.name));
            }
        }
        if !left.is_empty() {
            return left;
        }
        let begun = Instant::now();
        loop {
            let kept: Vec<String> = self
                .namespaces
                .iter()
                .filter_map(|namespace| match self.target.is_scratch_gone(namespace) {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(format!("Namespace {}: {why}", namespace.name)),
                    Err(error) => Some(format!("Namespace {}: {error}", namespace.name)),
                })
                .collect();
            if kept.is_empty() || begun.elapsed() > GOING {
                return kept;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.guards {
            for namespace in &self.namespaces {
                // `clean` removes what is left.
                let _ = self.target.remove_scratch(namespace);
            }
        }
    }
}

/// Volumes whose class keeps them when their claims are gone.
fn volumes_left(target: &Target, namespaces: &[String]) -> Option<Finding> {
    let kept = target.volumes_kept_of(namespaces).unwrap_or_default();
    (!kept.is_empty()).then(|| {
        Finding::warning(
            Rule::DrillFenced,
            format!("{} PersistentVolumes", kept.len()),
            "their storage class keeps them (reclaim policy Retain): the restored data, with the nodes' keys, is still on them",
            format!("delete them and what they stand for: kubectl delete pv {}; or drill with another storage class", kept.join(" ")),
        )
    })
}

/// Everything between the first namespace and the end of the proof.
fn in_scratch(
    asked: &DrillRequest<'_, '_>,
    place: &DrillCluster,
    plan: &RestorePlan<'_>,
    namespaces: &[String],
    scratch: &BTreeMap<String, String>,
    made: &mut Scratch<'_>,
    drilled: &mut Drilled,
) -> Result<(), EngineError> {
    step(asked.times, "make and close the scratch namespaces", None, || make(asked, plan, made, drilled))?;
    step(asked.times, "check the fence from inside", None, || {
        check_fence(asked, place, plan, namespaces, made, drilled)
    })?;
    asked.interrupted()?;
    let restored = plan.execute(asked.times)?;
    let is_up = restored.well;
    drilled.restored(restored);
    asked.interrupted()?;
    step(asked.times, "look at the nodes", None, || look(place, plan, drilled))?;
    asked.interrupted()?;
    match &asked.options.check {
        Some(command) if is_up => {
            step(asked.times, "the check", None, || run_check(asked, place, plan, command, scratch, drilled))
        }
        Some(_) => drilled
            .drill
            .not_proven
            .push("what the given check tests: it was not run, because not everything is ready".to_owned()),
        None => {
            drilled.drill.not_proven.push("that transactions are endorsed and committed: no check was given".to_owned())
        }
    }
    drilled.drill.not_proven.push(
        "that clients reach the network: Ingresses, routes and addresses outside of the cluster are not restored"
            .to_owned(),
    );
    Ok(())
}

fn make(
    asked: &DrillRequest<'_, '_>,
    plan: &RestorePlan<'_>,
    made: &mut Scratch<'_>,
    drilled: &Drilled,
) -> Result<(), EngineError> {
    let (drill, point) = (&drilled.drill.id, asked.commit.id.as_str());
    for name in &drilled.namespaces {
        let like = plan.created().iter().find(|known| known.kind == "Namespace" && known.name == *name);
        match made.target.make_scratch(drill, point, name, like)? {
            MadeScratch::Made(namespace) => made.namespaces.push(namespace),
            MadeScratch::Exists { .. } => return Err(EngineError::Precondition(vec![exists(name)])),
        }
        made.target.fence_scratch(drill, name)?;
    }
    Ok(())
}

/// Nothing of production may be reached from inside, before a node runs there.
fn check_fence(
    asked: &DrillRequest<'_, '_>,
    place: &DrillCluster,
    plan: &RestorePlan<'_>,
    namespaces: &[String],
    made: &Scratch<'_>,
    drilled: &mut Drilled,
) -> Result<(), EngineError> {
    let Some(first) = made.namespaces.first() else { return Ok(()) };
    let mut pull_secrets = Vec::new();
    for known in plan.created().iter().filter(|known| known.namespace == first.name && is_pull_secret(known)) {
        made.target.create(known)?;
        pull_secrets.push(known.name.clone());
    }
    let outside = made.target.answering_services(namespaces)?;
    let probe = FenceProbe {
        namespace: &first.name,
        image: &place.helper.image,
        pull_secrets: &pull_secrets,
        outside: &outside,
        settle: place.settle,
    };
    let seen = made.target.look_from_inside(&probe, &|| asked.times.is_interrupted())?;
    asked.interrupted()?;
    match judge_fence(&seen) {
        Ok(sentence) => drilled.drill.proven.push(sentence),
        Err(what) if place.unfenced => {
            drilled.findings.push(Finding::warning(
                Rule::DrillFenced,
                "the fence",
                format!("{what}; the drill goes on, because this was accepted"),
                "make sure that the restored nodes know no name or address of running ones",
            ));
            drilled.drill.not_proven.push(format!("that the drill reached nothing outside: {what}"));
        }
        Err(what) => {
            let next = Remedy::from(
                "drill in a cluster whose network plugin enforces NetworkPolicies (Calico, Cilium and others do)",
            );
            return Err(refused("the fence", what, next.or(Remedy::NameHelperImage).or(Remedy::DrillUnfenced)));
        }
    }
    if seen.api_server == Some(true) && seen.reached.is_empty() && seen.blocked > 0 {
        drilled.findings.push(Finding::warning(
            Rule::DrillFenced,
            "the API server",
            "pods of the drill reach the API server although a NetworkPolicy forbids it: the network plugin exempts it",
            "no action is needed: the restored nodes do not use it",
        ));
    }
    Ok(())
}

fn is_pull_secret(known: &Declaration) -> bool {
    let kind = known.object.get("type").and_then(Value::as_str).unwrap_or_default();
    known.kind == "Secret" && kind.starts_with("kubernetes.io/docker")
}

/// Returns what the look from inside proves, or why the fence does not hold.
fn judge_fence(seen: &FenceSeen) -> Result<String, String> {
    if !seen.reached.is_empty() {
        return Err(format!(
            "a pod in a scratch namespace reaches {} although a NetworkPolicy forbids it: the cluster's network plugin does not enforce NetworkPolicies",
            seen.reached.join(", ")
        ));
    }
    if !seen.works {
        return Err("it cannot be checked: the helper image has no `nc`, or DNS is not reached from inside".to_owned());
    }
    match (seen.blocked, seen.api_server) {
        (0, Some(true)) => Err("a pod in a scratch namespace reaches the API server although a NetworkPolicy forbids it: the cluster's network plugin does not enforce NetworkPolicies".to_owned()),
        (0, None) => Err("it cannot be checked: nothing outside is known that a pod could try to reach".to_owned()),
        (0, Some(false)) => Ok("from inside, the API server is not reached: NetworkPolicies are enforced".to_owned()),
        (blocked, _) => Ok(format!("from inside, none of {blocked} Services of the running network is reached: NetworkPolicies are enforced")),
    }
}

/// Looks at what runs now.
fn look(place: &DrillCluster, plan: &RestorePlan<'_>, drilled: &mut Drilled) -> Result<(), EngineError> {
    let selection = Selection { namespaces: drilled.namespaces.clone(), ..Selection::default() };
    let kubernetes = Kubernetes::open(&place.address, &selection, place.helper.clone())?;
    let observed = observe_all(&kubernetes, ProbeScope { block_files: BlockFiles::IfSilent, health: true });
    let facts: Vec<&NodeFacts> = plan.point().nodes.iter().map(|node| &node.facts).collect();
    let mut looked = proof::nodes(&facts, &observed);
    looked.add(proof::commit_hashes(&facts));
    looked.add(proof::point(&facts, jiff::Timestamp::now()));
    let authorities: Vec<_> = kubernetes
        .network()
        .nodes()
        .filter(|node| node.role == NodeRole::CertificateAuthority)
        .map(|node| node.id.clone())
        .collect();
    let answers = parallel::map(authorities, AT_ONCE, |id| {
        let answer = kubernetes.ask_authority(&id);
        (id, answer)
    });
    for (id, answer) in answers {
        match answer {
            Ok(name) if name.is_empty() => looked.proven.push(format!("certificate authority {id} answers")),
            Ok(name) => looked.proven.push(format!("certificate authority {id} answers, as {name}")),
            Err(problem) => looked.problems.push(format!("certificate authority {id} does not answer: {problem}")),
        }
    }
    drilled.looked(looked);
    Ok(())
}

fn run_check(
    asked: &DrillRequest<'_, '_>,
    place: &DrillCluster,
    plan: &RestorePlan<'_>,
    command: &str,
    scratch: &BTreeMap<String, String>,
    drilled: &mut Drilled,
) {
    let services = plan.created().iter().filter(|known| known.kind == "Service").map(|known| {
        let port = known.object.pointer("/spec/ports/0/port").and_then(Value::as_u64).unwrap_or_default();
        format!("{}/{}:{port}", known.namespace, known.name)
    });
    let channels = plan.point().channels.iter().map(|channel| channel.name.clone());
    let words = |words: &mut dyn Iterator<Item = String>| words.collect::<Vec<_>>().join(" ");
    let mut environment = vec![
        ("FABKEEP_DRILL".to_owned(), drilled.drill.id.clone()),
        ("FABKEEP_DRILL_POINT".to_owned(), asked.commit.id.to_string()),
        ("FABKEEP_DRILL_NAMESPACES".to_owned(), drilled.namespaces.join(" ")),
        ("FABKEEP_DRILL_SERVICES".to_owned(), words(&mut services.into_iter())),
        ("FABKEEP_DRILL_CHANNELS".to_owned(), words(&mut channels.into_iter())),
    ];
    environment.extend(scratch.iter().map(|(old, new)| {
        let name: String =
            old.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        (format!("FABKEEP_DRILL_NAMESPACE_{name}"), new.clone())
    }));
    if let Some(file) = &place.address.kubeconfig {
        environment.push(("KUBECONFIG".to_owned(), file.display().to_string()));
    }
    if let Some(context) = &place.address.context {
        environment.push(("FABKEEP_DRILL_CONTEXT".to_owned(), context.clone()));
    }
    asked.run_check(command, &environment, drilled);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(reached: &[&str], blocked: usize, api_server: Option<bool>, works: bool) -> FenceSeen {
        FenceSeen { reached: reached.iter().map(ToString::to_string).collect(), blocked, api_server, works }
    }

    #[test]
    fn a_fence_holds_only_if_something_was_tried_that_could_be_reached() {
        for open in [
            seen(&["Service a/b"], 3, Some(false), true),
            seen(&["Service a/b"], 0, None, false),
            seen(&[], 3, Some(false), false),
            seen(&[], 0, Some(true), true),
            seen(&[], 0, None, true),
        ] {
            assert!(judge_fence(&open).is_err(), "{open:?}");
        }
        for closed in [seen(&[], 0, Some(false), true), seen(&[], 2, Some(true), true), seen(&[], 2, None, true)] {
            assert!(judge_fence(&closed).is_ok(), "{closed:?}");
        }
    }

    #[test]
    fn scratch_names_are_names_of_namespaces_and_of_no_captured_one() {
        let names = ["org1".to_owned(), "orderers".to_owned()];
        assert_eq!(scratch_names(&names, "drill-").unwrap()["org1"], "drill-org1");
        for prefix in ["", "-", "Drill-", "kube-", "a.", &"x".repeat(60)] {
            assert!(scratch_names(&names, prefix).is_err(), "{prefix}");
        }
        assert!(scratch_names(&["org1".to_owned(), "x-org1".to_owned()], "x-").is_err());
    }
}
