//! What cluster nodes say to each other, and what they write down: the `.proto` files under `heronry/v1` and the code
//! generated from them. No logic and no conversions live here.

/// How nodes come into a cluster: `heronry/v1/join.proto`.
pub mod join {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    tonic::include_proto!("heronry.join.v1");
}

/// What a log entry contains: `heronry/v1/log.proto`.
pub mod log {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    tonic::include_proto!("heronry.log.v1");
}

/// The map of a cluster: `heronry/v1/map.proto`.
pub mod map {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    tonic::include_proto!("heronry.map.v1");
}

/// What a replica keeps beside its rows: `heronry/v1/raft.proto`.
pub mod raft {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    tonic::include_proto!("heronry.raft.v1");
}

/// What the command line asks of a node: `heronry/v1/admin.proto`.
pub mod admin {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    #![allow(clippy::or_fun_call, clippy::semicolon_if_nothing_returned)]
    tonic::include_proto!("heronry.admin.v1");
}

/// What cluster nodes say to each other over links: `heronry/v1/peer.proto`.
pub mod peer {
    #![allow(missing_docs, clippy::all, clippy::use_self, unreachable_pub)]
    #![allow(clippy::or_fun_call, clippy::semicolon_if_nothing_returned)]
    tonic::include_proto!("heronry.peer.v1");
}
