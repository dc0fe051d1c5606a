//! What of a node's environment is kept with it.

use crate::ca_config::{CONFIG_VARIABLE, DataSource, DatabaseKind};
use crate::layout::NodeRole;
use crate::node_settings::Environment;

/// The settings below which nothing but names, paths and labels is found: these may be kept with a node.
const KEPT: [&[&str]; 3] = [
    &[
        "CORE_PEER_LOCALMSPID",
        "CORE_PEER_FILESYSTEMPATH",
        "CORE_PEER_MSPCONFIGPATH",
        "CORE_PEER_BCCSP_DEFAULT",
        "CORE_PEER_BCCSP_PKCS11_LABEL",
        "CORE_PEER_BCCSP_PKCS11_LIBRARY",
        "CORE_PEER_BCCSP_SW_FILEKEYSTORE_KEYSTORE",
        "CORE_PEER_TLS_ENABLED",
        "CORE_PEER_TLS_CERT_FILE",
        "CORE_PEER_TLS_KEY_FILE",
        "CORE_PEER_TLS_ROOTCERT_FILE",
        "CORE_PEER_TLS_CLIENTCERT_FILE",
        "CORE_PEER_TLS_CLIENTKEY_FILE",
        "CORE_PEER_TLS_CLIENTAUTHREQUIRED",
        "CORE_PEER_TLS_CLIENTROOTCAS_FILES",
        "CORE_OPERATIONS_TLS_ENABLED",
        "CORE_OPERATIONS_TLS_CERT_FILE",
        "CORE_OPERATIONS_TLS_KEY_FILE",
        "CORE_OPERATIONS_TLS_CLIENTROOTCAS_FILES",
        "CORE_LEDGER_STATE_STATEDATABASE",
    ],
    &[
        "ORDERER_FILELEDGER_LOCATION",
        "ORDERER_GENERAL_LOCALMSPID",
        "ORDERER_GENERAL_LOCALMSPDIR",
        "ORDERER_GENERAL_BOOTSTRAPMETHOD",
        "ORDERER_GENERAL_BOOTSTRAPFILE",
        "ORDERER_GENERAL_GENESISMETHOD",
        "ORDERER_GENERAL_GENESISFILE",
        "ORDERER_GENERAL_BCCSP_DEFAULT",
        "ORDERER_GENERAL_BCCSP_PKCS11_LABEL",
        "ORDERER_GENERAL_BCCSP_PKCS11_LIBRARY",
        "ORDERER_GENERAL_BCCSP_SW_FILEKEYSTORE_KEYSTORE",
        "ORDERER_GENERAL_TLS_ENABLED",
        "ORDERER_GENERAL_TLS_CERTIFICATE",
        "ORDERER_GENERAL_TLS_PRIVATEKEY",
        "ORDERER_GENERAL_TLS_ROOTCAS",
        "ORDERER_GENERAL_TLS_CLIENTAUTHREQUIRED",
        "ORDERER_GENERAL_TLS_CLIENTROOTCAS",
        "ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE",
        "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY",
        "ORDERER_GENERAL_CLUSTER_ROOTCAS",
        "ORDERER_GENERAL_CLUSTER_SERVERCERTIFICATE",
        "ORDERER_GENERAL_CLUSTER_SERVERPRIVATEKEY",
        "ORDERER_ADMIN_TLS_ENABLED",
        "ORDERER_ADMIN_TLS_CERTIFICATE",
        "ORDERER_ADMIN_TLS_PRIVATEKEY",
        "ORDERER_ADMIN_TLS_ROOTCAS",
        "ORDERER_ADMIN_TLS_CLIENTROOTCAS",
        "ORDERER_OPERATIONS_TLS_ENABLED",
        "ORDERER_OPERATIONS_TLS_CERTIFICATE",
        "ORDERER_OPERATIONS_TLS_PRIVATEKEY",
        "ORDERER_OPERATIONS_TLS_ROOTCAS",
        "ORDERER_OPERATIONS_TLS_CLIENTROOTCAS",
        "ORDERER_CONSENSUS_WALDIR",
        "ORDERER_CONSENSUS_SNAPDIR",
    ],
    &[
        "FABRIC_CA_SERVER_BCCSP_DEFAULT",
        "FABRIC_CA_SERVER_BCCSP_PKCS11_LABEL",
        "FABRIC_CA_SERVER_BCCSP_PKCS11_LIBRARY",
        "FABRIC_CA_SERVER_BCCSP_SW_FILEKEYSTORE_KEYSTORE",
        "FABRIC_CA_SERVER_CA_CERTFILE",
        "FABRIC_CA_SERVER_CA_KEYFILE",
        "FABRIC_CA_SERVER_CA_CHAINFILE",
        "FABRIC_CA_SERVER_TLS_ENABLED",
        "FABRIC_CA_SERVER_TLS_CERTFILE",
        "FABRIC_CA_SERVER_TLS_KEYFILE",
        "FABRIC_CA_SERVER_DB_TYPE",
        "FABRIC_CA_SERVER_DB_DATASOURCE",
        CONFIG_VARIABLE,
        "FABRIC_CA_SERVER_CACOUNT",
        "FABRIC_CA_SERVER_CAFILES",
    ],
];

/// Returns what of a node's environment is kept with it: what overrides its configuration file and says where keys, certificates and
/// databases are. A data source is kept without its password.
pub fn kept(role: NodeRole, environment: &Environment) -> Environment {
    let names = match role {
        NodeRole::Peer => KEPT[0],
        NodeRole::Orderer => KEPT[1],
        NodeRole::CertificateAuthority => KEPT[2],
        _ => &[],
    };
    let kind = DatabaseKind::named(environment.get("FABRIC_CA_SERVER_DB_TYPE").map_or("", String::as_str));
    let kept = |name: &str| {
        let value = environment.get(name).filter(|value| !value.is_empty())?;
        match name {
            "FABRIC_CA_SERVER_DB_DATASOURCE" if kind == DatabaseKind::Sqlite => {
                (!value.contains("password=") && !value.contains('@')).then(|| value.clone())
            }
            "FABRIC_CA_SERVER_DB_DATASOURCE" => Some(DataSource::parse(&kind, value).ok()?.without_password(&kind)),
            _ => Some(value.clone()),
        }
    };
    names.iter().filter_map(|name| Some(((*name).to_owned(), kept(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn no_credentials_are_kept_with_a_node() {
        let all = environment(&[
            ("FABRIC_CA_SERVER_DB_TYPE", "postgres"),
            ("FABRIC_CA_SERVER_DB_DATASOURCE", "host=db password=secret"),
            ("FABRIC_CA_SERVER_CA_KEYFILE", "/k"),
            ("FABRIC_CA_SERVER_BCCSP_PKCS11_PIN", "1234"),
        ]);
        let kept = kept(NodeRole::CertificateAuthority, &all);
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["FABRIC_CA_SERVER_CA_KEYFILE", "FABRIC_CA_SERVER_DB_DATASOURCE", "FABRIC_CA_SERVER_DB_TYPE"]
        );
        assert!(kept.values().all(|value| !value.contains("secret")), "{kept:?}");
    }
}
