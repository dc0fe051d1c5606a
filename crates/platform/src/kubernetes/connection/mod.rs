//! The connection to a cluster: a client with its own runtime, so that the engine's threads can block on it, and with retries for the time
//! that an API server is unavailable.

pub mod answer;
pub mod exec;
pub mod shell;

use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use backon::{BlockingRetryable, ExponentialBuilder};
use fabkeep_network::Remedy;
use kube::api::ApiResource;
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::objects::resource;
use super::served::{Served, has_core_name};
use super::volume::helper::Starting;
use crate::{Declaration, PlatformError};

/// What to do when the API server refuses a request.
pub(crate) const AFTER_REFUSAL: &str = "give fabkeep the rights of its Role (docs/kubernetes.md has it, for backup and for restore), or correct the quota, admission policy or webhook that the message names";
/// How long a request is tried again while the API server is away.
const RETRY_FOR: Duration = Duration::from_secs(120);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Which cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterAddress {
    /// A kubeconfig file; without one, what `KUBECONFIG`, `~/.kube/config` or the pod's service account say.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// A context of it; without one, the current one.
    pub context: Option<String>,
}

/// A connection to a cluster.
pub(crate) struct Connection {
    runtime: tokio::runtime::Runtime,
    client: Client,
    shells: shell::Shells,
    served: OnceLock<Served>,
    pub name: String,
    /// Helper pods that do not run yet.
    pub starting: Starting,
}

impl Connection {
    pub fn open(address: &ClusterAddress) -> Result<Connection, PlatformError> {
        let wrong = |problem: String| PlatformError::Cluster {
            what: "connecting to the cluster".to_owned(),
            problem,
            next: Remedy::NameCluster,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let config = runtime.block_on(config(address)).map_err(&wrong)?;
        let name = config.cluster_url.to_string();
        // A client's services need the runtime from their making on.
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config).map_err(|error| wrong(error.to_string()))?
        };
        let connection = Connection {
            runtime,
            client,
            shells: shell::Shells::default(),
            served: OnceLock::new(),
            name,
            starting: Starting::default(),
        };
        connection.run("asking the cluster's version", |client| async move { client.apiserver_version().await })?;
        Ok(connection)
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns what the API server serves; queries it once.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn served(&self) -> Result<&Served, PlatformError> {
        if let Some(known) = self.served.get() {
            return Ok(known);
        }
        let asked = Served::ask(self)?;
        Ok(self.served.get_or_init(|| asked))
    }

    /// Returns the API's name of a declared object's kind.
    pub fn resource_of(&self, declaration: &Declaration) -> ApiResource {
        let (version, kind) = (declaration.api_version.as_str(), declaration.kind.as_str());
        let served = self.served.get().filter(|_| !has_core_name(kind));
        served.and_then(|served| served.resource(version, kind)).unwrap_or_else(|| resource(version, kind, None))
    }

    /// Ends the shells that were kept for more commands.
    pub fn end_shells(&self) {
        self.shells.clear();
    }

    /// Waits for a future on the calling thread.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn handle(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    /// Makes a request; while the API server is away or overloaded, again.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn run<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, PlatformError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        tracing::debug!(what, "asks the API server");
        self.try_run(request).map_err(|error| failed(what, &error))
    }

    /// As [`Self::run`], for an object that may be gone: then `None`.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn run_if_there<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<Option<T>, PlatformError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        match self.try_run(request) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed(what, &error)),
        }
    }

    /// As [`Self::run`]; the last error as it came.
    pub fn try_run<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, kube::Error>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let begun = Instant::now();
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(MAX_PAUSE)
            .without_max_times();
        let once = || {
            self.wait(async {
                match tokio::time::timeout(REQUEST, request(self.client())).await {
                    Ok(result) => result,
                    Err(_) => Err(kube::Error::Service("no answer in time".into())),
                }
            })
        };
        once.retry(pauses)
            .sleep(std::thread::sleep)
            .when(|error| is_passing(error) && begun.elapsed() < RETRY_FOR)
            .notify(|error, _| {
                tracing::info!(error = chain(error), "the API server is unavailable or overloaded: retrying");
            })
            .call()
    }
}

async fn config(address: &ClusterAddress) -> Result<Config, String> {
    let options = KubeConfigOptions { context: address.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (&address.kubeconfig, &address.context) {
        (Some(path), _) => from_file(path, &options).await?,
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| chain(&error))?,
        (None, None) => Config::infer().await.map_err(|error| chain(&error))?,
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    // Streams last; requests have their own limit.
    config.read_timeout = None;
    config.write_timeout = None;
    Ok(config)
}

async fn from_file(path: &Path, options: &KubeConfigOptions) -> Result<Config, String> {
    let file = Kubeconfig::read_from(path).map_err(|error| chain(&error))?;
    Config::from_custom_kubeconfig(file, options).await.map_err(|error| chain(&error))
}

/// Returns an error with what is behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

/// Returns whether the same request may go better later.
pub(crate) fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        kube::Error::UpgradeConnection(_) => !matches!(status_code(error), Some(401 | 403 | 404)),
        _ => false,
    }
}

/// Returns the HTTP status that an error is about.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => Some(code.as_u16()),
        _ => None,
    }
}

/// Returns whether the API server said that there is no such thing.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Returns whether the API server refused what it was asked for, and did nothing: by rights, or by an admission policy, which answers 422
/// unless it says otherwise.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 422))
}

/// Returns whether the API server said that this is not allowed.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

pub(crate) fn failed(what: &str, error: &kube::Error) -> PlatformError {
    let (problem, next) = match error {
        // The message of an API error names the object and the reason, never content.
        kube::Error::Api(status) if is_refused(error) => {
            return PlatformError::Forbidden {
                what: what.to_owned(),
                problem: status.message.clone(),
                next: AFTER_REFUSAL.into(),
            };
        }
        kube::Error::Api(status) if status.code == 401 => {
            return PlatformError::Forbidden {
                what: what.to_owned(),
                problem: status.message.clone(),
                next: "renew the credentials in the kubeconfig".into(),
            };
        }
        kube::Error::Api(status) => (status.message.clone(), "check the object with kubectl"),
        other => (chain(other), "check that the cluster is up (`kubectl get nodes`), then run the same command again"),
    };
    PlatformError::Cluster { what: what.to_owned(), problem, next: next.into() }
}
