//! Orderers of a cluster that stay while another comes back older than it was: their pods are deleted first, one at a time.

use std::collections::BTreeSet;

use fabkeep_engine::{EngineError, RestoreOptions, RestoreStep};
use fabkeep_fake_cluster::fabric::{self, Node, SMALL};
use fabkeep_fixtures::Growth;

use super::restores::{killed_at, options, restore, target, with_plan};
use super::scene::Scene;

const ORDERERS: [Node; 3] = [SMALL[0], SMALL[1], SMALL[2]];
const RESTORED: &str = "ordererorg/orderer2";

/// Orderers that went on while one of them was lost.
fn went_on() -> Scene {
    let scene = Scene::with(&ORDERERS);
    for node in &ORDERERS {
        // Nothing answers by TLS here: that would be waited for at each question.
        let mut object = scene.cluster.get("Deployment", "ordererorg", node.name).unwrap();
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        let mut settings = container["env"].as_array().cloned().unwrap_or_default();
        settings.push(serde_json::json!({"name": "ORDERER_ADMIN_TLS_ENABLED", "value": "false"}));
        container["env"] = settings.into();
        scene.cluster.put(object);
    }
    scene.back_up();
    Growth::open(&scene.network(), "mychannel").unwrap().grow(10, 2).unwrap();
    for node in [ORDERERS[0], ORDERERS[2]] {
        fabric::fill(&scene.cluster, &scene.network(), &node);
    }
    scene
}

fn one() -> RestoreOptions {
    RestoreOptions { nodes: vec![RESTORED.to_owned()], replace: true, restart_others: true, ..options() }
}

/// A block of the restored orderer is gone: it has to be filled again.
fn damage(scene: &Scene) {
    let chain = scene.cluster.volume("ordererorg", "orderer2-data").join("chains/mychannel/blockfile_000000");
    std::fs::write(chain, b"this is no block file").unwrap();
}

/// In which order pods of orderers were deleted, and the restored one's workload scaled up.
fn acts(scene: &Scene) -> Vec<String> {
    let mut out = Vec::new();
    for call in scene.cluster.calls().into_iter().filter(|call| !call.is_dry_run()) {
        let name = ["orderer1", "orderer2", "orderer3"].into_iter().find(|name| call.name.starts_with(name));
        let Some(name) = name else { continue };
        if call.is("delete", "pods") {
            out.push(format!("delete {name}"));
        }
        if call.is("patch", "deployments") && call.body.pointer("/spec/replicas").is_some_and(|count| count == 1) {
            out.push(format!("start {name}"));
        }
    }
    out
}

#[test]
fn the_pods_of_the_other_orderers_are_deleted_one_at_a_time_before_the_restored_one_starts() {
    let scene = went_on();
    scene.cluster.forget_calls();
    match restore(&scene, &RestoreOptions { restart_others: false, ..one() }) {
        Err(EngineError::Precondition(findings)) => {
            let behind = findings.iter().find(|finding| finding.rule.code() == "O2").unwrap();
            let remedy = format!("{:?}", behind.remedy);
            assert!(remedy.contains("RestartOthers") && remedy.contains("Replicate"), "{behind:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(acts(&scene), Vec::<String>::new());
    let steps = with_plan(&scene, &target(&scene), &one(), |plan| plan.steps.clone()).unwrap();
    let restarted: Vec<&str> = steps
        .iter()
        .filter_map(|step| if let RestoreStep::Restart { node } = step { Some(node.as_str()) } else { None })
        .collect();
    assert_eq!(restarted, ["ordererorg/orderer1", "ordererorg/orderer3"]);
    let restored = restore(&scene, &one()).unwrap();
    assert!(restored.well, "{restored:?}");
    assert_eq!(acts(&scene), ["delete orderer1", "delete orderer3", "start orderer2"]);
}

#[test]
fn wherever_it_is_killed_all_others_are_restarted_before_the_restored_one_starts() {
    let scene = went_on();
    let every = if std::env::var_os("FABKEEP_KILLS").is_some() { 1 } else { 25 };
    let seed = std::env::var("FABKEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(std::process::id);
    println!("seed {seed}: set FABKEEP_SEED to run the same again");
    let mut kills = 0;
    for at in (u64::from(seed) % every + 1..).step_by(usize::try_from(every).unwrap()) {
        damage(&scene);
        scene.cluster.forget_calls();
        let was_killed = killed_at(&scene, &one(), at);
        let acts = acts(&scene);
        let started = acts.iter().position(|act| act == "start orderer2").unwrap_or_else(|| panic!("{at}: {acts:?}"));
        let before: BTreeSet<&str> = acts[..started].iter().map(String::as_str).collect();
        assert!(before.contains("delete orderer1") && before.contains("delete orderer3"), "killed at {at}: {acts:?}");
        assert_eq!(fabric::heights(&scene.cluster, &ORDERERS[1])["mychannel"], 27, "killed at {at}");
        if !was_killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 3, "{kills}");
}

#[test]
fn an_orderer_that_nothing_makes_anew_is_told_before_anything_is_changed() {
    let scene = went_on();
    // Too few of them run.
    scene.cluster.patch("Deployment", "ordererorg", "orderer3", &serde_json::json!({"spec": {"replicas": 0}}));
    scene.cluster.forget_calls();
    match restore(&scene, &one()) {
        Err(EngineError::Precondition(findings)) => {
            let found = findings.iter().find(|finding| finding.what.contains("1 of its 3 consenters run"));
            assert!(found.is_some_and(|finding| finding.rule.code() == "O2"), "{findings:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(acts(&scene), Vec::<String>::new());
}
