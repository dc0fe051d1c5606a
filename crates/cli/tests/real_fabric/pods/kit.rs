//! A real Fabric network in pods of a cluster, with certificate authorities, and a repository on this machine.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::network::{ASKED_AGAIN, BINARIES, Consensus, KIT, SETTLED_WITHIN, Scenario, alarms, sent, text, turn};

/// Names the kubeconfig of a cluster that tests may use.
const CLUSTER: &str = "FABKEEP_TEST_KUBECONFIG";
/// Names the program that looks at the cluster.
const KUBECTL: &str = "FABKEEP_TEST_KUBECTL";
/// A network's namespaces, without what their names begin with.
const ORGANIZATIONS: [&str; 3] = ["orderers", "org1", "org2"];
/// What a claim, an object or a namespace may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(240);

/// A running network in pods. Its namespaces are removed when this is dropped, those of its copies too.
pub struct Pods {
    kit: PathBuf,
    binaries: PathBuf,
    authorities: PathBuf,
    kubeconfig: PathBuf,
    /// What the names of its namespaces begin with.
    pub prefix: String,
    copies: RefCell<Vec<String>>,
    folder: tempfile::TempDir,
    channels: &'static [&'static str],
    scenario: Scenario,
    _turn: MutexGuard<'static, ()>,
}

impl Pods {
    /// Makes, starts and loads a network. Returns `None`, and says so, where no binaries or no cluster are named.
    pub fn start(version: &str, consensus: Consensus, name: &str, scenario: &str) -> Option<Pods> {
        let [binaries, kit, kubeconfig] = match given(version) {
            Ok(given) => given,
            Err(reason) => {
                let _ = std::io::stderr().write_all(format!("NOT TESTED: {name} in pods: {reason}\n").as_bytes());
                return None;
            }
        };
        let pods = Pods {
            kit: kit.join("k8s/knet"),
            binaries: binaries.join(version).join("bin"),
            authorities: binaries.join("ca/bin"),
            kubeconfig,
            prefix: format!("fk{name}-"),
            copies: RefCell::default(),
            folder: tempfile::tempdir().unwrap(),
            channels: if consensus == Consensus::Raft { &["mychannel", "settlement"] } else { &["mychannel"] },
            scenario: Scenario::begin(scenario, version, &format!("{consensus:?}")),
            _turn: turn(),
        };
        pods.with_images(version);
        pods.lose(&pods.prefix);
        let kind = if consensus == Consensus::Raft { "raft" } else { "bft" };
        pods.must(pods.knet_command(&pods.prefix, "new", &[kind, "--prefix", &pods.prefix]));
        pods.meet_soon();
        pods.knet(&pods.prefix, "up", &[]);
        pods.knet(&pods.prefix, "deploy", &[]);
        pods.transactions(&pods.prefix, "first", 20);
        pods.fabkeep(&["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"]);
        Some(pods)
    }

    /// Makes the images of a version, unless the cluster has them.
    fn with_images(&self, version: &str) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let here = self.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names}"]);
        if !["fabric-kit/tools", "hyperledger/fabric-orderer"]
            .iter()
            .all(|image| here.contains(&format!("docker.io/{image}:{version}\"")))
        {
            let mut images = self.plain(&self.kit);
            images.arg("images");
            self.must(images);
        }
    }

    /// Begins something else that is tried with this network.
    pub fn also(&self, what: &str) -> Scenario {
        self.scenario.also(what)
    }

    /// Where the network's keys and blocks are.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    /// The repository's folder, where commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The network's channels.
    pub fn channels(&self) -> &'static [&'static str] {
        self.channels
    }

    /// The namespaces whose names begin so.
    pub fn namespaces(prefix: &str) -> Vec<String> {
        ORGANIZATIONS.iter().map(|organization| format!("{prefix}{organization}")).collect()
    }

    /// What the names of another place's namespaces begin with.
    pub fn elsewhere(&self, name: &str) -> String {
        let prefix = format!("{}{name}-", self.prefix);
        self.lose(&prefix);
        self.copies.borrow_mut().push(prefix.clone());
        prefix
    }

    /// Options that lead the namespaces of one place to those of another.
    pub fn moved(from: &str, to: &str) -> Vec<String> {
        let pairs = Self::namespaces(from).into_iter().zip(Self::namespaces(to));
        pairs.flat_map(|(old, new)| ["--map-namespace".to_owned(), format!("{old}={new}")]).collect()
    }

    /// Peers look for those of other organizations that they know again after two seconds instead of 25.
    fn meet_soon(&self) {
        for organization in ["org1", "org2"] {
            let path = self.path().join(format!("manifests/{}{organization}.yaml", self.prefix));
            let manifests = std::fs::read_to_string(&path).unwrap();
            assert!(manifests.contains("reconnectInterval: 25s"));
            std::fs::write(path, manifests.replace("reconnectInterval: 25s", "reconnectInterval: 2s")).unwrap();
        }
    }

    fn plain(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.folder.path())
            .env("FABRIC_BIN", &self.binaries)
            .env("FABRIC_CA_BIN", &self.authorities)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECTL", kubectl())
            .stdin(Stdio::null());
        command
    }

    fn must(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{} {command:?}: {}", self.prefix, text(&output));
        text(&output)
    }

    fn knet_command(&self, at: &str, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.plain(&self.kit);
        if at != self.prefix {
            command.args(["--at", at]);
        }
        command.arg(verb).arg(self.path()).args(arguments);
        command
    }

    /// A verb of the kit on one of the network's places, which must succeed.
    pub fn knet(&self, at: &str, verb: &str, arguments: &[&str]) -> String {
        self.must(self.knet_command(at, verb, arguments))
    }

    /// A verb of the kit.
    pub fn try_knet(&self, at: &str, verb: &str, arguments: &[&str]) -> Output {
        self.knet_command(at, verb, arguments).output().unwrap()
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.plain(kubectl()).args(arguments).output().unwrap()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let mut command = self.plain(kubectl());
        command.args(arguments);
        self.must(command)
    }

    /// Creates objects.
    pub fn apply(&self, manifest: &str) {
        let path = self.folder.path().join("manifest.yaml");
        std::fs::write(&path, manifest).unwrap();
        self.kubectl(&["apply", "-f", &path.display().to_string()]);
    }

    /// What a script says in the pod with Fabric's command lines.
    pub fn in_tools(&self, at: &str, script: &str) -> String {
        let namespace = format!("{at}orderers");
        self.kubectl(&["-n", &namespace, "exec", "deployment/tools", "--", "bash", "-c", script])
    }

    /// Waits until something is so.
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < GONE_WITHIN, "{}: still not: {what}", self.prefix);
            std::thread::sleep(ASKED_AGAIN);
        }
    }

    /// Sends public and private transactions on every channel; every one of them must be committed.
    ///
    /// A channel may have no leader yet, and peers may not know each other. Of those that are sent several times speaks
    /// [`crate::network::Network::transactions`].
    pub fn transactions(&self, at: &str, prefix: &str, count: u32) {
        for channel in self.channels {
            let begun = Instant::now();
            while !self.try_knet(at, "drive", &[channel, "mix", "2", "--prefix", "probe"]).status.success() {
                let waited = begun.elapsed();
                assert!(waited < SETTLED_WITHIN, "{at}: no transaction is accepted on {channel} within {waited:?}");
                std::thread::sleep(ASKED_AGAIN);
            }
            let send = |attempt: u32| {
                let prefix = format!("{prefix} {attempt}");
                self.try_knet(at, "drive", &[channel, "mix", &count.to_string(), "--prefix", &prefix])
            };
            // On a busy machine peers may need longer than the client waits.
            let passing = ["already processed", "DEADLINE_EXCEEDED", "No connection established"];
            sent(&format!("{at} {channel} {prefix}"), &passing, send);
        }
    }

    /// Sends transactions on every channel until the pod that sends them is gone.
    pub fn load(&self) -> Load {
        let send = |channel: &&str| {
            let arguments = [channel, "mix", "100000", "--prefix", "load"];
            let mut command = self.knet_command(&self.prefix, "drive", &arguments);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let load = Load(self.channels.iter().map(send).collect());
        std::thread::sleep(Duration::from_secs(4));
        load
    }

    /// Equal heights and block hashes on every node of a place, and no panic in any log.
    pub fn check(&self, at: &str) {
        let told = self.knet(at, "check", &["120"]);
        assert!(!told.contains("restarted"), "{at}: {told}");
    }

    /// What a network must do after a restore: accept transactions on every channel, agree, and be complete in the next
    /// backup. Returns the name of that recovery point.
    pub fn goes_on(&self, at: &str, prefix: &str) -> String {
        self.transactions(at, prefix, 20);
        self.check(at);
        self.backup(at, &[])
    }

    fn fabkeep_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.plain(env!("CARGO_BIN_EXE_fabkeep"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("HOME", self.folder.path())
            .env("FABKEEP_STATE_DIR", self.folder.path().join("state"))
            .env("FABKEEP_REPO", self.folder.path().join("repository"))
            .env("FABKEEP_IDENTITY", self.folder.path().join("keys/identity"))
            .env("FABKEEP_WRITER", self.folder.path().join("keys/writer"))
            .env("FABKEEP_HELPER_IMAGE", "k8s.local/busybox:1");
        command
    }

    /// Runs fabkeep: its output, which must be a success or a success with findings.
    pub fn fabkeep(&self, arguments: &[&str]) -> String {
        done(self.fabkeep_command(arguments))
    }

    /// Runs fabkeep on the namespaces of a place.
    fn on(&self, at: &str, verb: &str, more: &[&str]) -> Command {
        let mut command = self.fabkeep_command(&[verb]);
        command.args(more);
        Self::namespaces(at).iter().for_each(|namespace| {
            command.args(["--namespace", namespace]);
        });
        command
    }

    /// A recovery point of a place: its name. It is complete, and nothing is lost in it.
    pub fn backup(&self, at: &str, more: &[&str]) -> String {
        let told = done(self.on(at, "backup", more));
        let line = told.lines().find(|line| line.starts_with("recovery point ") && line.contains(": complete"));
        let name = line.unwrap_or_else(|| panic!("{at}: {told}")).split([' ', ':']).nth(2).unwrap();
        assert!(!told.contains("warning["), "{at}: {told}");
        name.to_owned()
    }

    /// Restores a recovery point, or the newest one: what is told.
    pub fn restore(&self, more: &[&str]) -> String {
        done(self.on(&self.prefix, "restore", more))
    }

    /// A restore that is refused, and changes nothing, for what `part` says.
    pub fn refused(&self, more: &[&str], part: &str) {
        let output = self.on(&self.prefix, "restore", more).output().unwrap();
        let told = text(&output);
        assert!(output.status.code() == Some(4) && told.contains(part), "{:?}: {told}", output.status);
    }

    /// A restore that is killed after some time: whether it was still running, and the last thing that it said.
    pub fn restore_killed_after(&self, time: Duration, more: &[&str]) -> (bool, String) {
        let path = self.folder.path().join("told");
        let told = std::fs::File::create(&path).unwrap();
        let mut command = self.on(&self.prefix, "restore", more);
        let mut child = command.stdout(told.try_clone().unwrap()).stderr(told).spawn().unwrap();
        let begun = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begun.elapsed() >= time {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let told = std::fs::read_to_string(path).unwrap();
        if let Some(status) = ended {
            assert!(matches!(status.code(), Some(0 | 3)), "{status:?}: {told}");
        }
        (ended.is_none(), told.lines().last().unwrap_or("nothing").trim().to_owned())
    }

    /// Everything of a place is gone: namespaces, with pods that have no time to end.
    pub fn lose(&self, at: &str) {
        let all = Self::namespaces(at);
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let delete = ["delete", "namespace", "--ignore-not-found", "--wait=false"];
        if self.kubectl(&[&delete[..], &names].concat()).is_empty() {
            return;
        }
        for namespace in &names {
            let _ = self.try_kubectl(&["-n", namespace, "delete", "pods", "--all", "--grace-period=0", "--force"]);
        }
        let get = ["get", "namespace", "--ignore-not-found", "-o", "name"];
        self.wait_until("the namespaces are gone", || self.kubectl(&[&get[..], &names].concat()).is_empty());
    }

    /// A claim is gone, and the pod that used it.
    pub fn lose_claim(&self, namespace: &str, claim: &str, app: &str) {
        let which = ["-n", namespace, "get", "pvc", claim, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
        let lost = self.kubectl(&which);
        assert!(!lost.is_empty(), "there is no claim {namespace}/{claim}");
        self.kubectl(&["-n", namespace, "delete", "pvc", claim, "--wait=false"]);
        let app = format!("app={app}");
        self.kubectl(&["-n", namespace, "delete", "pod", "-l", &app, "--grace-period=0", "--force"]);
        // A StatefulSet makes a new one.
        self.wait_until("the claim is gone", || self.kubectl(&which) != lost);
    }

    /// The last alarms of a namespace's pods, and what its pods are.
    fn show_alarms(&self, namespace: &str) {
        let pods = self.try_kubectl(&["-n", namespace, "get", "pods", "-o", "wide"]);
        eprintln!("{}", text(&pods));
        let names = self.try_kubectl(&["-n", namespace, "get", "pods", "-o", "name"]);
        for pod in String::from_utf8_lossy(&names.stdout).lines() {
            let log = self.try_kubectl(&["-n", namespace, "logs", pod, "--all-containers"]);
            eprintln!("{namespace} {pod}:\n{}", alarms(&text(&log)));
        }
    }

    /// An orderer that does not lead a channel: one that a leader remembers.
    pub fn follower(&self, channel: &str) -> String {
        let leads = |orderer: &String| {
            let script = format!(
                "exec 3<>/dev/tcp/{orderer}.{}orderers/8443; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
                self.prefix
            );
            let metrics = self.in_tools(&self.prefix, &script);
            metrics.contains(&format!("consensus_etcdraft_is_leader{{channel=\"{channel}\"}} 1"))
        };
        let (leaders, mut followers): (Vec<String>, Vec<String>) =
            (1..=3).map(|number| format!("orderer{number}")).partition(leads);
        assert_eq!(leaders.len(), 1, "{leaders:?} lead {channel}");
        followers.remove(0)
    }
}

/// Clients that send transactions.
pub struct Load(Vec<Child>);

impl Load {
    pub fn is_sent(&mut self) -> bool {
        self.0.iter_mut().all(|client| client.try_wait().unwrap().is_none())
    }

    /// Waits until the clients are gone.
    pub fn ends(mut self) {
        for client in &mut self.0 {
            client.wait().unwrap();
        }
    }
}

/// What went wrong is in the logs.
impl Drop for Pods {
    fn drop(&mut self) {
        let mut places = self.copies.take();
        places.push(self.prefix.clone());
        let namespaces: Vec<String> = places.iter().flat_map(|at| Self::namespaces(at)).collect();
        if std::thread::panicking() {
            namespaces.iter().for_each(|namespace| self.show_alarms(namespace));
        }
        for namespace in &namespaces {
            let _ = self.try_kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"]);
            let _ = self.try_kubectl(&["-n", namespace, "delete", "pods", "--all", "--grace-period=0", "--force"]);
        }
        for namespace in &namespaces {
            let gone = format!("namespace/{namespace}");
            let _ = self.try_kubectl(&["wait", "--for=delete", &gone, "--timeout=240s"]);
        }
    }
}

/// The folder of binaries, the kit and the kubeconfig, or why a network of this version cannot be made.
fn given(version: &str) -> Result<[PathBuf; 3], String> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let (Some(binaries), Some(kit), Some(kubeconfig)) = (named(BINARIES), named(KIT), named(CLUSTER)) else {
        return Err(format!("{BINARIES}, {KIT} and {CLUSTER} name no real Fabric and no cluster"));
    };
    if !binaries.join("ca/bin/fabric-ca-server").exists() {
        return Err(format!("{} contains no ca/bin", binaries.display()));
    }
    let peer = binaries.join(version).join("bin/peer");
    let told = Command::new(&peer).arg("version").output().map(|output| text(&output)).unwrap_or_default();
    // The kit names images by it.
    match told.contains(&format!("Version: v{version}.")) || told.contains(&format!("Version: {version}.")) {
        true => Ok([binaries, kit, kubeconfig]),
        false => Err(format!("{} is not, or does not say that it is, of version {version}", peer.display())),
    }
}

/// What a command told that succeeded, or succeeded with findings.
fn done(mut command: Command) -> String {
    let begun = Instant::now();
    let output = command.output().unwrap();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let arguments = arguments.join(" ");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{arguments}: {:?}\n{}", output.status, text(&output));
    eprintln!("{:>6.1} s  fabkeep {arguments}", begun.elapsed().as_secs_f64());
    text(&output)
}

fn kubectl() -> String {
    std::env::var(KUBECTL).unwrap_or("kubectl".to_owned())
}
