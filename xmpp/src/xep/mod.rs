//! Every extension, in the order in which they are asked.
//!
//! Adding one is a folder and a line in [`FEATURES`]. Stream-level extensions ([`sm`], [`csi`]) belong to the stream and the
//! session and are only listed by [`specs`].

pub mod blocking;
pub mod carbons;
pub mod csi;
pub mod data_forms;
pub(crate) mod date_time;
pub mod disco;
pub mod ping;
pub mod private_xml;
pub mod pubsub;
pub mod registration;
pub mod rsm;
pub mod sm;
pub mod version;

use crate::feature::{Feature, Spec};
use crate::im;
use crate::stream;

/// The features that answer requests. This order *is* the order of processing.
pub static FEATURES: &[&dyn Feature] = &[
    &im::session_establishment::SessionEstablishment,
    &im::roster::Roster,
    &blocking::Blocking,
    &carbons::Carbons,
    &disco::Disco,
    &ping::Ping,
    &version::SoftwareVersion,
    &private_xml::PrivateXml,
    &registration::Registration,
];

/// What the broker speaks, for disco, the README and the DOAP file: stream-level extensions first, then [`FEATURES`].
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    let streams = [&sm::SPEC, &csi::SPEC, &pubsub::SPEC].into_iter().chain(stream::SPECS);
    streams.chain(FEATURES.iter().map(|feature| feature.spec()))
}
