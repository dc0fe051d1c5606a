//! `core.yaml`, `orderer.yaml` and an MSP's `config.yaml`: what of a node's configuration tells which files must be there.

use serde_norway::Value;

/// Longest configuration read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A node's configuration.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    yaml: Value,
}

/// A file that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The setting, as the file spells it out: `peer.tls.rootcert.file`.
    pub setting: String,
    /// The path as written: absolute, or relative to the configuration file.
    pub path: String,
}

/// A value by its path. Fabric reads its configuration without regard to case.
fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| {
        let named = |name: &Value| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(key));
        value.as_mapping()?.iter().find(|(name, _)| named(name)).map(|(_, value)| value)
    })
}

fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format!("it is longer than {MAX_CONFIG_BYTES} bytes"));
    }
    // The message may quote the file: only where, not what.
    crate::node_settings::read_yaml(bytes).map_err(|error| {
        error.location().map_or_else(|| "it is no YAML".to_owned(), |at| format!("line {}", at.line()))
    })
}

impl NodeConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// Where it is not YAML, never its text.
    pub fn parse(bytes: &[u8]) -> Result<NodeConfig, String> {
        parse(bytes).map(|yaml| NodeConfig { yaml })
    }

    /// Whether it has a section of this name at its top.
    pub fn has_section(&self, name: &str) -> bool {
        at(&self.yaml, &[name]).is_some_and(|value| !value.is_null())
    }

    /// The TLS files that the node reads at its start, of the endpoints where TLS is on.
    pub fn tls_files(&self) -> Vec<NamedFile> {
        let peer = &["peer", "tls"];
        let mut out = Vec::new();
        if is_true(at(&self.yaml, &["peer", "tls", "enabled"])) {
            for name in ["cert", "key", "rootcert"] {
                self.add(&[peer[0], peer[1], name, "file"], &mut out);
            }
        }
        for section in ["General", "Admin", "Operations"] {
            if is_true(at(&self.yaml, &[section, "TLS", "Enabled"])) {
                for name in ["Certificate", "PrivateKey", "RootCAs", "ClientRootCAs"] {
                    self.add(&[section, "TLS", name], &mut out);
                }
            }
        }
        if is_true(at(&self.yaml, &["General", "TLS", "Enabled"])) {
            for name in ["ClientCertificate", "ClientPrivateKey", "RootCAs"] {
                self.add(&["General", "Cluster", name], &mut out);
            }
        }
        out
    }

    fn add(&self, path: &[&str], out: &mut Vec<NamedFile>) {
        let setting = path.join(".");
        let mut named = |text: &str| {
            // A path of the environment's is not known here.
            if !text.is_empty() && !text.contains('$') {
                out.push(NamedFile { setting: setting.clone(), path: text.to_owned() });
            }
        };
        match at(&self.yaml, path) {
            Some(Value::String(text)) => named(text),
            Some(Value::Sequence(list)) => list.iter().filter_map(Value::as_str).for_each(named),
            _ => {}
        }
    }
}

/// Whether an MSP's `config.yaml` turns node units on and names that of administrators: without, `admincerts` must hold somebody.
///
/// # Errors
/// Where it is not YAML.
pub fn msp_has_administrators(bytes: &[u8]) -> Result<bool, String> {
    let yaml = parse(bytes)?;
    let unit = at(&yaml, &["NodeOUs", "AdminOUIdentifier", "OrganizationalUnitIdentifier"]).and_then(Value::as_str);
    Ok(is_true(at(&yaml, &["NodeOUs", "Enable"])) && unit.is_some_and(|unit| !unit.is_empty()))
}

/// The certificates that an MSP's `config.yaml` names, relative to the MSP's folder: each must be there.
pub fn msp_named_certificates(bytes: &[u8]) -> Vec<String> {
    let Ok(yaml) = parse(bytes) else { return Vec::new() };
    if !is_true(at(&yaml, &["NodeOUs", "Enable"])) {
        return Vec::new();
    }
    let units = ["ClientOUIdentifier", "PeerOUIdentifier", "AdminOUIdentifier", "OrdererOUIdentifier"];
    let named = units.iter().filter_map(|unit| at(&yaml, &["NodeOUs", unit, "Certificate"])?.as_str());
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
    fn the_files_of_endpoints_with_tls_are_named_and_no_others() {
        let yaml = b"General: {TLS: {Enabled: true, Certificate: ../tls/s.crt, RootCAs: [../tls/ca.crt, $X/ca2.crt]}}\nAdmin: {TLS: {Enabled: false, Certificate: no.crt}}\n";
        let config = NodeConfig::parse(yaml).unwrap();
        let files: Vec<(String, String)> =
            config.tls_files().into_iter().map(|file| (file.setting, file.path)).collect();
        assert_eq!(
            files,
            [
                ("General.TLS.Certificate".to_owned(), "../tls/s.crt".to_owned()),
                ("General.TLS.RootCAs".to_owned(), "../tls/ca.crt".to_owned())
            ]
        );
        assert!(config.has_section("general") && !config.has_section("FileLedger"));
        let peer = NodeConfig::parse(b"peer: {tls: {enabled: true, rootcert: {file: tls/ca.crt}}}").unwrap();
        assert_eq!(peer.tls_files()[0].setting, "peer.tls.rootcert.file");
        assert!(NodeConfig::parse(b"peer: [").is_err());
    }

    #[test]
    fn administrators_come_from_units_that_are_on() {
        let with = "NodeOUs:\n  Enable: true\n  AdminOUIdentifier:\n    OrganizationalUnitIdentifier: admin\n";
        assert_eq!(msp_has_administrators(with.as_bytes()), Ok(true));
        let named = format!("{with}    Certificate: cacerts/ca.pem\n");
        assert_eq!(msp_named_certificates(named.as_bytes()), ["cacerts/ca.pem"]);
        assert_eq!(msp_has_administrators(with.replace("true", "false").as_bytes()), Ok(false));
        assert_eq!(msp_has_administrators(b"NodeOUs:\n  Enable: true\n"), Ok(false));
        assert_eq!(msp_has_administrators(b""), Ok(false));
    }
}
