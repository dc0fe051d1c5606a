//! LevelDB directories of real nodes: whole, and saying the heights that the block files have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fabkeep_ledger::leveldb::{Database, block_index_height, ledger_ids, private_data_height, state_height};

#[test]
fn every_database_of_a_stopped_network_is_whole_and_at_its_height() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    for node in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
        let data = network.path().join(node).join("production/ledgersData");
        for name in ["pvtdataStore", "ledgerProvider", "stateLeveldb", "historyLeveldb", "configHistory", "bookkeeper"]
        {
            let report = Database::open(&data.join(name)).unwrap().check().unwrap();
            assert_eq!(report.torn, None, "{node} {name}");
        }
        assert_eq!(ledger_ids(&data.join("ledgerProvider")).unwrap(), ["mychannel", "settlement"]);
        for (channel, height) in [("mychannel", 27), ("settlement", 8)] {
            assert_eq!(block_index_height(&data.join("chains/index"), channel).unwrap(), Some(height));
            assert_eq!(state_height(&data.join("stateLeveldb"), channel).unwrap(), Some(height));
            assert_eq!(private_data_height(&data.join("pvtdataStore"), channel).unwrap(), Some(height));
        }
    }
    for node in ["orderer1", "orderer2", "orderer3"] {
        let index = network.path().join("OrdererOrg").join(node).join("production/index");
        assert_eq!(block_index_height(&index, "mychannel").unwrap(), Some(27));
    }
}
