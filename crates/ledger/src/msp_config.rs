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

/// Returns the certificates that it names, relative to the MSP's folder: each must be there.
pub fn named_certificates(bytes: &[u8]) -> Vec<String> {
    let Ok(yaml) = parse(bytes) else { return Vec::new() };
    if !is_true(value_at(&yaml, &["NodeOUs", "Enable"])) {
        return Vec::new();
    }
    let units = ["ClientOUIdentifier", "PeerOUIdentifier", "AdminOUIdentifier", "OrdererOUIdentifier"];
    let named = units.iter().filter_map(|unit| value_at(&yaml, &["NodeOUs", unit, "Certificate"])?.as_str());
    let mut out: Vec<String> = named.filter(|path| !path.is_empty()).map(str::to_owned).collect();
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
        assert_eq!(named_certificates(named.as_bytes()), ["cacerts/ca.pem"]);
        assert_eq!(has_administrators(with.replace("true", "false").as_bytes()), Ok(false));
        assert_eq!(has_administrators(b"NodeOUs:\n  Enable: true\n"), Ok(false));
        assert_eq!(has_administrators(b""), Ok(false));
    }
}
