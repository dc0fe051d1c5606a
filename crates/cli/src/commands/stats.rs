//! `fabkeep stats`.

use fabkeep_store::Amount;
use serde_json::json;

use super::{forget, key_files};
use crate::arguments::Stats;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Stats, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let identity = key_files::identity_if_any(&repository, &arguments.identity)?;
    let stats = repository.stats(identity.as_ref())?;
    let rules = forget::rules(&arguments.keep);
    let plan =
        if rules.is_empty() { None } else { Some(repository.plan_forget(&rules, &[], None, identity.as_ref())?) };
    let forget = plan.as_ref().map(|plan| json!({"points": plan.going().len(), "frees": plan.frees}));
    output.json(&json!({"stats": stats, "forget": forget}));
    let amount = |amount: Amount| [units::bytes(amount.bytes), amount.objects.to_string()];
    let mut kinds = table(["kind", "bytes", "objects"]);
    for (kind, all) in &stats.kinds {
        let [bytes, objects] = amount(*all);
        kinds.add_row([(*kind).to_owned(), bytes, objects]);
    }
    output.line(kinds.to_string());
    let mut networks = table(["network", "needs", "only it needs"]);
    for (network, bytes) in &stats.networks {
        networks.add_row([network.clone(), units::bytes(bytes.needed.bytes), units::bytes(bytes.only.bytes)]);
    }
    output.line(networks.to_string());
    let mut points = table(["point", "network", "needs", "only it needs", "added"]);
    for point in &stats.points {
        points.add_row([
            point.point.to_string(),
            point.network.clone(),
            units::bytes(point.bytes.needed.bytes),
            units::bytes(point.bytes.only.bytes),
            units::bytes(point.added_bytes),
        ]);
    }
    output.line(points.to_string());
    output.line(format!("{} in {}", units::bytes(stats.all.bytes), units::objects(stats.all.objects)));
    output.line(format!(
        "no recovery point needs {} in {}; {} of it is recorded to be freed",
        units::bytes(stats.unreferenced.bytes),
        units::objects(stats.unreferenced.objects),
        units::bytes(stats.recorded.bytes)
    ));
    if let Some(growth) = stats.growth_per_day {
        output.line(format!("grows by {} a day", units::bytes(growth)));
    }
    if let Some(plan) = plan {
        output.line(format!(
            "forgetting by these rules gives up {} and frees {} in {}",
            units::points(plan.going().len() as u64),
            units::bytes(plan.frees.bytes),
            units::objects(plan.frees.objects)
        ));
    }
    Ok(Code::Done)
}
