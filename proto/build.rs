//! Generates Rust from `heronry/v1/*.proto`. protox is a compiler in Rust: no `protoc` needs to be installed.

use std::error::Error;

const FILES: &[&str] = &[
    "heronry/v1/administer.proto",
    "heronry/v1/join.proto",
    "heronry/v1/link.proto",
    "heronry/v1/log.proto",
    "heronry/v1/map.proto",
    "heronry/v1/raft.proto",
    "heronry/v1/group.proto",
    "heronry/v1/admin.proto",
    "heronry/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let generated = tonic_prost_build::configure().bytes(".").btree_map(".");
    generated.compile_fds(descriptors)?;
    Ok(())
}
