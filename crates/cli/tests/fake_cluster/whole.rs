//! The main job.

use crate::scene::Scene;

/// Files that no node needs back: locks, and what a node builds anew.
fn is_needed(path: &str) -> bool {
    [
        "/chains/index/",
        "/index/",
        "/stateLeveldb/",
        "/historyLeveldb/",
        "/bookkeeper/",
        "/configHistory/",
        "/fileLock/",
        "/transientStoreFileLock/",
        "/LOCK",
        "/LOG",
        "/externalbuilder/",
        ".tmp",
    ]
    .iter()
    .all(|derived| !path.contains(derived))
}

#[test]
fn two_peers_and_an_orderer_are_captured_and_restored_into_an_empty_cluster() {
    let scene = Scene::new();
    let found = scene.discover();
    for node in ["peer0", "peer1", "orderer1"] {
        assert!(found.text.contains(node), "{}", found.text);
    }
    let backed_up = scene.backup(&[]);
    assert!(matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
    let verified = scene.verify();
    assert!(matches!(verified.code, 0 | 3), "{}", verified.text);
    let before = scene.contents();
    for namespace in ["org1", "ordererorg"] {
        assert!(scene.cluster.delete("Namespace", "", namespace));
    }
    let restored = scene.restore(&[]);
    assert!(matches!(restored.code, 0 | 3), "{}", restored.text);
    for object in ["peer0", "peer1"] {
        assert!(scene.cluster.get("Deployment", "org1", object).is_some(), "{}", restored.text);
        assert!(scene.cluster.pod("org1", object).is_some(), "{}", restored.text);
    }
    let after = scene.contents();
    for (path, hash) in before.iter().filter(|(path, _)| is_needed(path)) {
        assert_eq!(after.get(path), Some(hash), "{path}\n{}", restored.text);
    }
    assert!(
        scene
            .cluster
            .list("Pod", "")
            .iter()
            .all(|pod| pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] != "fabkeep")
    );
}
