//! What cluster nodes say to each other, and what they write down: the `.proto` files under `heronry/v1` and the code
//! generated from them. No logic and no conversions live here.

/// The generated code, in modules that are nested as the packages are: they refer to each other.
#[allow(
    missing_docs,
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::semicolon_if_nothing_returned
)]
#[allow(unreachable_pub)]
mod generated {
    macro_rules! package {
        ($name:ident, $package:literal) => {
            pub mod $name {
                pub mod v1 {
                    tonic::include_proto!($package);
                }
            }
        };
    }
    package!(admin, "heronry.admin.v1");
    package!(administer, "heronry.administer.v1");
    package!(group, "heronry.group.v1");
    package!(join, "heronry.join.v1");
    package!(link, "heronry.link.v1");
    package!(log, "heronry.log.v1");
    package!(map, "heronry.map.v1");
    package!(peer, "heronry.peer.v1");
    package!(raft, "heronry.raft.v1");
}

/// What the command line asks of a node: `heronry/v1/admin.proto`.
pub use generated::admin::v1 as admin;
/// What a node asks of the leader of a shard for an operator: `heronry/v1/administer.proto`.
pub use generated::administer::v1 as administer;
/// What replicas of a group say to each other: `heronry/v1/group.proto`.
pub use generated::group::v1 as group;
/// How a node comes into a cluster: `heronry/v1/join.proto`.
pub use generated::join::v1 as join;
/// What edges and shards of different cluster nodes say to each other: `heronry/v1/link.proto`.
pub use generated::link::v1 as link;
/// What a log entry contains: `heronry/v1/log.proto`.
pub use generated::log::v1 as log;
/// The map of a cluster: `heronry/v1/map.proto`.
pub use generated::map::v1 as map;
/// What cluster nodes say to each other over links: `heronry/v1/peer.proto`.
pub use generated::peer::v1 as peer;
/// What a replica keeps beside its rows: `heronry/v1/raft.proto`.
pub use generated::raft::v1 as raft;
