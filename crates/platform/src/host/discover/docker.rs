//! The containers of this machine, read with `docker inspect`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fabkeep_network::Remedy;
use serde_json::Value;

use super::container::{Container, Containers, docker_commands};
use super::started::Mount;
use crate::PlatformError;

/// The nodes among the containers, running or not. `program`: docker, or what answers as it does.
pub(super) fn containers(program: &Path) -> Result<Containers, PlatformError> {
    let ids = run(program, &["ps", "--all", "--quiet", "--no-trunc"])?;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if ids.is_empty() {
        return Ok(Containers::default());
    }
    let text = run(program, &[&["inspect"][..], &ids].concat())?;
    let mut all: Vec<Value> = serde_json::from_str(&text)
        .map_err(|error| failed(format!("`docker inspect` printed what is not JSON: {error}")))?;
    let name = |one: &Value| one.pointer("/Name").and_then(Value::as_str).unwrap_or_default().to_owned();
    // What runs counts before what does not.
    all.sort_by_key(|one| (is_stopped(one), name(one)));
    let mut out = Containers::default();
    for one in &all {
        let container = container(one);
        if is_stopped(one) {
            out.stopped.insert(container.origin.clone());
        }
        out.add(container, Path::new("/"));
    }
    Ok(out)
}

fn is_stopped(one: &Value) -> bool {
    one.pointer("/State/Running").and_then(Value::as_bool) == Some(false)
}

fn failed(problem: String) -> PlatformError {
    PlatformError::NotHere {
        problem,
        next: Remedy::from("run fabkeep on the machine where the containers run, as a user who may use docker")
            .or(Remedy::NameComposeFiles),
    }
}

fn run(program: &Path, arguments: &[&str]) -> Result<String, PlatformError> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("docker cannot be run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("`docker {}` failed: {said}", arguments.first().unwrap_or(&""))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn container(one: &Value) -> Container {
    let text = |pointer: &str| one.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |pointer: &str| -> Vec<String> {
        let items = one.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let name = text("/Name").trim_start_matches('/').to_owned();
    let environment = list("/Config/Env");
    let environment = environment.iter().filter_map(|pair| pair.split_once('='));
    let mounts = one.pointer("/Mounts").and_then(Value::as_array).into_iter().flatten().filter_map(|mount| {
        let of = |key: &str| mount.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(Mount {
            at: of("Destination")?.to_owned(),
            path: PathBuf::from(of("Source")?),
            volume: of("Name").map(str::to_owned),
        })
    });
    let ports =
        one.pointer("/HostConfig/PortBindings").and_then(Value::as_object).into_iter().flat_map(|all| all.values());
    let ports = ports.flat_map(|bindings| bindings.as_array().into_iter().flatten());
    let ports = ports.filter_map(|binding| binding.get("HostPort")?.as_str()?.parse().ok());
    let of_compose = |key: &str| text(&format!("/Config/Labels/com.docker.compose.{key}"));
    let mut hosts: Vec<String> = Vec::new();
    let mut aliases: Vec<(String, String)> = Vec::new();
    for (network, settings) in one.pointer("/NetworkSettings/Networks").and_then(Value::as_object).into_iter().flatten()
    {
        let given = settings.get("Aliases").and_then(Value::as_array).into_iter().flatten();
        let given: Vec<String> = given.filter_map(Value::as_str).map(str::to_owned).collect();
        let all = given.iter().cloned().chain([name.clone(), of_compose("service")]);
        aliases.extend(all.filter(|alias| !alias.is_empty()).map(|alias| (network.clone(), alias)));
        hosts.extend(given);
    }
    if let (project, service) = (of_compose("project"), of_compose("service"))
        && !project.is_empty()
        && !service.is_empty()
    {
        aliases.push((format!("project {project}"), service));
    }
    hosts.extend([name.clone(), text("/Config/Hostname"), of_compose("service")]);
    hosts.retain(|host| !host.is_empty());
    Container {
        origin: format!("container {name}"),
        commands: docker_commands(&name),
        image: text("/Config/Image"),
        command: [list("/Config/Entrypoint"), list("/Config/Cmd")].concat(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        mounts: mounts.collect(),
        hosts,
        aliases,
        ports: ports.collect(),
        reads: Vec::new(),
        name,
    }
}
