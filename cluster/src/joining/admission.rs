//! What a member answers to a process that wants to be let in.

use heronry_storage::NodeId;

use super::{Answer, Ask};
use crate::map::{ClusterMap, Command};

/// Who leads the metadata group, as far as the asked member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// The asked member.
    Here,
    /// Another one.
    There(NodeId),
    /// Nobody, as far as it knows.
    Nowhere,
}

/// What the asked member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It says this.
    Answer(Answer),
    /// It proposes this to the metadata group, which it leads, and when that is committed answers [`Answer::Admitted`] with the
    /// map that has it. If that fails: [`Answer::NotNow`].
    Propose(Command),
    /// It passes the question on to that node, and its answer back. If that fails: [`Answer::NotNow`].
    Forward(NodeId),
}

/// What a member with this map does with a question.
///
/// Any member may refuse: what an older map has against a node, a newer one has as well, or will not have much longer, and the
/// node asks again. Only the leader of the metadata group admits. Asked by one that is a member already, any member says so.
pub fn admit(map: &ClusterMap, cluster_name: &str, leads: Leads, ask: &Ask) -> Admission {
    let about = &ask.about;
    let node = about.node.node;
    if about.cluster_name != cluster_name {
        return refused(format!(
            "this is a node of cluster {cluster_name:?}, and node {node} wants to join {:?}",
            about.cluster_name
        ));
    }
    if !about.is_empty {
        return refused(format!(
            "node {node} belongs to no cluster but holds data, which would be lost; give it an empty data directory"
        ));
    }
    let command = Command::Admit(about.node.clone());
    match command.evaluate(map) {
        Err(error) => refused(error.to_string()),
        Ok(writes) if writes.is_empty() => Admission::Answer(Answer::Admitted(Box::new(map.clone()))),
        Ok(_) => match leads {
            Leads::Here => Admission::Propose(command),
            Leads::There(leader) => Admission::Forward(leader),
            Leads::Nowhere => Admission::Answer(Answer::NotNow(format!(
                "cluster {cluster_name:?} cannot admit anybody at present: nobody leads its metadata group"
            ))),
        },
    }
}

fn refused(sentence: String) -> Admission {
    Admission::Answer(Answer::Refused(sentence))
}
