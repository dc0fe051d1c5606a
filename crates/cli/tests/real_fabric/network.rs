//! A real Fabric network of plain processes, in a network namespace of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fabkeep_platform::Inventory;

/// Names the folder with `2.5/bin` and `3.1/bin`: peer, orderer, osnadmin, configtxgen, configtxlator, cryptogen.
pub const BINARIES: &str = "FABKEEP_TEST_FABRIC";
/// Names the folder with `net`, which makes, starts and checks networks.
pub const KIT: &str = "FABKEEP_TEST_FABRIC_KIT";
/// Names the file whose table of scenarios takes in the results: docs/proven.md.
const TABLE: &str = "FABKEEP_TEST_FABRIC_TABLE";

/// How long peers may take to know each other, and a channel to have a leader.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long between two tries.
pub const ASKED_AGAIN: Duration = Duration::from_millis(500);

/// Two networks at a time: each is eight processes, and the machine may have two cores.
static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

pub fn turn() -> MutexGuard<'static, ()> {
    match TURNS[0].try_lock() {
        Ok(guard) => guard,
        Err(_) => TURNS[1].lock().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Which consensus its orderers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consensus {
    Raft,
    SmartBft,
}

/// What is tried, and with what: a row of the table of results when it ends.
pub struct Scenario {
    key: [String; 3],
    begun: Instant,
}

impl Scenario {
    pub fn begin(what: &str, version: &str, consensus: &str) -> Scenario {
        Scenario { key: [what, version, consensus].map(str::to_owned), begun: Instant::now() }
    }

    /// Another one with the same network.
    pub fn also(&self, what: &str) -> Scenario {
        Scenario::begin(what, &self.key[1], &self.key[2])
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if let Some(table) = std::env::var_os(TABLE) {
            let result = if std::thread::panicking() { "FAILED" } else { "right" };
            put_into_table(Path::new(&table), &self.key, result, self.begun.elapsed().as_secs());
        }
    }
}

/// A running network and a repository beside it.
pub struct Network {
    kit: PathBuf,
    binaries: PathBuf,
    space: String,
    folder: tempfile::TempDir,
    channels: &'static [&'static str],
    scenario: Scenario,
    _turn: MutexGuard<'static, ()>,
}

/// Sends what must arrive: up to five times while what is said of it is that it may pass.
pub fn sent(what: &str, passing: &[&str], send: impl Fn(u32) -> Output) {
    let is_final = |sent: &Output| sent.status.success() || !passing.iter().any(|part| text(sent).contains(part));
    let last = (1..=5).map(send).find(is_final);
    let last = last.unwrap_or_else(|| panic!("{what}: five times {}", passing.join(" or ")));
    assert!(last.status.success(), "{what}: {}", text(&last));
}

impl Network {
    /// Makes, starts and loads a network of a version. Returns `None`, and says so, when no binaries are named.
    pub fn start(version: &str, consensus: Consensus, name: &str, scenario: &str) -> Option<Network> {
        let (Some(binaries), Some(kit)) = (std::env::var_os(BINARIES), std::env::var_os(KIT)) else {
            let line = format!("NOT TESTED: {name}: {BINARIES} and {KIT} name no real Fabric\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        };
        let network = Network {
            kit: PathBuf::from(kit),
            binaries: PathBuf::from(binaries).join(version).join("bin"),
            space: format!("fk-{name}-{}", version.replace('.', "")),
            folder: tempfile::tempdir().unwrap(),
            channels: if consensus == Consensus::Raft { &["mychannel", "settlement"] } else { &["mychannel"] },
            scenario: Scenario::begin(scenario, version, &format!("{consensus:?}")),
            _turn: turn(),
        };
        let kind = if consensus == Consensus::Raft { "raft" } else { "bft" };
        let made = network.plain(network.kit.join("net")).arg("new").arg(network.path()).arg(kind).output().unwrap();
        assert!(made.status.success(), "{}", text(&made));
        network.meet_soon();
        network.up();
        network.net("deploy", &[]);
        network.wait_until_accepted();
        network.transactions("first", 20);
        network.fabkeep(&["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"]);
        network.fabkeep(&["discover", "--root", "network", "--inventory", "fabkeep.toml"]);
        Some(network)
    }

    /// Begins something else that is tried with this network.
    pub fn also(&self, what: &str) -> Scenario {
        self.scenario.also(what)
    }

    /// The network's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    /// Peers look for those of other organizations that they know again after two seconds instead of 25.
    fn meet_soon(&self) {
        for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
            let path = self.path().join(peer).join("config/core.yaml");
            let settings = std::fs::read_to_string(&path).unwrap();
            assert!(settings.contains("reconnectInterval: 25s"));
            std::fs::write(path, settings.replace("reconnectInterval: 25s", "reconnectInterval: 2s")).unwrap();
        }
    }

    fn plain(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.folder.path())
            .env("FABRIC_BIN", &self.binaries)
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.plain(self.kit.join("net"));
        command.arg("space").arg(&self.space).arg(program.as_ref());
        command
    }

    fn net_command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.inside(self.kit.join("net"));
        command.arg(verb).arg(self.path()).args(arguments);
        command
    }

    /// A verb of the kit, which must succeed.
    pub fn net(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.net_command(verb, arguments).output().unwrap();
        assert!(output.status.success(), "{} net {verb} {arguments:?}: {}", self.space, text(&output));
        text(&output)
    }

    pub fn up(&self) {
        self.net("up", &[]);
    }

    /// Waits until every channel takes transactions: until it has a leader, and until peers know by gossip which others endorse. Gossip asks
    /// the other organizations' anchor peers again after some seconds.
    pub fn wait_until_accepted(&self) {
        for channel in self.channels {
            let begun = Instant::now();
            loop {
                let output = self.net_command("drive", &[channel, "put", "1", "--prefix", "probe"]).output().unwrap();
                if output.status.success() {
                    break;
                }
                let waited = begun.elapsed();
                assert!(
                    waited < SETTLED_WITHIN,
                    "{}: no transaction is accepted on {channel} within {waited:?}: {}",
                    self.space,
                    text(&output)
                );
                std::thread::sleep(ASKED_AGAIN);
            }
        }
    }

    /// Waits until there is something.
    pub fn wait_for<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(begun.elapsed() < SETTLED_WITHIN, "{}: no {what}", self.space);
            std::thread::sleep(ASKED_AGAIN);
        }
    }

    /// Ends the given nodes as a crash does.
    pub fn kill(&self, nodes: &[&str]) {
        let output = self.net_command("down", nodes).env("SIGNAL", "-KILL").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Sends public and private transactions on every channel; every one of them must be committed.
    ///
    /// A gateway sends a transaction to every orderer of SmartBFT. One that ordered it before its own copy arrived answers "already
    /// processed", and the gateway calls that a failure: then they are sent again.
    pub fn transactions(&self, prefix: &str, count: u32) {
        for channel in self.channels {
            let send = |attempt: u32| {
                let prefix = format!("{prefix} {attempt}");
                let arguments = [channel, "mix", &count.to_string(), "--prefix", &prefix];
                self.net_command("drive", &arguments).output().unwrap()
            };
            sent(&format!("{} {channel} {prefix}", self.space), &["request already processed"], send);
        }
    }

    /// Sends transactions on the first channel in the background.
    pub fn load(&self, prefix: &str, count: u32) -> Child {
        let mut command = self.net_command("drive", &["mychannel", "mix", &count.to_string(), "--prefix", prefix]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// An orderer that does not lead a channel: one that a leader remembers.
    pub fn follower(&self, channel: &str) -> String {
        let leads = |orderer: u16| {
            let url = format!("http://127.0.0.1:{}/metrics", 16955 + 100 * orderer);
            let answer = text(&self.inside("curl").args(["-s", &url]).output().unwrap());
            answer.contains(&format!("consensus_etcdraft_is_leader{{channel=\"{channel}\"}} 1"))
        };
        assert!((1..=3).any(leads), "{}: nobody leads {channel}", self.space);
        let follower = (1..=3).find(|orderer| !leads(*orderer)).unwrap();
        format!("OrdererOrg/orderer{follower}")
    }

    /// Gives the orderers stop and start commands.
    pub fn with_commands(&self) {
        let path = self.folder.path().join("fabkeep.toml");
        let mut inventory = Inventory::read(&path).unwrap();
        let organizations = inventory.organizations.iter_mut().filter(|known| known.name == "OrdererOrg");
        for node in organizations.flat_map(|known| &mut known.nodes).filter(|node| node.name.starts_with("orderer")) {
            let call = |verb: &str| {
                let (kit, network) = (self.kit.join("net"), self.path());
                Some(format!("{} {verb} {} OrdererOrg/{}", kit.display(), network.display(), node.name))
            };
            (node.commands.stop, node.commands.start) = (call("down"), call("up"));
        }
        std::fs::write(&path, inventory.to_text().unwrap()).unwrap();
    }

    /// Equal heights and block hashes on every node, and no panic in any log.
    pub fn check(&self) {
        self.net("check", &["120"]);
    }

    /// Runs fabkeep beside the network: its output, which must be a success or a success with findings.
    pub fn fabkeep(&self, arguments: &[&str]) -> String {
        let output = self.try_fabkeep(arguments);
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{} fabkeep {arguments:?}: {:?}\n{}",
            self.space,
            output.status,
            text(&output)
        );
        text(&output)
    }

    /// Runs fabkeep beside the network.
    pub fn try_fabkeep(&self, arguments: &[&str]) -> Output {
        self.inside(env!("CARGO_BIN_EXE_fabkeep")).args(arguments).output().unwrap()
    }

    /// A recovery point of the network, taken as asked.
    pub fn backup(&self, more: &[&str]) -> String {
        let mut arguments =
            vec!["backup", "--repo", "repository", "--inventory", "fabkeep.toml", "--writer", "keys/writer"];
        arguments.extend(more);
        self.fabkeep(&arguments)
    }

    /// Restores the newest recovery point in place.
    pub fn restore(&self, more: &[&str]) -> String {
        let mut arguments =
            vec!["restore", "--repo", "repository", "--inventory", "fabkeep.toml", "--identity", "keys/identity"];
        arguments.extend(more);
        self.fabkeep(&arguments)
    }

    /// A restore of the newest recovery point in place that is refused for what `part` says.
    pub fn refused(&self, more: &[&str], part: &str) {
        let restore = ["restore", "--repo", "repository", "--inventory", "fabkeep.toml", "--identity", "keys/identity"];
        let output = self.try_fabkeep(&[&restore[..], more].concat());
        let told = text(&output);
        assert!(output.status.code() == Some(4) && told.contains(part), "{:?}: {told}", output.status);
    }

    /// The network's channels.
    pub fn channels(&self) -> &'static [&'static str] {
        self.channels
    }

    /// How many blocks of a channel the newest recovery point has.
    pub fn captured_height(&self, channel: &str) -> usize {
        let show = ["show", "--repo", "repository", "--identity", "keys/identity", "--blocks", channel];
        let output = self.try_fabkeep(&[&show[..], &["--output", "json"]].concat());
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('{')).count()
    }

    /// Every node's data is gone.
    pub fn lose_all_data(&self) {
        for organization in ["OrdererOrg", "Org1", "Org2"] {
            for node in std::fs::read_dir(self.path().join(organization)).unwrap().flatten() {
                let production = node.path().join("production");
                if production.exists() {
                    std::fs::remove_dir_all(production).unwrap();
                }
            }
        }
    }

    /// What a restored network must do: start, agree, accept transactions on every channel, and be complete in the next backup.
    pub fn goes_on(&self, prefix: &str, backup: &[&str]) {
        self.up();
        self.check();
        self.wait_until_accepted();
        self.transactions(prefix, 40);
        self.check();
        self.backup(&[&["--consistency", "as-read", "--quiesce", "wait"], backup].concat());
    }

    /// A folder that the newest recovery point was restored into, as a network beside this one: not started yet.
    pub fn copy(&self, name: &str, more: &[&str]) -> Copied<'_> {
        let to = self.folder.path().join(name).display().to_string();
        let restore = ["restore", "--repo", "repository", "--identity", "keys/identity", "--to", &to];
        let told = self.fabkeep(&[&restore[..], more].concat());
        // What is no node's data is not restored.
        let kind = self.path().join("kind");
        std::fs::copy(kind, self.folder.path().join(name).join("kind")).unwrap();
        Copied { of: self, path: PathBuf::from(to), space: format!("{}-c", self.space), told }
    }
}

/// Puts the result of a scenario into the table: in the place of its earlier one.
fn put_into_table(table: &Path, scenario: &[String; 3], result: &str, seconds: u64) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let old = std::fs::read_to_string(table).unwrap_or_default();
    let key = format!("| {} |", scenario.join(" | "));
    let is_row =
        |line: &&str| line.starts_with('|') && !line.starts_with("| scenario |") && !line.starts_with("| --- |");
    let (mut rows, text): (Vec<&str>, Vec<&str>) = old.lines().partition(is_row);
    rows.retain(|row| !row.starts_with(&key));
    let row = format!("{key} {} | {result} | {seconds} s |", jiff::Timestamp::now().strftime("%Y-%m-%d"));
    rows.push(&row);
    rows.sort_unstable();
    let _ = std::fs::write(table, [text, rows].concat().join("\n") + "\n");
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.net_command("down", &[]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.space]).output();
        if std::thread::panicking() {
            show_alarms(&self.path());
        }
    }
}

/// A restored copy of a network, in a network namespace of its own.
pub struct Copied<'n> {
    of: &'n Network,
    path: PathBuf,
    space: String,
    /// What the restore said.
    told: String,
}

impl Copied<'_> {
    fn net_command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.of.plain(self.of.kit.join("net"));
        command.arg("space").arg(&self.space).arg(self.of.kit.join("net")).arg(verb).arg(&self.path).args(arguments);
        command
    }

    /// A verb of the kit, which must succeed.
    pub fn net(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.net_command(verb, arguments).output().unwrap();
        assert!(output.status.success(), "{} net {verb} {arguments:?}: {}\n{}", self.space, text(&output), self.told);
        text(&output)
    }

    /// Waits until a channel takes transactions, and sends some: how long the first one was waited for.
    pub fn transactions(&self, channel: &str, count: u32) -> Duration {
        let begun = Instant::now();
        loop {
            let output = self.net_command("drive", &[channel, "mix", "1", "--prefix", "probe"]).output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(begun.elapsed() < SETTLED_WITHIN, "{} {channel}: {}\n{}", self.space, text(&output), self.told);
            std::thread::sleep(ASKED_AGAIN);
        }
        let waited = begun.elapsed();
        self.net("drive", &[channel, "mix", &count.to_string(), "--prefix", "copied"]);
        waited
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        let _ = self.net_command("down", &[]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.space]).output();
        if std::thread::panicking() {
            show_alarms(&self.path);
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The nodes' last alarms say why.
fn show_alarms(network: &Path) {
    let Ok(logs) = std::fs::read_dir(network.join(".run")) else { return };
    for log in logs.flatten().filter(|log| log.path().extension().is_some_and(|kind| kind == "log")) {
        let all = std::fs::read_to_string(log.path()).unwrap_or_default();
        eprintln!("{}:\n{}", log.path().display(), alarms(&all));
    }
}

/// The last alarms in a node's log.
pub fn alarms(log: &str) -> String {
    let alarm = |line: &&str| ["PANI", "FATA", "ERRO", "panic"].iter().any(|word| line.contains(word));
    let lines: Vec<&str> = log.lines().filter(alarm).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
