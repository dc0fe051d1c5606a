//! Remedies as text: what fabkeep can be asked for is named by its options.

use fabkeep_engine::Request;
use fabkeep_network::{NodeId, Quiet, Remedy, Rule};
use serde::Serialize;
use serde_json::Value;

/// Returns a remedy as text.
pub fn text(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Text(text) => text.clone(),
        Remedy::Any { of } => joined(of, "or"),
        Remedy::All { of } => joined(of, "and"),
        Remedy::ExcludeNode => "leave the node out (--exclude)".to_owned(),
        Remedy::ExcludeNodes => "leave these nodes out (--exclude)".to_owned(),
        Remedy::KeepTransactionsAway { by } => {
            let ways: Vec<&str> = by.iter().copied().map(way).collect();
            format!("keep transactions away: {}", ways.join(", or "))
        }
        Remedy::NameClients => "name the workloads that send transactions (--client NAMESPACE/NAME)".to_owned(),
        Remedy::LongerWindow => "allow more time (--window-deadline)".to_owned(),
        Remedy::ExtendWindow => "allow the window to be extended (--on-growth extend)".to_owned(),
        Remedy::CaptureInWindow => "capture in a window (--quiesce …)".to_owned(),
        Remedy::CaptureAtCut => "make a backup that needs no window (--consistency cut)".to_owned(),
        Remedy::CutOrWait => "let a window be the fallback (--consistency cut --quiesce wait)".to_owned(),
        Remedy::MoreAttempts => "give it more attempts (--live-attempts)".to_owned(),
        Remedy::IncludeDerived => "capture derived data too (--include-derived)".to_owned(),
        Remedy::WithoutDerived => {
            "run the backup without --include-derived: a peer that is restored without this data rebuilds it".to_owned()
        }
        Remedy::ReadAgain => "run the backup with --reread, which reads everything again".to_owned(),
        Remedy::Intended => {
            "if that is intended, run the backup once with --reread, which judges without the earlier point".to_owned()
        }
        Remedy::NameNetwork => {
            "if two networks are in this repository, give each a name of its own (`name` in the inventory, --network-name on Kubernetes)".to_owned()
        }
        Remedy::NameNamespaces => "name all namespaces of the network (--namespace)".to_owned(),
        Remedy::NameCluster => {
            "name a kubeconfig (--kubeconfig FILE, or KUBECONFIG) and a context of it (--context NAME), with which `kubectl get nodes` works".to_owned()
        }
        Remedy::NameHelperImage => {
            "name an image of helper pods that this cluster can pull (--helper-image IMAGE)".to_owned()
        }
        Remedy::RemoveHelpers => "remove helper pods that are left (`fabkeep clean`)".to_owned(),
        Remedy::RemoveDrills => "remove what a drill has left (`fabkeep clean`)".to_owned(),
        Remedy::OtherScratchNames => "choose other names for the scratch namespaces (--prefix)".to_owned(),
        Remedy::DrillUnfenced => {
            "accept that nothing keeps the restored nodes from reaching others (--allow-unfenced)".to_owned()
        }
        Remedy::WithoutSnapshots => "read the volumes without snapshots (--volumes stream)".to_owned(),
        Remedy::CopyDatabases => {
            "let the files of the database be copied instead of a dump (--copy-databases)".to_owned()
        }
        Remedy::WriteInventory => {
            "write an inventory (`fabkeep discover --root DIR`), correct that, and use it instead of --root".to_owned()
        }
        Remedy::NameComposeFiles => {
            "run fabkeep discover with --compose for each compose file that is started together, in their order"
                .to_owned()
        }
        Remedy::ListNodes => "see the nodes in the inventory, or by `fabkeep discover` (Organization/node)".to_owned(),
        Remedy::ListCaptured => "see the nodes of the recovery point by `fabkeep show` (Organization/node)".to_owned(),
        Remedy::CompareNodes => "compare `fabkeep discover` with `fabkeep show`".to_owned(),
        Remedy::ListNames => "see who uses which name (`fabkeep show --names`)".to_owned(),
        Remedy::AttestBlocks { blocks } => {
            format!("ask the other organization for the hashes between (`fabkeep attest --hashes {blocks}`), and verify that")
        }
        Remedy::SeeStatus => "see `fabkeep status`".to_owned(),
        Remedy::WriteGenesisBlocks => {
            "write the genesis blocks of its channels (`fabkeep show --genesis DIR`) for `osnadmin channel join --channelID CHANNEL --config-block DIR/CHANNEL.block -o HOST:ADMINPORT …`".to_owned()
        }
        Remedy::UndoWindow => {
            "undo the window by `fabkeep resume`, with the same --kubernetes or --inventory options".to_owned()
        }
        Remedy::UndoUnsigned => {
            "let `fabkeep resume --unsigned` undo it, which shows each step and asks before it".to_owned()
        }
        Remedy::UndoHook => {
            "run the command that lets transactions continue: `fabkeep resume --hook-after COMMAND`".to_owned()
        }
        Remedy::ExpectPoint => "use `fabkeep verify --expect-at-least POINT`".to_owned(),
        Remedy::NameRepository => "name the repository (--repo, or FABKEEP_REPO)".to_owned(),
        Remedy::NameWriterKey => {
            "name the writer key that `fabkeep init` wrote (--writer FILE or FABKEEP_WRITER); `fabkeep add-writer` creates another one".to_owned()
        }
        Remedy::NameIdentity => {
            "name the identity file that `fabkeep init` wrote: --identity FILE (or FABKEEP_IDENTITY)".to_owned()
        }
        Remedy::NameWorkFolder => "name another folder for temporary copies (--work-dir DIR)".to_owned(),
        Remedy::TryHelperPods => "run `fabkeep doctor` without --no-pods".to_owned(),
        Remedy::ContinueRestore => "run the same `fabkeep restore` again: it continues".to_owned(),
        Remedy::LeaveNodeOut => "leave the node out (--node names the others)".to_owned(),
        Remedy::ChooseNodes => "choose nodes (--node)".to_owned(),
        Remedy::RestoreNodes { nodes, replace } => {
            let (these, replace) =
                (if nodes.len() == 1 { "this node" } else { "these nodes" }, if *replace { " --replace" } else { "" });
            format!("restore {these} (--node {}{replace})", names(nodes))
        }
        Remedy::RestoreOrderersTogether => {
            "restore all orderers of the channel together (without --node, --missing and --raft-state captured)"
                .to_owned()
        }
        Remedy::CaKeepAsked => "no action is needed: --ca-keep requests this".to_owned(),
        Remedy::RestoreElsewhere => "restore into another folder (--to DIR)".to_owned(),
        Remedy::RestoreByInventory => "restore by an inventory (--inventory FILE)".to_owned(),
        Remedy::OnlyMissing => "restore only what is missing (--missing)".to_owned(),
        Remedy::SetAside => "let the existing data be set aside (--replace)".to_owned(),
        Remedy::ReplaceObject => {
            "replace it with that of the recovery point (--replace; a copy of this one is kept)".to_owned()
        }
        Remedy::RestoreLost => {
            "name the lost ones (--node …, without --missing): then all of them are brought to the highest of them".to_owned()
        }
        Remedy::CapturedRaftState => "restore the captured logs instead (--raft-state captured)".to_owned(),
        Remedy::ReplicateFewer => "name fewer orderers with --replicate".to_owned(),
        Remedy::ChooseHeight { channel, height } => {
            format!("choose height {height} or a later one (--at-height {channel}={height})")
        }
        Remedy::GiveHeight { channel } => format!("give its height (--at-height {channel}=HEIGHT)"),
        Remedy::Replicate { node } => {
            let (it, node) = node.as_ref().map_or(("them", "NODE".to_owned()), |node| ("it", node.to_string()));
            format!("let {it} come back empty and fetch everything from the others (--replicate {node})")
        }
        Remedy::RestartOthers => {
            "have every other orderer restarted before restored ones are started (--restart-others)".to_owned()
        }
        Remedy::WithoutRestartOthers => format!("restore without --restart-others (--override {})", Rule::OrderersLevel),
        Remedy::Override { rule, accept } => format!("accept {accept} (--override {rule})"),
        Remedy::WithoutCaKeep { tls } => {
            let tls = if *tls { " tls" } else { "" };
            format!("restore what the recovery point has of it (without --ca-keep{tls})")
        }
        Remedy::KeepCaTlsOnly => "do not keep it (--ca-keep tls)".to_owned(),
        Remedy::KeepCaConfigToo => "keep the configuration too (--ca-keep tls,config)".to_owned(),
        Remedy::AssumeStopped { node } => format!("declare it stopped (--assume-stopped {node})"),
        Remedy::StopByCommand => "let fabkeep stop it by its stop command (--stop)".to_owned(),
        Remedy::CreateWorkloads => "let fabkeep create it (without --workloads existing)".to_owned(),
        Remedy::OtherStorageClass { from, to } => {
            let to = to.as_deref().unwrap_or("CLASS");
            let mapping = if from.is_empty() { format!("'\"\"={to}'") } else { format!("{from}={to}") };
            format!("let the claims have another class (--storage-class {mapping})")
        }
        Remedy::OtherRegistry => "restore with another registry (--registry OLD=NEW)".to_owned(),
        Remedy::SameCommandWithStart => {
            "run the same command again, without --no-start: it resumes this last".to_owned()
        }
        Remedy::OfLaterVersion { name } => {
            format!("see what the version of fabkeep that wrote this says (it knows the remedy {name:?})")
        }
    }
}

fn way(quiet: Quiet) -> &'static str {
    match quiet {
        Quiet::Scale => "scale their clients down (--quiesce scale --client NAMESPACE/NAME)",
        Quiet::Hook => "use commands of your own (--quiesce hook --hook-before COMMAND --hook-after COMMAND)",
        Quiet::Fence => "isolate the nodes by NetworkPolicies (--quiesce fence)",
        Quiet::Stop => "stop the nodes (--quiesce stop)",
    }
}

/// Returns a part of a request, as the command line has it.
pub fn request(request: &Request) -> String {
    match request {
        Request::ExcludeNode(node) => format!("--exclude {node}"),
        Request::RestoreNode(node) => format!("--node {node}"),
        Request::LedgerFrom(from) => format!("--ledger-from {}={}", from.node, from.donor),
        Request::Replicate(node) => format!("--replicate {node}"),
        Request::Height { channel, height: Some(height) } => format!("--at-height {channel}={height}"),
        Request::Height { channel, height: None } => format!("--at-height {channel}"),
        Request::Before => "--before".to_owned(),
        Request::MapNamespace { from, to } => format!("--map-namespace {from}={}", to.as_deref().unwrap_or("…")),
        Request::AttestChannel(channel) => format!("--channel {channel}"),
        Request::AttestBlocks(range) => format!("--hashes {range}"),
        Request::RestartOthers => "--restart-others".to_owned(),
        Request::AssumeStopped(node) => format!("--assume-stopped {node}"),
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" --node ")
}

/// Parts of a sentence; where one has commas of its own, semicolons stand between them.
fn joined(parts: &[Remedy], word: &str) -> String {
    let texts: Vec<String> = parts.iter().map(text).collect();
    let is_long = |text: &String| text.contains([',', ';']) || text.contains(&format!(" {word} "));
    let Some((last, first)) = texts.split_last() else { return String::new() };
    match first {
        [] => last.clone(),
        _ if texts.iter().any(is_long) => format!("{}; {word} {last}", first.join("; ")),
        [one] => format!("{one}, {word} {last}"),
        _ => format!("{}, {word} {last}", first.join(", ")),
    }
}

/// Returns a document for programs: each `remedy` in it is text, and stands as data beside it, in `remedy_data`.
pub fn document(value: &impl Serialize) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(value)?;
    spell_out(&mut value);
    Ok(value)
}

fn spell_out(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(spell_out),
        Value::Object(fields) => {
            let data = fields.get("remedy").cloned();
            let known = data.clone().and_then(|data| serde_json::from_value::<Remedy>(data).ok());
            if let (Some(data), Some(remedy)) = (data, known) {
                fields.insert("remedy".to_owned(), text(&remedy).into());
                fields.insert("remedy_data".to_owned(), data);
                return;
            }
            fields.values_mut().for_each(spell_out);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fabkeep_network::{Finding, OrLeaveOut};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_asked_for_is_named_by_its_options() {
        assert_eq!(
            text(&Remedy::from("stop it").or(Remedy::RestoreElsewhere)),
            "stop it, or restore into another folder (--to DIR)"
        );
        assert_eq!(
            text(&OrLeaveOut("restore the file, or correct the configuration").into()),
            "restore the file, or correct the configuration; or leave the node out (--exclude)"
        );
        assert_eq!(
            text(&Remedy::OnlyMissing.or(Remedy::ChooseNodes).or(Remedy::SetAside)),
            "restore only what is missing (--missing), choose nodes (--node), or let the existing data be set aside (--replace)"
        );
        let node = |name: &str| NodeId { organization: "Org1".to_owned(), node: name.to_owned() };
        let nodes = vec![node("peer0"), node("peer1")];
        let both = Remedy::RestoreNodes { nodes, replace: false };
        assert_eq!(text(&both), "restore these nodes (--node Org1/peer0 --node Org1/peer1)");
        let by_hand = Remedy::from("restart it by hand").and(Remedy::WithoutRestartOthers);
        assert_eq!(text(&by_hand), "restart it by hand, and restore without --restart-others (--override O2)");
    }

    #[test]
    fn programs_get_text_and_recovery_points_keep_data() {
        let finding =
            Finding::note(Rule::LiveCopy, "Org1/peer0", "it runs", Remedy::from("stop it").or(Remedy::StopByCommand));
        let stored = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&stored).unwrap(), finding);
        let shown = document(&json!({"plan": {"findings": [finding]}})).unwrap();
        let expected = "stop it, or let fabkeep stop it by its stop command (--stop)";
        assert_eq!(shown.pointer("/plan/findings/0/remedy"), Some(&json!(expected)));
        let data = json!({"do": "any", "of": ["stop it", {"do": "stop-by-command"}]});
        assert_eq!(shown.pointer("/plan/findings/0/remedy_data"), Some(&data));
        // Recovery points of an earlier version have text.
        let earlier = r#"{"rule":"P6","severity":"note","subject":"s","what":"w","remedy":"stop it (--stop)"}"#;
        let remedy = serde_json::from_str::<Finding>(earlier).unwrap().remedy;
        assert_eq!(remedy, Remedy::from("stop it (--stop)"));
        assert_eq!(text(&remedy), "stop it (--stop)");
        // Those of a later version may have what this one does not know.
        let later =
            earlier.replace(r#""stop it (--stop)""#, r#"{"do":"any","of":["stop it",{"do":"ask-it","how":1}]}"#);
        let remedy = serde_json::from_str::<Finding>(&later).unwrap().remedy;
        assert_eq!(remedy, Remedy::from("stop it").or(Remedy::OfLaterVersion { name: "ask-it".to_owned() }));
    }
}
