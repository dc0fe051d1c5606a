//! `docker run …` and `podman run …`: a container as a command line describes it.

use std::path::{Path, PathBuf};

use fabkeep_ledger::node_settings::Environment;

use super::compose::{environment_file, volume_path};
use super::container::Container;
use super::normal;
use super::script::{UNKNOWN, WORKING_FOLDER};
use super::started::{Mount, on_host};

/// Options of `run` without a value; every other one has one.
const SWITCHES: [&str; 22] = [
    "detach",
    "disable-content-trust",
    "env-host",
    "help",
    "http-proxy",
    "init",
    "interactive",
    "no-healthcheck",
    "no-hostname",
    "no-hosts",
    "oom-kill-disable",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "read-only-tmpfs",
    "replace",
    "rm",
    "rmi",
    "sig-proxy",
    "tls-verify",
    "tty",
];
/// The same in their short form.
const SHORT_SWITCHES: &str = "ditPq";
/// Words that may stand between the program and `run`, with values that have their own.
const MAX_BEFORE_RUN: usize = 6;

/// Where a command line stands: what its paths and variables mean.
pub(super) struct Line<'a> {
    pub folder: &'a Path,
    pub root: &'a Path,
    /// Directories that hold data, among which the places of named volumes are looked for.
    pub known: &'a [PathBuf],
    pub environment: &'a Environment,
}

/// The container that a command makes, from its words behind the program's; `None` when it makes none.
pub(super) fn container(words: &[&str], line: &Line<'_>) -> Option<Container> {
    let verb = words.iter().take(MAX_BEFORE_RUN).position(|word| matches!(*word, "run" | "create"))?;
    let mut out = Container::default();
    let mut entry = None;
    let mut files = Environment::new();
    let mut rest = words[verb + 1..].iter().copied();
    loop {
        let word = rest.next()?;
        let Some(option) = word.strip_prefix('-').filter(|option| !option.is_empty()) else {
            out.image = word.to_owned();
            break;
        };
        let (name, value) = match option.strip_prefix('-') {
            Some(long) => match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, if SWITCHES.contains(&long) { Some("") } else { None }),
            },
            None => {
                let behind = option.trim_start_matches(|c| SHORT_SWITCHES.contains(c));
                let mut chars = behind.chars();
                match chars.next() {
                    None => continue,
                    Some(c) => {
                        let value = chars.as_str();
                        let value = value.strip_prefix('=').unwrap_or(value);
                        (&behind[..c.len_utf8()], Some(value).filter(|value| !value.is_empty()))
                    }
                }
            }
        };
        let value = match value {
            Some(value) => value,
            None => rest.next()?,
        };
        match name {
            "e" | "env" => {
                let (name, value) = match value.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (value, line.environment.get(value).cloned()),
                };
                out.environment.extend(value.map(|value| (name.to_owned(), value)));
            }
            "env-file" => {
                let path = on_host(value, line.folder, line.folder, line.root).path();
                files.extend(environment_file(&path, line.environment));
                out.reads.extend(path.canonicalize());
            }
            "v" | "volume" => out.mounts.extend(volume(value, line)),
            "mount" => out.mounts.extend(mount(value, line)),
            "name" if !value.contains(UNKNOWN) => {
                out.name = value.to_owned();
                out.hosts.push(value.to_owned());
            }
            "h" | "hostname" | "network-alias" | "net-alias" => out.hosts.push(value.to_owned()),
            "entrypoint" => entry = Some(value.to_owned()),
            "p" | "publish" => out.ports.extend(published(value)),
            _ => {}
        }
    }
    out.environment = files.into_iter().chain(std::mem::take(&mut out.environment)).collect();
    out.command = entry.into_iter().filter(|word| !word.is_empty()).chain(rest.map(str::to_owned)).collect();
    Some(out)
}

/// The port of this machine in `[ADDRESS:]PORT:PORT[/PROTOCOL]`.
fn published(value: &str) -> Option<u16> {
    let mut parts = value.split('/').next()?.rsplit(':');
    parts.next();
    parts.next()?.parse().ok()
}

/// `SOURCE:AT[:OPTIONS]`.
fn volume(value: &str, line: &Line<'_>) -> Option<Mount> {
    let (source, rest) = value.split_once(':')?;
    Some(mounted(source, rest.split(':').next()?, None, line))
}

/// `type=bind,source=…,target=…`.
fn mount(value: &str, line: &Line<'_>) -> Option<Mount> {
    let of = |names: &[&str]| {
        let mut pairs = value.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    };
    if of(&["type"]) == Some("tmpfs") {
        return None;
    }
    Some(mounted(
        of(&["source", "src"])?,
        of(&["target", "dst", "destination"])?,
        of(&["volume-subpath", "subpath"]),
        line,
    ))
}

/// A folder of this machine, or a named volume.
fn mounted(source: &str, at: &str, inside: Option<&str>, line: &Line<'_>) -> Mount {
    let is_path = source.starts_with(['/', '.', WORKING_FOLDER, UNKNOWN]);
    let path = match is_path {
        true => on_host(source, line.folder, line.folder, line.root).path(),
        false => volume_path(source, line.root, line.known),
    };
    let path = inside.map_or(path.clone(), |inside| path.join(inside));
    Mount { at: normal(Path::new(at)).display().to_string(), path, volume: (!is_path).then(|| source.to_owned()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Container> {
        let environment = Environment::from([("TAG".to_owned(), "2.5".to_owned())]);
        let line = Line { folder: Path::new("/n"), root: Path::new("/n"), known: &[], environment: &environment };
        container(&text.split_whitespace().collect::<Vec<_>>(), &line)
    }

    #[test]
    fn options_with_and_without_values_are_distinguished() {
        for text in [
            "run -d -it --rm --name p -e A=b -eTAG -v /d:/data:rw -p 127.0.0.1:7051:7052 --restart always img peer node start",
            "--context x container run -dit --name=p --env A=b --env=TAG --volume=/d:/data --publish 7051:7052/tcp img peer node start",
            "create -itv /d:/data --name p --env=A=b -e TAG --mount x=y -p=7051:7052 --entrypoint peer img node start",
            "run --privileged --init -dv/d:/data -p7051:7052 --net host -e=A=b -e TAG --name p img peer node start",
        ] {
            let found = read(text).unwrap();
            assert_eq!((found.name.as_str(), found.image.as_str()), ("p", "img"), "{text}");
            assert_eq!(found.command, ["peer", "node", "start"], "{text}");
            assert_eq!((found.environment["A"].as_str(), found.environment["TAG"].as_str()), ("b", "2.5"), "{text}");
            let mount = Mount { at: "/data".to_owned(), path: PathBuf::from("/d"), volume: None };
            assert_eq!((found.mounts, found.ports), (vec![mount], vec![7051]), "{text}");
        }
        for none in ["ps", "exec -it run.sh", "rm -f p", "run -d --name", "run"] {
            assert!(read(none).is_none(), "{none}");
        }
        let named = |text: &str| read(text).unwrap().mounts;
        let volumes = "/var/lib/docker/volumes";
        assert_eq!(named("run -v vol:/data img")[0].path, Path::new(volumes).join("vol/_data"));
        assert_eq!(
            named("run --mount type=volume,src=vol,dst=/data,volume-subpath=p img")[0].path,
            Path::new(volumes).join("vol/_data/p")
        );
        assert_eq!(named("run --mount type=tmpfs,dst=/data -v /anonymous img"), []);
    }
}
