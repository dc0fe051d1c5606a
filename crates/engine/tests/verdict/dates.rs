//! Dates of the certificates inside a channel's configuration (P10).

use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;
use fabkeep_network::check_set;

#[test]
fn certificates_of_the_channel_configuration_that_ended_are_named_with_owner_and_date() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let configs: Vec<_> = captured.point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    // No node is looked at: what is found is found in the configuration.
    let at = |now: i64| check_set(&[], &configs, false, now);
    assert_eq!(at(captured.point.created.parse::<jiff::Timestamp>().unwrap().as_second()), []);
    let ends = |owner: &str, usage: &str| {
        let known = configs[0].certificates.iter().find(|known| known.owner == owner && known.usage == usage);
        known.unwrap_or_else(|| panic!("{owner} {usage}: {:#?}", configs[0].certificates)).certificate.not_after
    };
    let consenter = &configs[0].consenters[0];
    let consenter = format!("consenter {}:{}", consenter.host, consenter.port);
    for (owner, usage) in [
        ("organization Org1MSP", "root certificate"),
        ("organization Org2MSP", "TLS root certificate"),
        ("organization OrdererMSP", "root certificate"),
        ("organization OrdererMSP", "TLS root certificate"),
        (consenter.as_str(), "server TLS certificate"),
        (consenter.as_str(), "client TLS certificate"),
    ] {
        let end = ends(owner, usage);
        let date = jiff::Timestamp::from_second(end).unwrap().strftime("%Y-%m-%d").to_string();
        let named = |now: i64, verb: &str| {
            at(now).iter().any(|finding| {
                finding.rule.code() == "P10"
                    && finding.subject.starts_with("mychannel")
                    && finding.what.starts_with(owner)
                    && finding.what.contains(usage)
                    && finding.what.contains(verb)
                    && finding.what.contains(&date)
            })
        };
        assert!(named(end + 10 * 86_400, "expired on"), "{owner} {usage}: {:#?}", at(end + 10 * 86_400));
        assert!(named(end - 10 * 86_400, "expires on"), "{owner} {usage}");
        assert!(!named(end - 40 * 86_400, "expires on"), "{owner} {usage}");
    }
}
