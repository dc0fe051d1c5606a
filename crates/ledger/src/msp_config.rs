//! An MSP's `config.yaml`: the settings that say which certificates must exist.

use serde_norway::Value;

use crate::node_settings::{is_true, value_at};
use crate::yaml::parse;

/// Returns whether it turns node units on and names that of administrators: without, `admincerts` must hold somebody.
///
/// # Errors
/// Where it is not YAML.
pub fn has_administrators(bytes: &[u8]) -> Result<bool, String> {
    let yaml = parse(bytes)?;
    let unit = value_at(&yaml, &["NodeOUs", "AdminOUIdentifier", "OrganizationalUnitIdentifier"]);
    let named = unit.and_then(Value::as_str).is_some_and(|unit| !unit.is_empty());
    Ok(is_true(value_at(&yaml, &["NodeOUs", "Enable"])) && named)
}

/// A certificate that an MSP's configuration names for a unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitCertificate {
    /// Its path, relative to the MSP's folder.
    pub path: String,
    /// Whether it is named under `NodeOUs`, where a node starts without it, and not under `OrganizationalUnitIdentifiers`.
    pub of_nodes: bool,
}

/// Returns the certificates that it names: each must be there, and be one of the MSP's CA certificates.
pub fn named_certificates(bytes: &[u8]) -> Vec<UnitCertificate> {
    let Ok(yaml) = parse(bytes) else { return Vec::new() };
    let units = ["ClientOUIdentifier", "PeerOUIdentifier", "AdminOUIdentifier", "OrdererOUIdentifier"];
    let are_on = is_true(value_at(&yaml, &["NodeOUs", "Enable"]));
    let of_nodes = units.iter().filter(|_| are_on).filter_map(|unit| value_at(&yaml, &["NodeOUs", unit]));
    let certificate = |unit: &Value| {
        let path = value_at(unit, &["Certificate"])?.as_str()?;
        Some(path.trim_start_matches("./").to_owned()).filter(|path| !path.is_empty())
    };
    let listed = value_at(&yaml, &["OrganizationalUnitIdentifiers"]).and_then(Value::as_sequence);
    let mut out: Vec<UnitCertificate> = of_nodes
        .filter_map(certificate)
        .map(|path| UnitCertificate { path, of_nodes: true })
        .chain(
            listed.into_iter().flatten().filter_map(certificate).map(|path| UnitCertificate { path, of_nodes: false }),
        )
        .collect();
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn administrators_come_from_units_that_are_on() {
        let with = "NodeOUs:\n  Enable: true\n  AdminOUIdentifier:\n    OrganizationalUnitIdentifier: admin\n";
        assert_eq!(has_administrators(with.as_bytes()), Ok(true));
        let named = format!("{with}    Certificate: cacerts/ca.pem\n");
        let of_nodes = UnitCertificate { path: "cacerts/ca.pem".to_owned(), of_nodes: true };
        assert_eq!(named_certificates(named.as_bytes()), [of_nodes]);
        let listed = named.replace("true", "false")
            + "OrganizationalUnitIdentifiers:\n  - {Certificate: ./cacerts/x.pem, OrganizationalUnitIdentifier: x}\n";
        let alone = UnitCertificate { path: "cacerts/x.pem".to_owned(), of_nodes: false };
        assert_eq!(named_certificates(listed.as_bytes()), [alone]);
        assert_eq!(has_administrators(with.replace("true", "false").as_bytes()), Ok(false));
        assert_eq!(has_administrators(b"NodeOUs:\n  Enable: true\n"), Ok(false));
        assert_eq!(has_administrators(b""), Ok(false));
    }
}
