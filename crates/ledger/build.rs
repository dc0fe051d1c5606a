//! Compiles the vendored Fabric protobufs (no `protoc` needed).

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "protos";
    println!("cargo::rerun-if-changed={root}");
    let files = [
        "common/common.proto",
        "common/configtx.proto",
        "common/configuration.proto",
        "common/policies.proto",
        "msp/identities.proto",
        "msp/msp_config.proto",
        "msp/msp_principal.proto",
        "orderer/configuration.proto",
        "orderer/etcdraft/configuration.proto",
        "orderer/etcdraft/metadata.proto",
        "orderer/smartbft/configuration.proto",
        "peer/configuration.proto",
        "raft/raft.proto",
    ];
    let set = protox::compile(files.map(|file| format!("{root}/{file}")), [root])?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}
