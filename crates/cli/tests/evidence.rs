//! Evidence that others can read: reports and attestations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::fs;

use fabkeep_fixtures::Growth;
use place::{Ended, Place, ended};
use serde_json::Value;

/// A place with the small network, whose channel settlement has gone on, and a recovery point.
fn place(blocks: &[(u64, usize)]) -> Place {
    let place = Place::new();
    let mut growth = Growth::open(&place.network(), "settlement").unwrap();
    blocks.iter().for_each(|(blocks, transactions)| growth.grow(*blocks, *transactions).unwrap());
    assert_eq!(place.backup(&[]).code, 0);
    place
}

fn attest(place: &Place, more: &[&str]) -> Ended {
    let mut arguments = vec!["attest", "--repo", "repository", "--identity", "keys/identity"];
    arguments.extend(more);
    place.run(&arguments)
}

fn verify(own: &Place, statement: &str, more: &[&str]) -> Ended {
    let mut arguments = vec!["attest", "verify", statement, "--root", "network"];
    arguments.extend(more);
    own.run(&arguments)
}

fn report(place: &Place, more: &[&str]) -> Ended {
    let mut arguments = vec!["report", "--repo", "repository", "--identity", "keys/identity"];
    arguments.extend(more);
    place.run(&arguments)
}

#[test]
fn an_attestation_of_one_organization_verified_by_anothers_nodes_finds_a_fork_of_one_block() {
    let one = place(&[(12, 2), (1, 3)]);
    let made = attest(&one, &["--file", "statement"]);
    assert_eq!(made.code, 0, "{}", made.text);
    let key = made.json["root"].as_str().unwrap();
    let statement = one.text("statement");

    let same = place(&[(12, 2), (1, 3)]);
    let agreed = verify(&same, &statement, &["--key", key]);
    assert_eq!(agreed.code, 0, "{}", agreed.text);
    // A repository in the environment is not what a comparison is about.
    let mut command = same.command(&["attest", "verify", &statement, "--root", "network", "--key", key]);
    assert_eq!(ended(command.env("FABKEEP_REPO", "absent").output().unwrap()).code, 0);
    let unknown = verify(&same, &statement, &[]);
    assert_eq!(unknown.code, 3, "{}", unknown.text);
    assert!(unknown.text.contains("nothing says whose key"), "{}", unknown.text);

    let forked = place(&[(12, 2), (1, 1)]);
    let found = verify(&forked, &statement, &["--key", key]);
    assert_eq!(found.code, 7, "{}", found.text);
    assert!(found.text.contains("forks at block 20:"), "{}", found.text);
    let text = forked.command(&["attest", "verify", &statement, "--root", "network", "--key", key]).output().unwrap();
    let text = ended(text).text;
    assert!(text.contains("FORK at block 20") && text.contains("7 of 14 chains agree"), "{text}");

    let behind = place(&[(12, 2)]);
    let lags = verify(&behind, &statement, &["--key", key]);
    assert_eq!(lags.code, 3, "{}", lags.text);
    assert!(lags.text.contains("it is 1 block behind the attestation"), "{}", lags.text);
}

#[test]
fn an_attestation_has_nothing_private_and_cannot_be_changed() {
    let place = place(&[(3, 2)]);
    let printed = place.command(&["attest", "--repo", "repository", "--identity", "keys/identity"]).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let text = String::from_utf8(printed.stdout).unwrap();
    fs::write(place.path("statement"), &text).unwrap();
    let folder = place.folder.path().display().to_string();
    for private in [
        "peer0",
        "peer1",
        "orderer1",
        "OrdererOrg",
        "localhost",
        "127.0.0.1",
        "keystore",
        "_sk",
        "PRIVATE KEY",
        "CERTIFICATE-----",
        "production",
        "remedy",
        &folder,
    ] {
        assert!(!text.contains(private), "{private} is in: {text}");
    }
    for stated in
        ["mychannel", "settlement", "Org1MSP", "Org2MSP", "header_hashes", "commit_hashes", "verdict", "captured_by"]
    {
        assert!(text.contains(stated), "{stated} is not in: {text}");
    }
    let (head, payload) = text.trim_end().split_once('\n').unwrap();
    let (head, payload): (Value, Value) = (serde_json::from_str(head).unwrap(), serde_json::from_str(payload).unwrap());
    assert_eq!((&head["kind"], &head["signer"]), (&Value::from("attestation"), &payload["root"]));
    assert_eq!(payload["channels"][0]["configuration"]["block"], 16);

    let key = payload["root"].as_str().unwrap();
    assert_eq!(verify(&place, "statement", &["--key", key]).code, 0);
    let piped = place.command(&["attest", "verify", "-", "--root", "network", "--key", key]);
    let piped = { piped }.stdin(fs::File::open(place.path("statement")).unwrap()).output().unwrap();
    assert!(piped.status.success());
    let other = verify(&place, "statement", &["--key", &"ab".repeat(32)]);
    assert_eq!(other.code, 5, "{}", other.text);
    assert!(other.text.contains("not by the expected key"), "{}", other.text);
    fs::write(place.path("changed"), text.replacen("\"height\":27", "\"height\":28", 1)).unwrap();
    let changed = verify(&place, "changed", &["--key", key]);
    assert_eq!(changed.code, 5, "{}", changed.text);
    assert!(changed.text.contains("signature is wrong"), "{}", changed.text);

    assert_eq!(attest(&place, &["--file", "statement"]).code, 4);
    let one = attest(&place, &["--channel", "mychannel", "--file", "one"]);
    assert_eq!(one.code, 0, "{}", one.text);
    assert!(!fs::read_to_string(place.path("one")).unwrap().contains("settlement"));
    let absent = attest(&place, &["--channel", "absent"]);
    assert_eq!(absent.code, 2, "{}", absent.text);
    assert!(absent.text.contains("--channel absent"), "{}", absent.text);
}

#[test]
fn a_report_is_one_page_that_shows_what_was_proven_and_what_was_not() {
    let place = place(&[(5, 2)]);
    let made = report(&place, &["--html", "report.html"]);
    assert_eq!(made.code, 0, "{}", made.text);
    let page = fs::read_to_string(place.path("report.html")).unwrap();
    for shown in [
        "RPO",
        "RTO",
        "not measured",
        "Not proven",
        "Proven",
        "no drill of this point is recorded",
        "Organizations and nodes",
        "Org1/peer0",
        "Heights",
        "settlement: 13 blocks",
        "read chains",
        "Sizes",
        "block files",
        "Certificates",
        "Findings",
        "Commands",
        "<svg",
        "fabkeep restore",
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    let first = |text: &str| page.find(text).unwrap();
    assert!(first("Not proven") < first("Organizations and nodes"));
    // The page is replaced by a newer one, another file is not.
    assert_eq!(report(&place, &["--html", "report.html"]).code, 0);
    fs::write(place.path("notes.html"), "my notes").unwrap();
    assert_eq!(report(&place, &["--html", "notes.html"]).code, 4);
    assert_eq!(fs::read_to_string(place.path("notes.html")).unwrap(), "my notes");
    let text = place.command(&["report", "--repo", "repository", "--identity", "keys/identity"]).output().unwrap();
    let text = ended(text).text;
    assert!(text.contains("RTO: not measured") && text.contains("not proven: That the nodes start"), "{text}");
}

#[test]
fn names_from_a_network_are_text_in_a_report() {
    let place = Place::new();
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    let inventory = fs::read_to_string(place.path("fabkeep.toml")).unwrap();
    let name = inventory.lines().find(|line| line.starts_with("network =") || line.starts_with("name =")).unwrap();
    let named =
        inventory.replacen(name, &format!("{} \"<script>alert(1)</script>\"", &name[..=name.find('=').unwrap()]), 1);
    let named = named.replace("\"Org1\"", "\"<img src=x onerror=alert(2)>\"");
    assert_ne!(named, inventory);
    fs::write(place.path("fabkeep.toml"), named).unwrap();
    let made = place.run(&["backup", "--repo", "repository", "--writer", "keys/writer"]);
    assert_eq!(made.code, 0, "{}", made.text);
    assert_eq!(report(&place, &["--html", "report.html"]).code, 0);
    let page = fs::read_to_string(place.path("report.html")).unwrap();
    assert!(page.contains("alert(1)") && page.contains("onerror=alert(2)"));
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    // A command that is pasted does not act on a name either.
    assert!(page.contains("--node &#39;&#60;img") || page.contains("--node &#x27;&lt;img"), "{page}");
}

#[test]
fn a_report_for_programs_has_the_published_form() {
    let place = place(&[(5, 2)]);
    let made = report(&place, &[]);
    assert_eq!(made.code, 0, "{}", made.text);
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/report.schema.json");
    let schema = serde_json::to_value(schemars::schema_for!(fabkeep_engine::Report)).unwrap();
    let written = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    let new = format!("{}/report.schema.json", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&new, &written).unwrap();
    let is_published = fs::read_to_string(published).is_ok_and(|published| published == written);
    assert!(is_published, "docs/report.schema.json should be as {new}");

    let mut wrong = Vec::new();
    check(&schema, &schema, &made.json, "report", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(made.json["version"], 1);
    assert_eq!(made.json["timelines"][0]["of"], "capture");
    assert!(!made.json["timelines"][0]["stages"].as_array().unwrap().is_empty());
    let organizations = made.json["organizations"].as_array().unwrap().iter();
    let organizations: Vec<&str> = organizations.map(|organization| organization["name"].as_str().unwrap()).collect();
    assert_eq!(organizations, ["OrdererOrg", "Org1", "Org2", "network"]);
    // The check finds what is not as published.
    let mut other = made.json.clone();
    other["rpo"]["seconds"] = "soon".into();
    other["channels"][0].as_object_mut().unwrap().remove("height");
    other["unknown"] = 1.into();
    check(&schema, &schema, &other, "report", &mut wrong);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    for place in ["report.rpo.seconds: ", "report.channels[0]: \"height\"", "report: unknown"] {
        assert!(wrong.iter().any(|problem| problem.starts_with(place)), "{place}: {wrong:?}");
    }
}

/// Compares a document with a schema: types, fields that are required or not known, words.
fn check(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        return check(root, root.pointer(name.trim_start_matches('#')).unwrap(), value, at, wrong);
    }
    let ways = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    if let Some(ways) = ways {
        let fits = |way: &Value| {
            let mut problems = Vec::new();
            check(root, way, value, at, &mut problems);
            problems.is_empty()
        };
        if !ways.iter().any(fits) {
            wrong.push(format!("{at}: {value} is none of {ways:?}"));
        }
        return;
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let fits = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is),
        Value::Null => true,
        kind => is(kind),
    };
    let words = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !fits || !words || schema.get("const").is_some_and(|only| only != value) {
        wrong.push(format!("{at}: {value} is not {schema}"));
        return;
    }
    if let Some(values) = value.as_array() {
        values
            .iter()
            .enumerate()
            .for_each(|(n, value)| check(root, &schema["items"], value, &format!("{at}[{n}]"), wrong));
    }
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            wrong.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in fields {
        match known.get(name) {
            Some(schema) => check(root, schema, value, &format!("{at}.{name}"), wrong),
            None => wrong.push(format!("{at}: {name} is not in the schema")),
        }
    }
}
