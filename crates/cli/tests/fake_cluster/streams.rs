//! Reads from containers that go wrong on the way: nothing but the file's own bytes is ever captured.

use fabkeep_fake_cluster::Answer;
use fabkeep_fake_cluster::fabric::{SMALL, THREE_NODES};

use crate::scene::Scene;

/// A file of peer0 that is larger than a block of a read.
const BIG: &str = "lifecycle/chaincodes/big.bin";

fn with_big_file() -> (Scene, Vec<u8>) {
    let scene = Scene::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let path = scene.cluster.volume("org1", &THREE_NODES[0].claim()).join(BIG);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &bytes).unwrap();
    (scene, bytes)
}

/// The captured file, restored to a folder.
fn restored(scene: &Scene) -> Vec<u8> {
    let done = scene.restore_to("out");
    assert!(matches!(done.code, 0 | 3), "{}", done.text);
    let found = std::process::Command::new("find").arg(scene.path("out")).args(["-name", "big.bin"]).output().unwrap();
    std::fs::read(String::from_utf8(found.stdout).unwrap().trim()).unwrap()
}

#[test]
fn one_read_error_in_the_middle_of_a_file_is_read_again() {
    let (scene, bytes) = with_big_file();
    scene.cluster.tool(
        "dd",
        r#"case "$*" in *big.bin*) if [ ! -e $STATE/failed ]; then : > $STATE/failed; $REAL "$1" bs=1048576 skip=0 count=1 2>/dev/null; echo "dd: error reading: Input/output error" >&2; exit 1; fi ;; esac
exec $REAL "$@""#,
    );
    let backed_up = scene.backup(&[]);
    assert!(matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
    assert!(scene.cluster.folder().join("failed").exists(), "the fault did not happen");
    assert!(restored(&scene) == bytes);
}

#[test]
fn a_file_that_cannot_be_read_is_never_captured() {
    let (scene, _) = with_big_file();
    scene.cluster.tool("dd", r#"case "$*" in *big.bin*) $REAL "$@" | head -c 700000; exit 1 ;; esac; exec $REAL "$@""#);
    let backed_up = scene.backup(&[]);
    assert!(!matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
    assert!(backed_up.text.contains("big.bin") || backed_up.text.contains("peer0"), "{}", backed_up.text);
}

#[test]
fn streams_that_break_are_opened_again_behind_what_was_verified() {
    let (scene, bytes) = with_big_file();
    for cut in [100, 70_000, 400_000] {
        scene.cluster.fault(1, Answer::CutOutput(cut), |call| call.is_exec());
    }
    let backed_up = scene.backup(&[]);
    assert!(matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
    assert!(restored(&scene) == bytes);
}

#[test]
fn a_directory_that_find_cannot_read_fails_its_node_by_name() {
    for message in
        ["find: './lifecycle/chaincodes': Input/output error", "find: ./lifecycle/chaincodes: Permission denied"]
    {
        let (scene, _) = with_big_file();
        scene.cluster.tool(
            "find",
            &format!(
                "[ -d ./lifecycle/chaincodes ] || exec $REAL \"$@\"\nstart=$1; shift\n$REAL \"$start\" -path './lifecycle/chaincodes/*' -prune -o \
                 \"$@\"\necho \"{message}\" >&2; exit 1"
            ),
        );
        let backed_up = scene.backup(&[]);
        assert!(!matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
        assert!(backed_up.text.contains("peer") && backed_up.text.contains("chaincodes"), "{}", backed_up.text);
    }
}

#[test]
fn a_name_that_cannot_be_kept_is_a_finding_with_its_path() {
    let scene = Scene::new();
    let volume = scene.cluster.volume("org1", &THREE_NODES[0].claim());
    std::fs::write(volume.join("lifecycle/line\nbreak"), "x").unwrap();
    let backed_up = scene.backup(&[]);
    assert!(backed_up.text.contains("lifecycle/line?break"), "{}", backed_up.text);
    assert!(!matches!(backed_up.code, 0), "{}", backed_up.text);
}

#[test]
fn a_file_of_which_stat_fails_is_not_taken_for_one_that_is_gone() {
    // The journal of a certificate authority's database: without it the copy lacks the last commits.
    let scene = Scene::with(&[SMALL[5]]);
    let journal = scene.cluster.volume("org1", &SMALL[5].claim()).join("fabric-ca-server.db-wal");
    std::fs::write(journal, vec![0; 4096]).unwrap();
    let fails = |times: &str, message: &str| {
        format!(
            "case \"$*\" in *-L*db-wal*) n=$(cat $STATE/count 2>/dev/null || echo 0); echo $((n + 1)) > $STATE/count\n\
             [ $n -lt {times} ] && {{ echo \"stat: cannot statx '$4': {message}\" >&2; exit 1; }} ;; esac\nexec $REAL \"$@\""
        )
    };
    for message in ["Input/output error", "Stale file handle", "No such file or directory"] {
        let _ = std::fs::remove_file(scene.cluster.folder().join("count"));
        scene.cluster.tool("stat", &fails("100000", message));
        let backed_up = scene.backup(&["--live-attempts", "3"]);
        assert!(!matches!(backed_up.code, 0 | 3), "{message}: {}", backed_up.text);
        assert!(scene.cluster.folder().join("count").exists(), "the fault did not happen");
    }
    // Once only: it is read again.
    let _ = std::fs::remove_file(scene.cluster.folder().join("count"));
    scene.cluster.tool("stat", &fails("1", "Input/output error"));
    let backed_up = scene.backup(&[]);
    assert!(matches!(backed_up.code, 0 | 3), "{}", backed_up.text);
}
