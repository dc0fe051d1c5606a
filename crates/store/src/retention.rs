//! Which recovery points stay: rules by number and time, for each network by itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::commit::{Commit, PointId};
use crate::history::History;
use crate::keys::IdentityFile;
use crate::marks::Mark;
use crate::prune::{Amount, list_all};
use crate::reach::{Reach, Root};
use crate::{Repository, StoreError};

/// What stays. Each rule keeps what it keeps; a point goes if no rule keeps it.
#[derive(Debug, Clone, Default)]
pub struct KeepRules {
    /// How many of the newest points.
    pub last: u32,
    /// For how many hours that have points, the newest point of each. Days, weeks, months and years are those of UTC.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks, which begin on Monday.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
    /// All points that are not older than this, counted from the newest complete point.
    pub within: Option<Span>,
    /// All points with one of these tags.
    pub tags: BTreeSet<String>,
}

impl KeepRules {
    /// Returns whether there is no rule.
    pub fn is_empty(&self) -> bool {
        let numbers = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        numbers == [0; 6] && self.within.is_none() && self.tags.is_empty()
    }
}

/// Why a recovery point stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// One of the newest.
    Last {
        /// Its place among them, from 1.
        number: u32,
    },
    /// The newest of its hour, day, week, month or year.
    Newest {
        /// `hour`, `day`, `week`, `month` or `year`.
        of: &'static str,
        /// Which one.
        period: String,
    },
    /// It is young enough.
    Within {
        /// Since when.
        since: Timestamp,
    },
    /// It has a tag that is kept.
    Tag {
        /// The tag.
        tag: String,
    },
    /// It is on hold.
    Hold,
    /// It is the last complete point of its network.
    OnlyComplete,
    /// It is damaged, and no newer point of its network is complete.
    NoNewerComplete,
    /// No rule keeps it.
    NoRule,
    /// It is damaged, and a newer point is complete.
    Damaged {
        /// What is damaged.
        problem: String,
    },
    /// It was named.
    Named,
    /// The rules are for another network.
    OtherNetwork,
}

/// What becomes of a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The recovery point.
    pub point: PointId,
    /// Its network; empty if its commit record cannot be read.
    pub network: String,
    /// Whether it goes.
    pub goes: bool,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What is marked on it.
    #[serde(flatten)]
    pub mark: Mark,
    /// What is damaged of it.
    pub damaged: Option<String>,
    /// What only this point needs: it would be freed if this one alone went.
    pub own: Amount,
}

/// What a `forget` would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ForgetPlan {
    /// All recovery points: by network, in the order of their commits.
    pub points: Vec<Planned>,
    /// What no remaining point needs, of what the points that go need.
    pub frees: Amount,
}

impl ForgetPlan {
    /// Returns the points that go, with the reason for each.
    pub fn going(&self) -> Vec<(PointId, String)> {
        let going = self.points.iter().filter(|planned| planned.goes);
        going.map(|planned| (planned.point.clone(), reason_text(&planned.reasons).to_owned())).collect()
    }
}

/// Returns the reason as it is recorded.
fn reason_text(reasons: &[Reason]) -> &'static str {
    match reasons.first() {
        Some(Reason::Named) => "named",
        Some(Reason::Damaged { .. }) => "damaged, and a newer one is complete",
        _ => "no rule keeps it",
    }
}

/// A recovery point, as the rules see it.
#[derive(Debug, Clone)]
struct Candidate {
    time: Timestamp,
    damaged: Option<String>,
    mark: Mark,
}

/// What makes two points of one hour, day, week, month or year.
fn periods(time: Timestamp) -> [(&'static str, String); 5] {
    let date = time.to_zoned_datetime(TimeZone::UTC);
    let week = date.date().iso_week_date();
    [
        ("hour", date.strftime("%Y-%m-%d %H:00").to_string()),
        ("day", date.strftime("%Y-%m-%d").to_string()),
        ("week", format!("{}-W{:02}", week.year(), week.week())),
        ("month", date.strftime("%Y-%m").to_string()),
        ("year", date.strftime("%Y").to_string()),
    ]
}

/// Says for each point of one network, oldest first, whether it goes, and why.
fn judge(points: &[Candidate], rules: &KeepRules, now: Timestamp) -> Vec<(bool, Vec<Reason>)> {
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); points.len()];
    let whole = |at: &usize| points[*at].damaged.is_none();
    let newest = (0..points.len()).rev().find(whole);
    // A clock that was ahead does not make the others old.
    let reference = newest.map_or(now, |at| points[at].time.min(now));
    let since = rules.within.and_then(|within| reference.to_zoned_datetime(TimeZone::UTC).checked_sub(within).ok());
    let since = since.map(|since| since.timestamp());
    let limits = [rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly];
    let mut seen: [HashSet<String>; 5] = Default::default();
    let mut number = 0;
    for at in (0..points.len()).rev().filter(whole) {
        number += 1;
        if number <= rules.last {
            reasons[at].push(Reason::Last { number });
        }
        for (((of, period), limit), seen) in periods(points[at].time).into_iter().zip(limits).zip(&mut seen) {
            if (seen.len() as u64) < u64::from(limit) && seen.insert(period.clone()) {
                reasons[at].push(Reason::Newest { of, period });
            }
        }
    }
    for (at, point) in points.iter().enumerate() {
        let reasons = &mut reasons[at];
        if let Some(since) = since.filter(|since| point.time >= *since) {
            reasons.push(Reason::Within { since });
        }
        reasons.extend(rules.tags.intersection(&point.mark.tags).map(|tag| Reason::Tag { tag: tag.clone() }));
        if point.mark.hold {
            reasons.push(Reason::Hold);
        }
        if point.damaged.is_some() && newest.is_none_or(|newest| newest < at) {
            reasons.push(Reason::NoNewerComplete);
        }
    }
    if let Some(newest) = newest
        && !(0..points.len()).any(|at| whole(&at) && !reasons[at].is_empty())
    {
        reasons[newest].push(Reason::OnlyComplete);
    }
    let result = reasons.into_iter().zip(points).map(|(reasons, point)| match (&point.damaged, reasons.is_empty()) {
        (_, false) => (false, reasons),
        (None, true) => (true, vec![Reason::NoRule]),
        (Some(problem), true) => (true, vec![Reason::Damaged { problem: problem.clone() }]),
    });
    result.collect()
}

/// When a point was begun.
fn time_of(commit: &Commit) -> Timestamp {
    commit.created.parse().unwrap_or_default()
}

impl Repository {
    /// Says what becomes of each recovery point by these rules, and what that frees. Without rules, those that are named go. With a network,
    /// the rules are for that one only.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be read, or a named point is on hold, is the last complete one of its network, or is none.
    pub fn plan_forget(
        &self,
        rules: &KeepRules,
        named: &[PointId],
        network: Option<&str>,
        identity: Option<&IdentityFile>,
    ) -> Result<ForgetPlan, StoreError> {
        let history = self.history()?;
        let (roots, reach) = self.reach_all(&history, identity)?;
        let marks = self.marks(&history)?;
        let candidate = |at: usize, root: &Root| Candidate {
            time: root.commit.as_ref().map(time_of).unwrap_or_default(),
            damaged: reach.points[at].damaged.clone(),
            mark: marks.of(&root.id),
        };
        let candidates: Vec<Candidate> = roots.iter().enumerate().map(|(at, root)| candidate(at, root)).collect();
        let mut judged: Vec<(bool, Vec<Reason>)> = vec![(false, vec![Reason::OtherNetwork]); roots.len()];
        let mut networks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, root) in roots.iter().enumerate() {
            match &root.commit {
                Some(commit) => networks.entry(&commit.summary.network).or_default().push(at),
                // Of one without a commit record it is not known what it was.
                None => judged[at] = (false, vec![Reason::NoNewerComplete]),
            }
        }
        if let Some(wanted) = network.filter(|wanted| !networks.contains_key(wanted)) {
            let known: Vec<&str> = networks.keys().copied().collect();
            return Err(StoreError::Rules(format!(
                "the repository has no recovery point of the network {wanted}; it has points of: {}",
                known.join(", ")
            )));
        }
        if rules.is_empty() {
            judged = vec![(false, Vec::new()); roots.len()];
            self.plan_named(named, &roots, &candidates, &networks, &mut judged)?;
        } else {
            for (_, places) in networks.iter().filter(|(name, _)| network.is_none_or(|wanted| wanted == **name)) {
                let points: Vec<Candidate> = places.iter().map(|at| candidates[*at].clone()).collect();
                for (at, one) in places.iter().zip(judge(&points, rules, self.clock.now())) {
                    judged[*at] = one;
                }
            }
        }
        Ok(plan_of(&roots, candidates, judged, &reach))
    }

    fn plan_named(
        &self,
        named: &[PointId],
        roots: &[Root],
        candidates: &[Candidate],
        networks: &BTreeMap<&str, Vec<usize>>,
        judged: &mut [(bool, Vec<Reason>)],
    ) -> Result<(), StoreError> {
        let refuse = |point: &PointId, problem: &str| {
            Err(StoreError::CannotForget { point: point.to_string(), problem: problem.to_owned() })
        };
        for point in named {
            let Some(at) = roots.iter().position(|root| root.id == *point) else {
                return Err(StoreError::NoSuchPoint(point.to_string()));
            };
            if candidates[at].mark.hold {
                return refuse(point, "it is on hold (fabkeep release)");
            }
            judged[at] = (true, vec![Reason::Named]);
        }
        for (network, places) in networks {
            let whole = |at: &&usize| candidates[**at].damaged.is_none();
            let goes = |at: &&usize| judged[**at].0;
            let last = places.iter().rev().find(|at| whole(at) && goes(at));
            if let Some(last) = last
                && !places.iter().any(|at| whole(&at) && !goes(&at))
            {
                let problem = format!("no complete recovery point of the network {network} would remain");
                return refuse(&roots[*last].id, &problem);
            }
        }
        Ok(())
    }

    /// Finds out what all points need.
    pub(crate) fn reach_all(
        &self,
        history: &History,
        identity: Option<&IdentityFile>,
    ) -> Result<(Vec<Root>, Reach), StoreError> {
        let present = list_all(&self.backend)?;
        let (bad, _) = self.bad_objects()?;
        let roots = self.roots(history);
        let reach = self.reach(&roots, &present, &bad, &HashSet::new(), identity)?;
        Ok((roots, reach))
    }
}

fn plan_of(roots: &[Root], candidates: Vec<Candidate>, judged: Vec<(bool, Vec<Reason>)>, reach: &Reach) -> ForgetPlan {
    let mut plan = ForgetPlan::default();
    let goes: Vec<bool> = judged.iter().map(|(goes, _)| *goes).collect();
    for ((root, candidate), (goes, reasons)) in roots.iter().zip(candidates).zip(judged) {
        plan.points.push(Planned {
            point: root.id.clone(),
            network: root.commit.as_ref().map(|commit| commit.summary.network.clone()).unwrap_or_default(),
            goes,
            reasons,
            mark: candidate.mark,
            damaged: candidate.damaged,
            own: Amount::default(),
        });
    }
    for object in &reach.objects {
        let mut points = object.points();
        if let (Some(only), None) = (points.next(), points.next()) {
            plan.points[only as usize].own.add(object.size);
        }
        if !object.needed_by.is_empty() && object.points().all(|point| goes[point as usize]) {
            plan.frees.add(object.size);
        }
    }
    for (planned, root) in plan.points.iter_mut().zip(roots) {
        if let Some(commit) = &root.commit {
            planned.own.add(commit.manifest.size);
            if planned.goes {
                plan.frees.add(commit.manifest.size);
            }
        }
    }
    plan
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn point(time: &str) -> Candidate {
        Candidate { time: time.parse().unwrap(), damaged: None, mark: Mark::default() }
    }

    fn staying(points: &[Candidate], rules: &KeepRules) -> Vec<usize> {
        let judged = judge(points, rules, "2026-12-31T00:00:00Z".parse().unwrap());
        judged.iter().enumerate().filter(|(_, (goes, _))| !goes).map(|(at, _)| at).collect()
    }

    fn daily(days: u32) -> KeepRules {
        KeepRules { daily: days, ..KeepRules::default() }
    }

    #[test]
    fn the_newest_point_of_each_day_in_utc_stays_and_days_without_points_do_not_count() {
        let points = [
            point("2026-03-01T23:59:59Z"),
            point("2026-03-02T00:00:00Z"),
            point("2026-03-02T23:59:59Z"),
            point("2026-03-09T01:00:00Z"),
        ];
        assert_eq!(staying(&points, &daily(2)), [2, 3]);
        assert_eq!(staying(&points, &daily(3)), [0, 2, 3]);
    }

    #[test]
    fn weeks_belong_to_iso_years() {
        // The first is of week 53 of 2026, as the second; the third is of week 1 of 2027.
        let points = [point("2026-12-30T00:00:00Z"), point("2027-01-03T00:00:00Z"), point("2027-01-04T00:00:00Z")];
        let rules = KeepRules { weekly: 5, ..KeepRules::default() };
        assert_eq!(staying(&points, &rules), [1, 2]);
    }

    #[test]
    fn a_damaged_point_never_pushes_a_good_one_out_and_goes_once_a_newer_one_is_complete() {
        let mut points =
            vec![point("2026-03-01T00:00:00Z"), point("2026-03-02T00:00:00Z"), point("2026-03-03T00:00:00Z")];
        let rules = KeepRules { last: 1, ..KeepRules::default() };
        points[2].damaged = Some("x".to_owned());
        assert_eq!(staying(&points, &rules), [1, 2], "the newest is damaged and there is no newer one");
        points.swap(1, 2);
        assert_eq!(staying(&points, &rules), [2]);
        points[1].mark.hold = true;
        assert_eq!(staying(&points, &rules), [1, 2]);
    }

    #[test]
    fn the_last_complete_point_stays_whatever_the_rules_say() {
        let mut points = vec![point("2026-03-01T00:00:00Z"), point("2026-03-02T00:00:00Z")];
        points[1].damaged = Some("x".to_owned());
        let rules = KeepRules { tags: BTreeSet::from(["never".to_owned()]), ..KeepRules::default() };
        assert_eq!(staying(&points, &rules), [0, 1]);
        points[1].damaged = None;
        assert_eq!(staying(&points, &rules), [1]);
    }

    #[test]
    fn within_counts_from_the_newest_complete_point_and_no_wrong_clock_makes_the_others_old() {
        let points = [point("2026-01-01T00:00:00Z"), point("2026-01-25T00:00:00Z"), point("2026-01-30T00:00:00Z")];
        let rules = KeepRules { within: Some("7d".parse().unwrap()), ..KeepRules::default() };
        assert_eq!(staying(&points, &rules), [1, 2], "backups that stopped long ago are not forgotten");
        let ahead = [point("2026-12-30T00:00:00Z"), point("2036-01-01T00:00:00Z")];
        assert_eq!(staying(&ahead, &rules), [0, 1]);
    }

    #[test]
    fn each_reason_is_told() {
        let mut points = vec![point("2026-01-01T00:00:00Z"), point("2026-02-01T00:00:00Z")];
        points[0].mark.tags.insert("audit".to_owned());
        let rules =
            KeepRules { last: 1, yearly: 1, tags: BTreeSet::from(["audit".to_owned()]), ..KeepRules::default() };
        let judged = judge(&points, &rules, Timestamp::MAX);
        assert_eq!(judged[0].1, [Reason::Tag { tag: "audit".to_owned() }]);
        let year = Reason::Newest { of: "year", period: "2026".to_owned() };
        assert_eq!(judged[1].1, [Reason::Last { number: 1 }, year]);
    }
}
