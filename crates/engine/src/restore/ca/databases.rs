//! Databases of certificate authorities on a database server: a dump is loaded after all data is in place and before anything starts. The
//! earlier content of the database is dumped first; after loading, the database is dumped again and compared.

use std::fs::File;
use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, CaConfig, FURTHER_CA_CONFIG_FILE, MAX_CONFIG_BYTES, config_file_name};
use fabkeep_ledger::ca_dump::{self, DUMP_FILE, Dump};
use fabkeep_ledger::dump_commands::{self, Dialect};
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::{Host, Platform, SqlAccess, dump_directory};
use fabkeep_store::PointReader;

use super::{forgotten, keep as ca_keep};
use crate::content::Contents;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedEntry, RecoveryPoint};
use crate::restore::RestoredDirectory;
use crate::restore::host::{Disk, Journal, Plan, PlannedDirectory, free_name};
use crate::restore::progress::Step;
use crate::{Difference, EngineError};

/// A dump to load, by its directory's position in the plan.
#[derive(Debug, Clone)]
pub(in crate::restore) struct PlannedLoad {
    pub directory: usize,
    pub access: SqlAccess,
}

/// Plans the loads, and looks at what the databases hold now.
pub(in crate::restore) fn plan_loads(
    plan: &mut Plan<'_>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    platform: &Host,
    replace: bool,
) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        if role(planned, point) != DirectoryRole::DatabaseDump {
            continue;
        }
        let access = match access(plan, planned, point, reader, platform)? {
            Some(access) => access,
            None => {
                plan.findings.push(Finding::error(
                    Rule::CaDatabase,
                    &planned.id,
                    "a dump of its database was captured, and its configuration names no database server",
                    Remedy::RestoreElsewhere.and("load the dump by hand").or("correct the configuration"),
                ));
                continue;
            }
        };
        plan.findings.extend(refused_dump(planned, &access, point, reader)?);
        match access.tables() {
            Err(error) => {
                plan.findings.push(Finding::error(
                    Rule::CaDatabase,
                    &planned.id,
                    error.to_string(),
                    "start the database server, with an empty database of that name and the user of the CA's configuration; if it is reached in another way, configure the commands dump and load in the inventory",
                ));
            }
            Ok(0) => {}
            Ok(tables) if !replace && !plan.resuming => plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                &planned.id,
                format!("{} contains {tables} tables", access.label()),
                Remedy::SetAside,
            )),
            Ok(_) if plan.resuming => {}
            Ok(_) => {
                let found = compare(planned, &access, point, reader)?;
                plan.findings.extend(found);
            }
        }
        plan.loads.push(PlannedLoad { directory: index, access });
    }
    Ok(())
}

/// A dump that would have the database's client do more than send SQL is refused before anything is changed.
fn refused_dump(
    planned: &PlannedDirectory,
    access: &SqlAccess,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Option<Finding>, EngineError> {
    let captured = &point.nodes[planned.node].directories[planned.directory];
    let Some(entry) = captured.entries.iter().find(|entry| entry.path == DUMP_FILE) else { return Ok(None) };
    let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
    let path = scratch.path().join(DUMP_FILE);
    forgotten::write_captured(entry, point, reader, &path)?;
    Ok(access.check(&path).err().map(|error| refusal(&planned.id, &error.to_string())))
}

fn refusal(id: &impl ToString, problem: &str) -> Finding {
    Finding::error(
        Rule::CaDatabase,
        id.to_string(),
        problem,
        Remedy::RestoreElsewhere
            .and("check the line")
            .and("load what is safe by hand")
            .or("use another recovery point"),
    )
}

/// The same for a dump that is loaded by its server's own pod: what wrote it is reported by its first lines.
pub(in crate::restore) fn refused_captured(
    id: &NodeId,
    entry: &CapturedEntry,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Option<Finding>, EngineError> {
    let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
    let path = scratch.path().join(DUMP_FILE);
    forgotten::write_captured(entry, point, reader, &path)?;
    let open = || File::open(&path).map_err(io(&path));
    let dialects = match Dialect::of(open()?).map_err(io(&path))? {
        Some(known) => vec![known],
        None => vec![Dialect::Postgres, Dialect::MySql],
    };
    let mut found = None;
    for dialect in dialects {
        match dump_commands::refused(open()?, dialect).map_err(io(&path))? {
            None => return Ok(None),
            Some(refused) => found = Some(refused),
        }
    }
    Ok(found.map(|refused| refusal(id, &format!("the dump of its database is refused: {refused}"))))
}

fn role(planned: &PlannedDirectory, point: &RecoveryPoint) -> DirectoryRole {
    point.nodes[planned.node].directories[planned.directory].directory.role
}

/// The database by the configuration that will be in force.
fn access(
    plan: &Plan<'_>,
    planned: &PlannedDirectory,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    platform: &Host,
) -> Result<Option<SqlAccess>, EngineError> {
    let dump = &point.nodes[planned.node].directories[planned.directory].directory.path;
    let known = platform.network().node(&planned.id);
    // What the server's environment says is said of its own authority only.
    let mut environment = known.map(|node| node.environment.clone()).unwrap_or_default();
    let mut further: Vec<PathBuf> = Vec::new();
    let homes = plan.directories.iter().filter(|home| home.id == planned.id);
    for home in homes.filter(|home| role(home, point) == DirectoryRole::CaHome) {
        let captured = &point.nodes[home.node].directories[home.directory];
        for inside in ca_keep::homes(&captured.directory) {
            let folder = Path::new(&captured.directory.path).join(inside);
            let own = further.iter().filter(|file| file.parent() == Some(&folder));
            let own = own.filter_map(|file| file.file_name()?.to_str());
            let usual = [config_file_name(&environment), CA_CONFIG_FILE, FURTHER_CA_CONFIG_FILE];
            let Some(bytes) = in_force(home, captured, inside, own.chain(usual), point, reader)? else { continue };
            let Ok(config) = CaConfig::read(&bytes, &environment) else { continue };
            if dump_directory(&captured.directory.path, inside) == *dump {
                return Ok(platform.sql(&planned.id, &config, &home.staging.place.join(inside))?);
            }
            if further.is_empty() {
                further.extend(config.further.iter().map(|named| folder.join(named)));
            }
            environment.clear();
        }
    }
    Ok(None)
}

/// The configuration file of one of these names that will be in force: the one that stays, else the captured one.
fn in_force<'n>(
    home: &PlannedDirectory,
    captured: &CapturedDirectory,
    inside: &str,
    names: impl Iterator<Item = &'n str>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Option<Vec<u8>>, EngineError> {
    for name in names {
        let path = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
        if let Some(stays) = home.kept.iter().find(|file| file.entry.path == path) {
            return Ok(Some(stays.bytes.clone()));
        }
        let comes = captured.entries.iter().find(|entry| entry.path == path);
        if let Some(entry) = comes.filter(|entry| entry.size() <= MAX_CONFIG_BYTES) {
            return Contents::new(reader, point).whole(entry).map(Some);
        }
    }
    Ok(None)
}

/// What the authority will have forgotten.
fn compare(
    planned: &PlannedDirectory,
    access: &SqlAccess,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Vec<Finding>, EngineError> {
    let captured = &point.nodes[planned.node].directories[planned.directory];
    let Some(entry) = captured.entries.iter().find(|entry| entry.path == DUMP_FILE) else { return Ok(Vec::new()) };
    let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
    let (present, older) = (scratch.path().join("present.sql"), scratch.path().join("captured.sql"));
    access.dump(&present)?;
    forgotten::write_captured(entry, point, reader, &older)?;
    forgotten::forgotten_by_dump(&planned.id, &present, &older)
}

/// Reads a dump without looking at its rows.
pub(in crate::restore) fn read(path: &Path) -> Result<Dump, EngineError> {
    let file = File::open(path).map_err(io(path))?;
    ca_dump::read(file, &mut |_, _| {}).map_err(io(path))
}

/// What was proven of a database whose dump was loaded.
pub(in crate::restore) fn reported(database: &str, found: &Dump) -> String {
    let rows: Vec<String> = found.tables.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    format!("{database}: dumped again after it was loaded, every row equals the captured one ({})", rows.join(", "))
}

/// Loads every dump that no earlier run has loaded. What was proven, in sentences; where what was there before is.
pub(in crate::restore) fn load_all(
    plan: &Plan<'_>,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<(Vec<String>, Vec<RestoredDirectory>), EngineError> {
    let (mut proven, mut aside) = (Vec::new(), Vec::new());
    for load in &plan.loads {
        let planned = &plan.directories[load.directory];
        if journal.is_loaded(load.directory) {
            continue;
        }
        if let Some(path) = set_aside(load, planned, journal, disk)? {
            let (node, set_aside) = (planned.id.to_string(), Some(path));
            aside.push(RestoredDirectory { node, path: planned.staging.place.clone(), set_aside });
        }
        let dump = planned.staging.placed(DUMP_FILE);
        let expected = read(&dump)?;
        if !expected.complete {
            return Err(unproven(&dump, "the dump is incomplete"));
        }
        journal.note(Step::Loading { directory: load.directory })?;
        load.access.load(&dump)?;
        let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
        let again = scratch.path().join(DUMP_FILE);
        load.access.dump(&again)?;
        let found = read(&again)?;
        if found.content != expected.content {
            return Err(unproven(&dump, "the database does not hold the dump's rows after it was loaded"));
        }
        proven.push(reported(&load.access.label(), &found));
        journal.note(Step::Loaded { directory: load.directory })?;
    }
    Ok((proven, aside))
}

/// Dumps what is there beside the dump that comes, once.
fn set_aside(
    load: &PlannedLoad,
    planned: &PlannedDirectory,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<Option<PathBuf>, EngineError> {
    if let Some(path) = journal.dumped_aside(load.directory) {
        return Ok(Some(path));
    }
    if load.access.tables()? == 0 {
        return Ok(None);
    }
    let folder = free_name(&planned.staging.regions[0].aside);
    disk.make_private(&folder)?;
    let partial = folder.join("partial.sql");
    load.access.dump(&partial)?;
    if !read(&partial)?.complete {
        return Err(unproven(
            &partial,
            "the dump of the present content is incomplete: the database was left as it is",
        ));
    }
    let path = folder.join(DUMP_FILE);
    File::open(&partial).and_then(|dump| dump.sync_all()).map_err(io(&partial))?;
    disk.rename(&partial, &path)?;
    disk.sync_folder(&folder)?;
    journal.note(Step::DumpedAside { directory: load.directory, folder: folder.clone() })?;
    Ok(Some(folder))
}

/// Removes the dumps that were loaded: what is in them is in the databases, and they hold what identities enrol with.
pub(in crate::restore) fn remove_loaded(plan: &Plan<'_>, disk: Disk<'_>) -> Result<(), EngineError> {
    for load in &plan.loads {
        let place = &plan.directories[load.directory].staging.place;
        let dump = place.join(DUMP_FILE);
        if dump.exists() {
            disk.remove_file(&dump)?;
            // Somebody may have put something beside it.
            let _ = std::fs::remove_dir(place);
        }
    }
    Ok(())
}

fn unproven(path: &Path, problem: &str) -> EngineError {
    Difference::new(path.display(), format!("rule {}: {problem}", Rule::CaDatabase)).into()
}
