//! What systemd alone knows of units: specifiers, credentials, lists that a drop-in empties; and environment files that no unit reads.

use super::site::Site;

const UNIT: &str = "net/etc/systemd/system/peer0.service";

/// A peer's data where a package puts it, its keys, and its unit with these lines.
fn site(lines: &str) -> Site {
    let site = Site::new();
    site.peer_data("net/var/lib/fabric/p0").identity("Org1/peer0", "net/ids/peer0");
    site.write(UNIT, &format!("[Service]\n{lines}ExecStart=/usr/bin/peer node start\n"));
    site
}

/// Settings of the peer's keys.
fn keys(key: &str) -> String {
    format!(
        "CORE_PEER_MSPCONFIGPATH=/ids/peer0/msp\nCORE_PEER_TLS_ENABLED=true\nCORE_PEER_TLS_CERT_FILE=/ids/peer0/tls/server.crt\nCORE_PEER_TLS_KEY_FILE={key}\n"
    )
}

fn in_unit(settings: &str) -> String {
    settings.lines().map(|line| format!("Environment={line}\n")).collect()
}

#[test]
fn specifiers_are_what_they_are_for_a_unit_of_the_system() {
    let own = in_unit(&keys("/ids/peer0/tls/server.key"));
    for data in ["%S/fabric/p0", "/var/lib/fabric/p0", "\"%S/fabric/p0\""] {
        let seen = site(&format!("Environment=CORE_PEER_FILESYSTEMPATH={data}\n{own}")).discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 1, "{nodes:#?}");
        assert!(nodes[0].contains("peer-data=net/var/lib/fabric/p0"), "{data}: {nodes:?} {:#?}", seen.remarks);
    }
    // `$NAME` means nothing in Environment=, and what only a run knows is told.
    let unknown = in_unit(&keys("%d/tls-key"));
    let seen = site(&format!("Environment=CORE_PEER_FILESYSTEMPATH=%S/fabric/p0\n{unknown}")).discover("net");
    assert!(seen.nodes()[0].contains("peer-data=net/var/lib/fabric/p0"), "{:?}", seen.nodes());
    seen.reported(&["peer0.service", "CORE_PEER_TLS_KEY_FILE", "depends on how the peer is started"]);
    let seen = site(&format!("Environment=CORE_PEER_FILESYSTEMPATH=%d/p0\n{own}")).discover("net");
    seen.reported(&["peer0.service", "the location of the peer's data depends on how it is started"]);
    assert!(!seen.text.contains('%'), "{}", seen.text);
}

#[test]
fn an_environment_file_that_no_unit_reads_is_no_second_node() {
    let whole = |data: &str| format!("CORE_PEER_FILESYSTEMPATH={data}\n{}", keys("/ids/peer0/tls/server.key"));
    for lines in [
        "EnvironmentFile=/etc/fabric/p0.env\n",
        "EnvironmentFile=/etc/fabric/old.env\nEnvironmentFile=\nEnvironmentFile=/etc/fabric/p0.env\n",
    ] {
        let site = site(lines);
        site.write("net/etc/fabric/p0.env", &whole("/var/lib/fabric/p0"));
        site.write("net/etc/fabric/old.env", &whole("/var/lib/fabric/gone"));
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 1, "{nodes:#?}");
        assert!(nodes[0].contains("peer-data=net/var/lib/fabric/p0"), "{nodes:?}");
        seen.reported(&["old.env", "nothing reads these settings"]);
    }
    // A node whose data is lost has keys of its own: it is in the inventory, and every backup finds that.
    let site = site("EnvironmentFile=/etc/fabric/p0.env\n");
    site.write("net/etc/fabric/p0.env", &whole("/var/lib/fabric/p0"));
    site.identity("Org1/peer1", "net/ids/peer1");
    site.write("net/etc/fabric/p1.env", &whole("/var/lib/fabric/gone").replace("peer0", "peer1"));
    let nodes = site.discover("net").nodes();
    assert!(nodes.len() == 2 && nodes.iter().any(|node| node.contains("peer1/msp")), "{nodes:#?}");
}
