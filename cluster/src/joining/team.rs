//! Who founds a cluster together.

use std::collections::{BTreeMap, BTreeSet};

use heronry_storage::NodeId;

use super::About;

/// Those of `known` (`me` included) that found a cluster together, as `me` sees it: who stands behind its seeds, who stands
/// behind theirs, and of the others the lowest ids, until there are `count`. `me` need not be one of them.
///
/// `Err`: not yet, and why.
pub(super) fn team(me: NodeId, count: usize, known: &BTreeMap<NodeId, About>) -> Result<BTreeSet<NodeId>, String> {
    let fits: BTreeMap<_, _> = known
        .iter()
        .filter(|(_, about)| about.is_empty && about.bootstrap.map(usize::from) == Some(count))
        .collect();
    let mut team = BTreeSet::new();
    for (address, behind) in known.get(&me).map(|about| &about.seeds).into_iter().flatten() {
        let behind = behind.ok_or_else(|| format!("nobody has answered at {address}"))?;
        add(&mut team, behind, &fits)?;
    }
    if team.len() > count {
        return Err(format!("bootstrap is {count}, but the seeds are {} nodes", team.len()));
    }
    for node in fits.keys() {
        let mut larger = team.clone();
        if team.len() < count && add(&mut larger, **node, &fits).is_ok() && larger.len() <= count {
            team = larger;
        }
    }
    match team.len() == count {
        true => Ok(team),
        false => Err(format!("{} of {count} nodes have met", team.len())),
    }
}

/// Adds a node, who stands behind its seeds, and so on.
fn add(team: &mut BTreeSet<NodeId>, node: NodeId, known: &BTreeMap<&NodeId, &About>) -> Result<(), String> {
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        let Some(about) = known.get(&node) else {
            return Err(format!(
                "node {node} has not yet said that it has an empty disk and the same bootstrap"
            ));
        };
        if !team.insert(node) {
            continue;
        }
        for (address, behind) in &about.seeds {
            open.push(behind.ok_or_else(|| format!("nobody has answered node {node} at its seed {address}"))?);
        }
    }
    Ok(())
}
