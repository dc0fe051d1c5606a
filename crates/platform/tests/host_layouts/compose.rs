//! Which compose files are one project, in which order they are read, and where their paths and volumes are.

use fabkeep_platform::discover_compose;

use super::site::{Seen, Site};

/// A peer's service with its identity; its data is mounted by each test.
const PEER: &str = "services:\n  p0:\n    image: hyperledger/fabric-peer:2.5\n    environment: [CORE_PEER_ID=p0, CORE_PEER_LOCALMSPID=Org1MSP, CORE_PEER_MSPCONFIGPATH=/id/msp]\n";

fn service(volumes: &[&str]) -> String {
    format!(
        "{PEER}    volumes: [{}]\n",
        volumes.iter().map(|volume| format!("'{volume}'")).collect::<Vec<_>>().join(", ")
    )
}

/// A part of a service that only mounts data.
fn data(path: &str) -> String {
    format!("services:\n  p0:\n    volumes: ['{path}:/var/hyperledger/production']\n")
}

fn compose(site: &Site, files: &[&str]) -> Seen {
    let files: Vec<_> = files.iter().map(|file| site.path(file)).collect();
    Seen::new(discover_compose(&files, site.folder.path()).unwrap(), site)
}

#[track_caller]
fn has(seen: &Seen, data: &str) {
    let nodes = seen.nodes();
    let peers: Vec<&String> = nodes.iter().filter(|node| node.contains(" peer: ")).collect();
    assert_eq!(peers.len(), 1, "{nodes:#?} {:#?}", seen.remarks);
    assert!(peers[0].contains(&format!("peer-data={data}")), "{data} in {peers:#?} {:#?}", seen.remarks);
    assert!(peers[0].contains("msp=net/id/msp"), "{peers:#?} {:#?}", seen.remarks);
}

fn site() -> Site {
    let site = Site::new();
    site.identity("Org1/peer0", "net/id").peer_data("net/new").peer_data("net/old");
    site
}

#[test]
fn files_are_put_together_in_the_order_of_the_command_line() {
    for (base, over) in
        [("docker-compose.yml", "docker-compose.override.yml"), ("z.yaml", "a.yaml"), ("b/c.yaml", "s.yaml")]
    {
        let site = site();
        let (base, over) = (format!("net/{base}"), format!("net/{over}"));
        let up = if base.contains("/b/") { ".." } else { "." };
        site.write(&base, &service(&[&format!("{up}/id:/id"), &format!("{up}/old:/var/hyperledger/production")]));
        // Its paths begin where the first file lies.
        site.write(&over, &data(&format!("{up}/new")));
        let seen = compose(&site, &[&base, &over]);
        has(&seen, "net/new");
        assert_eq!(seen.remarks, Vec::<String>::new());
        let command =
            format!("docker compose -f {} -f {} stop p0", site.path(&base).display(), site.path(&over).display());
        assert!(seen.text.contains(&command), "{command} in {}", seen.text);
    }
    // A file in a folder below.
    let site = site();
    site.write("net/compose.yaml", &service(&["./id:/id"])).write("net/prod/override.yaml", &data("./new"));
    site.peer_data("net/prod/new");
    has(&compose(&site, &["net/compose.yaml", "net/prod/override.yaml"]), "net/new");
}

#[test]
fn a_whole_service_that_a_second_file_moves_is_told() {
    let site = site();
    site.write("net/a.yaml", &service(&["./id:/id", "./old:/var/hyperledger/production"]));
    site.write("net/b.yaml", &service(&["./id:/id", "./new:/var/hyperledger/production"]));
    let seen = compose(&site, &["net/a.yaml", "net/b.yaml"]);
    has(&seen, "net/new");
    seen.reported(&["a.yaml", "b.yaml", "p0", "two projects"]);
}

#[test]
fn below_a_root_a_folders_files_are_taken_as_compose_takes_them() {
    for (base, over) in [
        ("compose.yaml", "compose.override.yaml"),
        ("compose.yml", "compose.override.yml"),
        ("docker-compose.yml", "docker-compose.override.yml"),
        ("docker-compose.yaml", "docker-compose.override.yaml"),
    ] {
        let site = site();
        site.write(&format!("net/{base}"), &service(&["./id:/id", "./old:/var/hyperledger/production"]));
        site.write(&format!("net/{over}"), &data("./new"));
        let seen = site.discover("net");
        let peer = seen.node("Org1MSP/p0");
        assert!(peer.contains("peer-data=net/new"), "{base}: {peer} {:#?}", seen.remarks);
    }
    // Another file may be put over it or not: it is told.
    let site = site();
    site.write("net/compose.yaml", &service(&["./id:/id", "./new:/var/hyperledger/production"]));
    site.write("net/compose.prod.yaml", &data("./old"));
    let seen = site.discover("net");
    assert!(
        seen.nodes().iter().any(|node| node.contains("/p0 ") && node.contains("peer-data=net/new")),
        "{:#?}",
        seen.nodes()
    );
    seen.reported(&["compose.prod.yaml", "p0", "nothing shows", "NameComposeFiles"]);
    // Unless a setting names it.
    site.write("net/.env", "COMPOSE_FILE=compose.yaml:compose.prod.yaml\n");
    let seen = site.discover("net");
    assert!(
        seen.nodes().iter().any(|node| node.contains("/p0 ") && node.contains("peer-data=net/old")),
        "{:#?}",
        seen.nodes()
    );
}

#[test]
fn settings_of_the_folder_above_are_another_projects() {
    let site = site();
    site.write("net/.env", "DATA=../old\n");
    site.write("net/deploy/compose.yaml", &service(&["../id:/id", "${DATA:-../new}:/var/hyperledger/production"]));
    has(&compose(&site, &["net/deploy/compose.yaml"]), "net/new");
    let seen = site.discover("net");
    assert!(seen.nodes().iter().any(|node| node.contains("/p0 ") && node.contains("net/new")), "{:#?}", seen.nodes());
    // Its own are read.
    site.write("net/deploy/.env", "DATA=../old\n");
    has(&compose(&site, &["net/deploy/compose.yaml"]), "net/old");
}

#[test]
fn variables_are_replaced_as_compose_replaces_them() {
    for text in [
        "${WHERE:?set WHERE}",
        "${WHERE?set WHERE}",
        "${WHERE:+./new}",
        "${WHERE+./new}",
        "${WHERE-./old}",
        "${NONE-./new}",
    ] {
        let site = site();
        site.write("net/.env", "WHERE=./new\n");
        site.write("net/compose.yaml", &service(&["./id:/id", &format!("{text}:/var/hyperledger/production")]));
        has(&compose(&site, &["net/compose.yaml"]), "net/new");
    }
}

#[test]
fn volumes_have_the_name_of_their_project() {
    for (folder, settings, top, volume) in [
        ("Net.Prod v2", "", "volumes: {d: }", "netprodv2_d"),
        ("net", "", "volumes: {d: }\nname: other", "other_d"),
        ("net", "COMPOSE_PROJECT_NAME=third\n", "volumes: {d: }\nname: other", "third_d"),
        ("net", "", "volumes: {d: {external: {name: live}}}", "live"),
        ("net", "", "volumes: {d: {external: true, name: live}}", "live"),
        ("net", "V=live\n", "volumes: {d: {name: \"${V}\"}}", "live"),
        ("net", "", "volumes: {d: {external: true}}", "d"),
    ] {
        let site = Site::new();
        site.identity("Org1/peer0", "net/id").peer_data(&format!("{folder}/volumes/{volume}/_data"));
        // Another project's volume, which comes first by its name.
        site.peer_data(&format!("{folder}/volumes/aaa_d/_data"));
        site.write(&format!("{folder}/.env"), settings);
        site.write(
            &format!("{folder}/compose.yaml"),
            &format!("{}{top}\n", service(&["../net/id:/id", "d:/var/hyperledger/production"])),
        );
        has(&compose(&site, &[&format!("{folder}/compose.yaml")]), &format!("{folder}/volumes/{volume}/_data"));
    }
    let site = Site::new();
    site.peer_data("disk/v/aaa_d/_data").identity("Org1/peer0", "disk/net/id");
    site.write(
        "disk/net/compose.yaml",
        &format!("{}volumes: {{d: }}\n", service(&["./id:/id", "d:/var/hyperledger/production"])),
    );
    let seen = site.discover("disk");
    let nodes = seen.nodes();
    let own = nodes.iter().find(|node| node.contains("/p0 ")).unwrap();
    assert!(!own.contains("aaa_d"), "{nodes:#?} {:#?}", seen.remarks);
    assert!(nodes.iter().any(|node| node.contains("aaa_d")), "{nodes:#?}");
}

#[test]
fn volumes_of_another_service_are_mounted() {
    let site = site();
    let text = service(&["./old:/x", "./new:/var/hyperledger/production"]);
    site.write(
        "net/compose.yaml",
        &format!(
            "{text}    volumes_from: ['keys:ro']\n  keys: {{image: busybox, volumes: ['./id:/id', './gone:/x']}}\n"
        ),
    );
    has(&compose(&site, &["net/compose.yaml"]), "net/new");
}

#[test]
fn what_is_started_is_no_copy_whatever_its_name() {
    for (live, copy) in [("data.old", "data"), ("production-2024-01-31", "production")] {
        let site = Site::new();
        site.identity("Org1/peer0", "net/id").peer_data(&format!("net/{live}")).peer_data(&format!("net/{copy}"));
        site.write("net/compose.yaml", &service(&["./id:/id", &format!("./{live}:/var/hyperledger/production")]));
        let seen = site.discover("net");
        has(&seen, &format!("net/{live}"));
        assert!(seen.nodes()[0].contains(&format!("peer-data=net/{live} ")), "{:#?}", seen.nodes());
        let told: Vec<&String> = seen.remarks.iter().filter(|remark| remark.contains("old copy")).collect();
        assert_eq!(told.len(), 1, "{:#?}", seen.remarks);
        assert!(told[0].starts_with(&format!("{} looks", site.path("net").join(copy).display())), "{told:#?}");
    }
}

/// The variable that says that a test runs where it may mount.
const MOUNTS: &str = "FABKEEP_TEST_IN_A_NAMESPACE";

#[test]
fn a_directory_that_is_mounted_twice_is_one_nodes() {
    let test = "compose::a_directory_that_is_mounted_twice_is_one_nodes";
    if std::env::var_os(MOUNTS).is_none() {
        let unshare = |arguments: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.args(["--map-root-user", "--mount"]).args(arguments).env(MOUNTS, "1").output()
        };
        if !unshare(&["true"]).is_ok_and(|output| output.status.success()) {
            println!("nothing was tested: nothing can be mounted here");
            return;
        }
        let own = std::env::current_exe().unwrap();
        let output = unshare(&[own.to_str().unwrap(), "--exact", test]).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let site = Site::new();
    site.whole("net").write("net/srv/all/.keep", "");
    let mount = |from: &str, to: &str| {
        let status = std::process::Command::new("mount").arg("--bind").args([site.path(from), site.path(to)]).status();
        assert!(status.unwrap().success());
    };
    let before = site.discover("net");
    mount("net/Org1", "net/srv/all");
    let seen = site.discover("net");
    assert_eq!(seen.nodes(), before.nodes());
    seen.reported(&["net/srv/all", "net/Org1", "same directory"]);
    assert!(seen.files().iter().all(|path| !path.contains("srv/all")), "{:?}", seen.files());
    // A configuration that names the second path.
    site.edit("net/Org1/peer0/config/core.yaml", "../production", "SITE/net/srv/all/peer0/production");
    let seen = site.discover("net");
    assert_eq!(seen.names(), before.names());
    assert!(seen.files().iter().all(|path| !path.contains("peer0")), "{:?}", seen.files());
    // Two containers that name one directory by two paths.
    let peer = |name: &str, home: &str| {
        service(&[&format!("./Org1/{home}:/id"), &format!("./{home}/production:/var/hyperledger/production")])
            .replace("services:\n", "")
            .replace("p0", name)
    };
    site.write(
        "net/compose.yaml",
        &format!("services:\n{}{}", peer("p0", "peer0"), peer("p1", "peer0").replace("./peer0", "./srv/all/peer0")),
    );
    site.edit("net/compose.yaml", "'./peer0", "'./Org1/peer0");
    let seen = compose(&site, &["net/compose.yaml"]);
    assert_eq!(seen.nodes().len(), 1, "{:#?}", seen.nodes());
    seen.reported(&["srv/all/peer0/production", "same directory"]);
}
