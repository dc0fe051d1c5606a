//! What is lost while the rest of a network runs; windows; other places.

use super::kit::Pods;

/// A recovery point of a window in which the pod that sends transactions is stopped.
pub fn window(pods: &Pods) {
    let _scenario = pods.also("in pods: a window under load (--quiesce scale)");
    let mut load = pods.load();
    assert!(load.is_sent(), "there is no load");
    let client = format!("{}orderers/deployment/tools", pods.prefix);
    pods.backup(&pods.prefix, &["--quiesce", "scale", "--client", &client]);
    load.ends();
    pods.kubectl(&["-n", &format!("{}orderers", pods.prefix), "rollout", "status", "deployment/tools"]);
    pods.goes_on(&pods.prefix, "after the window");
}

/// Group snapshots under load, then everything is lost: the drivers cut them while nodes write.
pub fn from_snapshots(pods: &Pods) {
    let _scenario = pods.also("in pods: CSI group snapshots under load, everything lost, restored");
    let mut load = pods.load();
    pods.backup(&pods.prefix, &["--volumes", "snapshot", "--consistency", "cut"]);
    assert!(load.is_sent(), "the load ended before the snapshots");
    // The members of a group are deleted behind it.
    let left = || -> Vec<String> {
        let kinds = "volumesnapshots,volumegroupsnapshots";
        let of = |namespace: String| pods.kubectl(&["-n", &namespace, "get", kinds, "-o", "name"]);
        Pods::namespaces(&pods.prefix).into_iter().map(of).filter(|names| !names.trim().is_empty()).collect()
    };
    pods.wait_until("the snapshots are gone", || left().is_empty());
    pods.lose(&pods.prefix);
    load.ends();
    pods.restore(&[]);
    pods.goes_on(&pods.prefix, "from snapshots");
}

/// One peer's claim and one authority's.
pub fn claims(pods: &Pods) {
    let _scenario = pods.also("in pods: the claims of a peer and of an authority lost, restore --missing");
    let (orderers, org1) = (format!("{}orderers", pods.prefix), format!("{}org1", pods.prefix));
    pods.transactions(&pods.prefix, "later", 5);
    pods.lose_claim(&org1, "peer1-data", "peer1");
    let told = pods.restore(&["--missing"]);
    assert!(told.contains(&format!("create PersistentVolumeClaim {org1}/peer1-data")), "{told}");
    assert!(!told.contains("peer0"), "{told}");
    pods.goes_on(&pods.prefix, "with the peer");
    pods.lose_claim(&orderers, "ca-data", "ca");
    let told = pods.restore(&["--missing"]);
    assert!(told.contains(&format!("create PersistentVolumeClaim {orderers}/ca-data")), "{told}");
    super::authorities::enrols_and_revokes(pods, "OrdererOrg");
    pods.goes_on(&pods.prefix, "with the authority");
}

/// A follower is lost that its leader remembers: it gets its captured raft log, after the others were restarted.
pub fn orderer_with_its_raft_log(pods: &Pods) {
    let _scenario = pods.also("in pods: one orderer's claim lost, restored with its raft log, the others restarted");
    pods.transactions(&pods.prefix, "later", 10);
    let node = lose_follower(pods);
    pods.refused(&["--node", &node, "--replace"], "--restart-others");
    let told = pods.restore(&["--node", &node, "--replace", "--restart-others"]);
    assert_eq!(told.matches(", and wait").count(), 2, "{told}");
    pods.goes_on(&pods.prefix, "with its log");
}

/// A follower is lost: it comes back empty, and joins.
pub fn orderer_that_replicates(pods: &Pods) {
    let _scenario = pods.also("in pods: one orderer's claim lost, it replicates and joins, the others restarted");
    pods.transactions(&pods.prefix, "later", 10);
    let node = lose_follower(pods);
    pods.restore(&["--node", &node, "--replicate", &node, "--replace", "--restart-others"]);
    let _ = std::fs::remove_dir_all(pods.folder().join("genesis"));
    pods.fabkeep(&["show", "--genesis", "genesis"]);
    let name = node.rsplit('/').next().unwrap().trim_end_matches("-0");
    for channel in pods.channels() {
        let block = format!("{channel}.block");
        let read = |folder: std::path::PathBuf| std::fs::read(folder.join(&block)).unwrap();
        assert!(read(pods.folder().join("genesis")) == read(pods.path().join("artifacts")), "{channel}");
        // The pod has the network's artifacts.
        let join = [&format!("OrdererOrg/{name}"), "join", "--channelID", channel, "--config-block"];
        pods.knet(&pods.prefix, "osnadmin", &[&join[..], &[&format!("artifacts/{block}")]].concat());
    }
    pods.goes_on(&pods.prefix, "with all orderers");
}

/// A StatefulSet makes an empty claim, and the orderer starts without channels. Returns the node's name.
fn lose_follower(pods: &Pods) -> String {
    let (namespace, follower) = (format!("{}orderers", pods.prefix), pods.follower("mychannel"));
    pods.lose_claim(&namespace, &format!("data-{follower}-0"), &follower);
    let pod = format!("pod/{follower}-0");
    let ready = ["-n", &namespace, "wait", "--for=condition=Ready", &pod, "--timeout=5s"];
    pods.wait_until("the orderer runs with an empty claim", || pods.try_kubectl(&ready).status.success());
    format!("{namespace}/{follower}-0")
}

/// A copy in other namespaces, beside the network; and the copy moves to a third place.
pub fn moved(pods: &Pods) {
    let scenario = pods.also("in pods: restored to other namespaces beside the original");
    let original = &pods.prefix;
    let point = pods.backup(original, &[]);
    let copy = pods.elsewhere("c");
    restored_elsewhere(pods, &point, original, &copy);
    pods.goes_on(&copy, "copy");
    // It has not noticed.
    pods.goes_on(original, "original");
    drop(scenario);

    let _scenario = pods.also("in pods: moved to other namespaces a second time");
    let third = pods.elsewhere("d");
    let mut arguments = vec!["migrate".to_owned()];
    arguments.extend(Pods::namespaces(&copy).into_iter().flat_map(|name| ["--namespace".to_owned(), name]));
    arguments.extend(Pods::moved(&copy, &third));
    pods.fabkeep(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    pods.goes_on(&third, "moved");
}

fn restored_elsewhere(pods: &Pods, point: &str, from: &str, to: &str) {
    let maps = Pods::moved(from, to);
    let mut arguments = vec!["restore", point, "--kubernetes"];
    arguments.extend(maps.iter().map(String::as_str));
    pods.fabkeep(&arguments);
}
