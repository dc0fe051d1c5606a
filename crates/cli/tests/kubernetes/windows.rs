//! No-transaction windows, cuts and `status` on a real cluster, with the rights that the documentation gives, killed and resumed.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use fabkeep_fixtures::Growth;

use crate::cluster::Cluster;
use crate::losses::Accounts;
use crate::network::Network;
use crate::run::{Place, succeeded};
use crate::styles;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A workload that sends transactions, as far as a window can tell.
fn client(network: &Network<'_>) -> String {
    let namespace = network.namespaces["Org1"].clone();
    network.cluster.apply(
        &namespace,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec:\n  replicas: 2\n  \
         selector: {matchLabels: {app: shop}}\n  template:\n    metadata: {labels: {app: shop}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      \
         containers: [{name: shop, image: 'k8s.local/busybox:1', command: [sleep, '100000']}]\n",
    );
    network.cluster.wait_ready(&namespace);
    format!("{namespace}/shop")
}

/// What a window may change: replicas of every workload, network policies, notes.
fn changeable(network: &Network<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for namespace in network.names() {
        for kind in ["deployments", "statefulsets", "networkpolicies", "configmaps"] {
            let list = network.cluster.json(&["-n", &namespace, "get", kind]);
            for object in list["items"].as_array().unwrap() {
                let name = object.pointer("/metadata/name").unwrap().as_str().unwrap();
                let noted = object.pointer("/metadata/annotations/fabkeep.io~1replicas").is_some();
                let replicas = object.pointer("/spec/replicas").map(ToString::to_string).unwrap_or_default();
                out.push(format!("{namespace} {kind} {name} {replicas} {noted}"));
            }
        }
    }
    out
}

/// Whether a workload's pod can open a connection to a Service, as it must for a transaction.
fn is_reached(network: &Network<'_>, namespace: &str, workload: &str, service: &str, port: &str) -> bool {
    let script = format!("nc -w 2 {service} {port} < /dev/null");
    network.cluster.try_kubectl(&["-n", namespace, "exec", workload, "--", "sh", "-c", &script], &[]).status.success()
}

/// Whether a window's policies stand around the nodes.
fn is_fenced(network: &Network<'_>) -> bool {
    changeable(network).iter().any(|line| line.contains("networkpolicies fabkeep-window"))
}

fn ready(network: &Network<'_>) {
    network.names().iter().for_each(|namespace| network.cluster.wait_ready(namespace));
}

#[test]
fn windows_and_cuts_with_the_documented_rights_also_when_killed() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::RAW, "windows");
    network.deploy();
    let shop = client(&network);
    let accounts = Accounts::new(&cluster, "windows");
    for namespace in network.names() {
        accounts.bind(&namespace, "backup", "fabkeep-backup");
        accounts.bind(&namespace, "backup", "fabkeep-window");
    }
    let (heights, before) = (network.heights(), changeable(&network));
    let place = Place::new(&network);
    let account = accounts.kubeconfig("backup");
    let repo = place.repo();
    let command = |arguments: &[&str]| place.with_kubeconfig(arguments, account.path());
    let backup = |more: &[&str]| {
        let mut all = vec!["backup", "--repo", repo.to_str().unwrap()];
        all.extend(more);
        if !more.contains(&"--settle") {
            all.extend(["--settle", "0"]);
        }
        command(&all)
    };
    let status = || command(&["status", "--output", "json"]).output().unwrap();

    println!("-- status: every node with its heights, by its own word and by its files");
    let shown = succeeded(command(&["status", "--files"]).output().unwrap());
    println!("{shown}");
    let now: serde_json::Value = serde_json::from_slice(&status().stdout).unwrap();
    let nodes = now["nodes"].as_array().unwrap();
    let of_role = |role: &str| nodes.iter().filter(|node| node["role"] == role).count();
    assert_eq!((of_role("peer"), of_role("orderer"), of_role("certificate-authority")), (4, 3, 2), "{now}");
    for node in nodes.iter().filter(|node| node["role"] == "peer" || node["role"] == "orderer") {
        assert_eq!((node["running"].as_bool(), node["health"].as_str()), (Some(true), Some("OK")), "{node}");
        let reported: Vec<(&str, u64, u64, &str)> = node["channels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|channel| {
                let number = |name: &str| channel[name].as_u64().unwrap();
                (
                    channel["channel"].as_str().unwrap(),
                    number("height"),
                    number("lag"),
                    channel["source"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(reported, [("mychannel", 27, 0, "metrics"), ("settlement", 8, 0, "metrics")], "{node}");
        assert!(node["expires"][0].as_i64().unwrap() > 1000, "{node}");
    }

    println!("-- a cut, while everything runs");
    let reported = succeeded(backup(&["--consistency", "cut"]).output().unwrap());
    assert!(reported.contains("mychannel 27"), "{reported}");
    assert_eq!(before, changeable(&network), "a cut changed something");

    println!("-- clients scaled to 0 for the window");
    let reported = succeeded(backup(&["--quiesce", "scale", "--client", &shop]).output().unwrap());
    println!("{reported}");
    assert!(reported.contains("no-transaction window") && reported.contains("/shop to 0: undone"), "{reported}");
    assert_eq!(before, changeable(&network), "the window was not undone");

    println!("-- a fence: clients are cut off, the nodes reach each other, and afterwards all is as before");
    let orderer = (format!("orderer1.{}", network.namespaces["OrdererOrg"]), "7050");
    let peer = (format!("peer0.{}", network.namespaces["Org2"]), "7051");
    let org1 = network.namespaces["Org1"].as_str();
    let reaches = |from: &str| [&orderer, &peer].map(|(name, port)| is_reached(&network, org1, from, name, port));
    assert_eq!(reaches("deployment/shop"), [true, true], "the client reaches nothing before");
    let running = backup(&["--quiesce", "fence", "--settle", "20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while reaches("deployment/shop") != [false, false] {
        assert!(begun.elapsed() < Duration::from_secs(60), "the fence cuts nobody off");
    }
    assert!(is_fenced(&network), "the window was over before it was looked at");
    assert_eq!(reaches("deployment/peer0"), [true, true], "the fence parts the nodes");
    assert_eq!(reaches("deployment/shop"), [false, false], "clients reach nodes inside the window");
    assert!(is_fenced(&network), "the window was over before it was looked at");
    let reported = succeeded(running.wait_with_output().unwrap());
    assert!(reported.contains("fence: NetworkPolicy") && reported.contains("no-transaction window"), "{reported}");
    assert_eq!(before, changeable(&network), "the window was not undone");
    let begun = Instant::now();
    while reaches("deployment/shop") != [true, true] {
        assert!(begun.elapsed() < Duration::from_secs(10), "clients stay cut off");
    }

    println!("-- killed with the fence up and nodes stopped: reported, and undone by one command");
    for (number, seconds) in [(0, 0.0), (1, 1.5), (2, 6.0)] {
        let mut child =
            backup(&["--quiesce", "fence,stop"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let noted = || changeable(&network).iter().any(|line| line.contains("fabkeep-window"));
        while !noted() {
            assert!(
                begun.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(),
                "no window was opened"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let _ = child.kill();
        let ended = child.wait().unwrap();
        if ended.success() || !noted() {
            println!("kill {number} came when the window was over");
            continue;
        }
        let reported = status();
        assert_eq!(reported.status.code(), Some(3), "{}", text(&reported));
        assert!(text(&reported).contains("W2") && text(&reported).contains("fabkeep resume"), "{}", text(&reported));
        let second = backup(&["--quiesce", "stop"]).output().unwrap();
        assert_eq!(second.status.code(), Some(4), "{}", text(&second));
        println!("{}", succeeded(command(&["resume"]).output().unwrap()));
        assert_eq!(before, changeable(&network), "kill {number}: not everything was undone");
        ready(&network);
        assert_eq!(heights, network.heights());
    }
    let left = succeeded(command(&["clean"]).output().unwrap());
    println!("{left}");

    println!("-- fence and stop, to the end");
    let reported = succeeded(backup(&["--quiesce", "fence,stop"]).output().unwrap());
    println!("{reported}");
    assert!(reported.contains("fence: NetworkPolicy") && reported.contains("no-transaction window"), "{reported}");
    assert_eq!(before, changeable(&network), "the window was not undone");
    ready(&network);
    assert_eq!(heights, network.heights());
    succeeded(place.command(&["verify", "--repo", repo.to_str().unwrap()]).output().unwrap());
    let shown = place.ok(&["show", "--repo", repo.to_str().unwrap(), "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown[..shown.rfind('}').unwrap() + 1]).unwrap();
    assert!(shown.to_string().contains("\"window\""), "{shown}");

    println!(
        "-- a cut of peers that are not level, everything deleted, and restored: the network starts at one height"
    );
    let mut growth = Growth::open(network.folder(), "mychannel").unwrap();
    let mut grow = |blocks, organizations: &[&str]| {
        let since = std::time::SystemTime::now();
        std::thread::sleep(Duration::from_millis(50));
        growth.grow(blocks, 3).unwrap();
        network.refill(organizations, since);
    };
    grow(30, &["OrdererOrg", "Org1", "Org2"]);
    grow(10, &["OrdererOrg", "Org1"]);
    let reported = succeeded(backup(&["--consistency", "cut"]).output().unwrap());
    println!("{reported}");
    assert!(reported.contains("mychannel 57"), "{reported}");
    cluster.remove_namespaces(&network.names());
    println!("{}", place.restore(&[]));
    ready(&network);
    let started = network.heights();
    assert_eq!(started.keys().collect::<Vec<_>>(), heights.keys().collect::<Vec<_>>());
    for (node, height) in started {
        let (peer, height) = (node.contains("/peer"), height.parse::<u64>().unwrap());
        match node.ends_with(" mychannel") {
            true => assert!(height == 57 || (!peer && (57..=67).contains(&height)), "{node} {height}"),
            false => assert_eq!(height, 8, "{node}"),
        }
    }
    let orderers: BTreeSet<u64> = network
        .heights()
        .into_iter()
        .filter(|(node, _)| !node.contains("/peer") && node.ends_with(" mychannel"))
        .map(|(_, height)| height.parse().unwrap())
        .collect();
    assert_eq!(orderers.len(), 1, "the orderers are not level: {orderers:?}");
}
