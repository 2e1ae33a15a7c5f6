//! Minimum-cost flow: successive shortest paths (Ahuja, Magnanti, Orlin: *Network Flows*, §9.7), with paths found by
//! Bellman and Ford's algorithm with a queue. The networks here have some thousand edges.
//!
//! Costs may not be negative. Of several cheapest flows the same one is found each time, by the order in which edges were added.

use std::collections::VecDeque;

/// What a unit of flow costs. Sums of a few thousand of the largest costs used here fit.
pub(super) type Cost = i128;

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vertex(usize);

/// A way for flow, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge(usize);

struct Half {
    to: usize,
    left: u32,
    cost: Cost,
}

/// A network. Edge `2 n + 1` is edge `2 n` backwards: what flows can be taken back.
#[derive(Default)]
pub(super) struct Flow {
    halves: Vec<Half>,
    out: Vec<Vec<usize>>,
}

impl Flow {
    pub(super) fn vertex(&mut self) -> Vertex {
        self.out.push(Vec::new());
        Vertex(self.out.len() - 1)
    }

    pub(super) fn edge(&mut self, from: Vertex, to: Vertex, capacity: u32, cost: Cost) -> Edge {
        let edge = self.halves.len();
        self.halves.push(Half {
            to: to.0,
            left: capacity,
            cost,
        });
        self.halves.push(Half {
            to: from.0,
            left: 0,
            cost: -cost,
        });
        self.out[from.0].push(edge);
        self.out[to.0].push(edge + 1);
        Edge(edge)
    }

    /// Lets as much flow as possible, as cheaply as that can be had.
    pub(super) fn run(&mut self, source: Vertex, sink: Vertex) {
        while let Some(path) = self.cheapest_path(source.0, sink.0) {
            let amount = path.iter().map(|half| self.halves[*half].left).min().unwrap_or(0);
            for half in path {
                self.halves[half].left -= amount;
                self.halves[half ^ 1].left += amount;
            }
        }
    }

    /// Whether anything flows over an edge.
    pub(super) fn is_used(&self, edge: Edge) -> bool {
        self.halves[edge.0 ^ 1].left > 0
    }

    /// The edges of a cheapest path on which more can flow, last first.
    fn cheapest_path(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut cost: Vec<Option<Cost>> = vec![None; self.out.len()];
        let mut by = vec![usize::MAX; self.out.len()];
        let mut queued = vec![false; self.out.len()];
        let mut queue = VecDeque::from([source]);
        cost[source] = Some(0);
        while let Some(vertex) = queue.pop_front() {
            queued[vertex] = false;
            let Some(here) = cost[vertex] else { continue };
            for half in self.out[vertex].iter().copied() {
                let Half { to, left, cost: step } = self.halves[half];
                if left == 0 || cost[to].is_some_and(|there| there <= here + step) {
                    continue;
                }
                (cost[to], by[to]) = (Some(here + step), half);
                if !queued[to] {
                    queued[to] = true;
                    queue.push_back(to);
                }
            }
        }
        cost[sink]?;
        let mut path = Vec::new();
        let mut vertex = sink;
        while vertex != source {
            path.push(by[vertex]);
            vertex = self.halves[by[vertex] ^ 1].to;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_of_the_greatest_flows_is_found_though_a_greedy_path_is_in_its_way() {
        let mut flow = Flow::default();
        let [source, a, b, sink] = std::array::from_fn(|_| flow.vertex());
        let edges = [
            flow.edge(source, a, 1, 1),
            flow.edge(source, b, 1, 5),
            // The cheapest path takes this one; with two units it is worth nothing.
            flow.edge(a, b, 1, 0),
            flow.edge(a, sink, 1, 6),
            flow.edge(b, sink, 1, 1),
        ];
        flow.run(source, sink);
        assert_eq!(edges.map(|edge| flow.is_used(edge)), [true, true, false, true, true]);
    }

    #[test]
    fn what_cannot_flow_does_not() {
        let mut flow = Flow::default();
        let [source, a, sink] = std::array::from_fn(|_| flow.vertex());
        let (wide, narrow) = (flow.edge(source, a, 3, 0), flow.edge(a, sink, 0, 0));
        flow.run(source, sink);
        assert!(!flow.is_used(wide) && !flow.is_used(narrow));
    }
}
