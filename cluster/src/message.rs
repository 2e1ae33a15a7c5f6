//! Requests between nodes, as they are sent.

use bytes::Bytes;
use heronry_proto::group as proto;
use prost::Message;

pub(crate) use proto::request::What as Request;

/// A request as it is sent.
pub(crate) fn encode(request: Request) -> Bytes {
    let request = proto::Request { what: Some(request) };
    request.encode_to_vec().into()
}

/// Reads what [`encode`] wrote; `None`: it is none of ours, or of a later version.
pub(crate) fn decode(bytes: Bytes) -> Option<Request> {
    proto::Request::decode(bytes).ok()?.what
}
