//! `fabkeep discover`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use fabkeep_platform::{
    Discovered, Host, Platform, PlatformError, Remark, discover, discover_compose, discover_docker,
};
use serde_json::json;

use super::{cluster, done};
use crate::arguments::Discover;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, remedy};

pub fn run(arguments: &Discover, output: &Output) -> Result<Code, CliError> {
    match &arguments.root {
        Some(root) => on_host(arguments, output, &|base| discover(root, base)),
        None if !arguments.compose.is_empty() => {
            on_host(arguments, output, &|base| discover_compose(&arguments.compose, base))
        }
        None if arguments.docker => on_host(arguments, output, &|base| discover_docker(Path::new("docker"), base)),
        None if arguments.cluster.is_meant() => on_cluster(arguments, output),
        None => Err(CliError::new(
            Code::Usage,
            "the location of the network is missing",
            "name a cluster (--kubernetes, --namespace, --context), a directory (--root DIR), a compose file (--compose FILE), or the containers of this machine (--docker)",
        )),
    }
}

fn on_cluster(arguments: &Discover, output: &Output) -> Result<Code, CliError> {
    let kubernetes = arguments.cluster.open()?;
    let view = kubernetes.view();
    output.json(&json!({"topology": view, "findings": kubernetes.findings()}));
    cluster::print(&view, output);
    output.findings(kubernetes.findings());
    output.line("next: fabkeep backup --repo REPO, with the same options");
    Ok(done(kubernetes.findings()))
}

fn on_host(
    arguments: &Discover,
    output: &Output,
    look: &dyn Fn(&Path) -> Result<Discovered, PlatformError>,
) -> Result<Code, CliError> {
    let to_screen = arguments.inventory == Path::new("-");
    let base = match arguments.inventory.parent() {
        Some(parent) if !to_screen && !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => std::env::current_dir().map_err(CliError::io("."))?,
    };
    let found = look(&base)?;
    let text = found.inventory.to_text()?;
    let host = Host::new(&found.inventory, &std::path::absolute(&base).map_err(CliError::io(&base))?)?;
    if to_screen {
        output.line(&text);
    } else {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&arguments.inventory).map_err(|error| {
            let path = arguments.inventory.display();
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => CliError::new(
                    Code::Usage,
                    format!("{path} exists; fabkeep never overwrites an inventory"),
                    "name another file (--inventory FILE), or compare: fabkeep discover --root DIR --inventory -",
                ),
                _ => CliError::io(&arguments.inventory)(error),
            }
        })?;
        file.write_all(text.as_bytes()).map_err(CliError::io(&arguments.inventory))?;
    }
    let remarks: Vec<String> = found.remarks.iter().map(sentence).collect();
    output.json(
        &json!({"inventory": found.inventory, "remarks": remarks, "left": found.left, "file": arguments.inventory}),
    );
    for organization in &host.network().organizations {
        output.line(&organization.name);
        for node in &organization.nodes {
            let directories: Vec<String> =
                node.directories.iter().map(|directory| directory.role.to_string()).collect();
            let msp = node.msp_id.as_deref().unwrap_or("");
            output.line(format!("  {:<14} {:<8} {msp:<12} {}", node.id.node, node.role, directories.join(", ")));
        }
    }
    for left in &found.left {
        output.line(format!("note: {} was left by a restore and is not in the inventory", left.display()));
    }
    for remark in &remarks {
        output.line(format!("check this: {remark}"));
    }
    if !to_screen {
        output
            .line(format!("inventory written to {}; next: fabkeep backup --repo REPO", arguments.inventory.display()));
    }
    Ok(if found.remarks.is_empty() { Code::Done } else { Code::DoneWithFindings })
}

fn sentence(remark: &Remark) -> String {
    match &remark.remedy {
        Some(remedy) => format!("{}: {}", remark.what, remedy::text(remedy)),
        None => remark.what.clone(),
    }
}
