//! `fabkeep debug-bundle`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fabkeep_engine::{Bundle, BundleFile, BundleNetwork};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::doctor::{Diagnosed, diagnose};
use super::{key_files, network};
use crate::arguments::DebugBundle;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, interrupt, units};

/// The file of a bundle that lists what could not be collected.
const NOT_COLLECTED: &str = "not-collected.txt";

const README: &str = "This archive was made by `fabkeep debug-bundle`. It holds versions, the result of `fabkeep doctor`, the network as it was\n\
found, states of pods and events, ends of logs and the list of recovery points. Values of Secrets, private keys, passwords and tokens\n\
were taken out ([redacted]). It names hosts, organizations, channels and images: look through it before you give it to others.\n";

pub fn run(arguments: &DebugBundle, output: &Output) -> Result<Code, CliError> {
    let file = create(&arguments.file)?;
    let written = collect(arguments, output).and_then(|files| {
        if interrupt::is_asked() {
            return Ok((files, true));
        }
        write(file, &files).map_err(CliError::io(&arguments.file))?;
        Ok((files, false))
    });
    let (files, interrupted) = written.inspect_err(|_| remove(&arguments.file))?;
    if interrupted {
        remove(&arguments.file);
        return Ok(Code::Interrupted);
    }
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let missing = files.iter().find(|file| file.name == NOT_COLLECTED);
    output.json(&json!({"file": arguments.file, "files": names, "not_collected": missing.map(|file| file.text.lines().collect::<Vec<_>>())}));
    names.iter().for_each(|name| output.line(format!("  {name}")));
    if let Some(missing) = missing {
        missing.text.lines().for_each(|line| output.line(format!("not collected: {line}")));
    }
    let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
    output.line(format!(
        "{} in {}; secrets were taken out: look through it before you give it to others",
        units::files(count),
        arguments.file.display()
    ));
    Ok(if missing.is_some() { Code::DoneWithFindings } else { Code::Done })
}

fn collect(arguments: &DebugBundle, output: &Output) -> Result<Vec<BundleFile>, CliError> {
    let examined = &arguments.examined;
    let reporter = output.reporter();
    let reporter = reporter.as_ref();
    let mut bundle = Bundle::default();
    bundle.learn_environment();
    let called: Vec<String> = std::env::args().collect();
    bundle.learn_text(&called.join(" "));
    let repository = examined
        .repo
        .as_deref()
        .map(|location| key_files::open_pinned(location, examined.pin.root.as_deref()).map_err(CliError::from));
    if let Some(Ok(repository)) = &repository {
        let keys = key_files::found(repository, examined.writer.as_deref(), examined.identity.identity.as_deref());
        bundle.learn_files(keys.writer.into_iter().chain(keys.identity));
    }
    bundle.learn_files(examined.writer.iter().chain(&examined.identity.identity).cloned());
    let place = &examined.place;
    let (cluster, host) = match place.cluster.is_meant() {
        true => (Some(place.cluster.open_network()), None),
        false => (None, Some(network::open_host(place))),
    };
    let inventory = || if place.root.is_none() { std::fs::read_to_string(&place.inventory).ok() } else { None };
    let network = match (&cluster, &host) {
        (Some(Ok(cluster)), _) => Some(BundleNetwork::Cluster(cluster)),
        (_, Some(Ok(host))) => Some(BundleNetwork::Host(host, inventory())),
        _ => None,
    };
    if let Some(network) = &network {
        bundle.learn_network(network);
    }
    bundle.text("README.txt", README);
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let of_interest = ["FABKEEP_", "KUBECONFIG", "AWS_", "GOOGLE_", "AZURE_", "CORE_", "ORDERER_", "RUST_"];
    let variables: Vec<String> = variables.filter(|name| of_interest.iter().any(|one| name.starts_with(one))).collect();
    bundle.document(
        "versions.json",
        json!({"fabkeep": env!("CARGO_PKG_VERSION"), "system": std::env::consts::OS, "machine": std::env::consts::ARCH,
            "made": Timestamp::now().to_string(), "called": called, "variables_that_are_set": variables}),
    );
    if let Some(network) = &network {
        // No log is older than this.
        let back = SignedDuration::from_mins(i64::from(arguments.logs));
        let since = (arguments.logs > 0).then(|| Timestamp::now() - back);
        bundle.network(network, since, reporter);
    }
    match &repository {
        Some(Ok(repository)) => bundle.repository(repository),
        Some(Err(error)) => bundle.problem(format!("repository: {}", error.message)),
        None => {}
    }
    for error in [cluster.and_then(Result::err), host.and_then(Result::err)].into_iter().flatten() {
        bundle.problem(format!("network: {error}"));
    }
    let diagnosed = Diagnosed::of(diagnose(examined, reporter));
    bundle.document("doctor.json", diagnosed.document);
    bundle.text("doctor.txt", &(diagnosed.lines.join("\n") + "\n"));
    Ok(bundle.finish())
}

fn create(path: &Path) -> Result<File, CliError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::new(
            Code::Usage,
            format!("{} exists; a bundle never overwrites a file", path.display()),
            "name another file",
        ),
        _ => CliError::io(path)(error),
    })
}

/// Removes what was begun.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn write(file: File, files: &[BundleFile]) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    for BundleFile { name, text } in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("fabkeep-debug/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}
