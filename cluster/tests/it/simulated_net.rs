//! Links on a network that turmoil simulates, in virtual time: partitions, repairs, restarts.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use heronry_cluster::{NodeId, transport::Net};
use turmoil::net::{TcpListener, TcpStream};

use crate::transport::{Heard, Process, Start, peer};

/// A port of every host: hosts have addresses of their own.
const PORT: u16 = 7000;

/// turmoil's TCP and its clock.
#[derive(Clone)]
struct Simulated;

impl Net for Simulated {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }

    fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn wall_clock(&self) -> SystemTime {
        UNIX_EPOCH + turmoil::since_epoch().unwrap_or_default()
    }
}

fn host(node: u64) -> String {
    format!("node-{node}")
}

/// Node `node` of `nodes`, in its process of number `start`.
async fn process(node: u64, start: u64, nodes: u64) -> Process {
    let begun = Start::of(node).with(|options| {
        options.identity.id = peer(node, start);
        options.listen = Some((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT).into());
        options.limits = Default::default();
    });
    let process = begun.on(Simulated).await;
    let peers = (1..=nodes).map(|node| (NodeId(node), format!("{}:{PORT}", host(node))));
    process.transport.wanted(peers.collect());
    process
}

fn simulation(seed: u64) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5));
    builder
}

/// Hears `count` things of whatever order between peers.
async fn hears(process: &Process, count: usize) -> Vec<Heard> {
    let mut heard = Vec::new();
    for _ in 0..count {
        heard.push(process.hears().await);
    }
    heard.sort_by_key(|heard| format!("{heard:?}"));
    heard
}

#[test]
fn two_nodes_are_linked_parted_and_linked_again() {
    for seed in 0..3 {
        let mut sim = simulation(seed).build();
        for (node, other) in [(1, 2), (2, 1)] {
            sim.client(host(node), async move {
                let process = process(node, 1, 2).await;
                let other = peer(other, 1);
                assert_eq!(process.hears().await, Heard::Up(other, false));
                for round in 0..2 {
                    for number in 0..100 {
                        let message = Bytes::from(format!("{round} {number}"));
                        process.transport.send(other.node, message.clone()).unwrap();
                        assert_eq!(process.hears().await, Heard::Message(other, message));
                    }
                    // Neither goes on before both are done.
                    let answer = process
                        .transport
                        .call(other.node, Bytes::from("echo"), Duration::from_secs(10))
                        .await;
                    assert!(answer.is_ok() || round > 0, "{answer:?}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if node == 1 {
                        turmoil::partition(host(1), host(2));
                    }
                    let parted = tokio::time::Instant::now();
                    assert_eq!(process.hears().await, Heard::Down(other));
                    // What says nothing is asked after a second and given up four seconds later.
                    assert!(parted.elapsed() <= Duration::from_secs(7), "{:?}", parted.elapsed());
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    if node == 1 {
                        turmoil::repair(host(1), host(2));
                    }
                    assert_eq!(process.hears().await, Heard::Up(other, true));
                }
                // The other may not be done.
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(())
            });
        }
        sim.run().unwrap();
    }
}

#[test]
fn a_network_that_carries_one_way_only_is_none() {
    for (from, to) in [(1, 2), (2, 1)] {
        let mut sim = simulation(from).build();
        for (node, other) in [(1, 2), (2, 1)] {
            sim.client(host(node), async move {
                let process = process(node, 1, 2).await;
                let other = peer(other, 1);
                assert_eq!(process.hears().await, Heard::Up(other, false));
                tokio::time::sleep(Duration::from_secs(1)).await;
                if node == 1 {
                    turmoil::partition_oneway(host(from), host(to));
                }
                assert_eq!(process.hears().await, Heard::Down(other));
                tokio::time::sleep(Duration::from_secs(20)).await;
                assert_eq!(process.transport.connected(other.node), None);
                if node == 1 {
                    turmoil::repair_oneway(host(from), host(to));
                }
                assert_eq!(process.hears().await, Heard::Up(other, true));
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(())
            });
        }
        sim.run().unwrap();
    }
}

#[test]
fn of_three_nodes_those_that_see_each_other_go_on() {
    for seed in 0..3 {
        let mut sim = simulation(seed).build();
        for node in 1..=3 {
            sim.client(host(node), async move {
                let process = process(node, 1, 3).await;
                let others: Vec<_> = (1..=3)
                    .filter(|other| *other != node)
                    .map(|other| peer(other, 1))
                    .collect();
                let up = |again: bool| others.iter().map(|other| Heard::Up(*other, again)).collect::<Vec<_>>();
                assert_eq!(hears(&process, 2).await, up(false));
                tokio::time::sleep(Duration::from_secs(5)).await;
                if node == 1 {
                    turmoil::partition(host(3), host(1));
                    turmoil::partition(host(3), host(2));
                }
                if node == 3 {
                    let downs: Vec<_> = others.iter().map(|other| Heard::Down(*other)).collect();
                    assert_eq!(hears(&process, 2).await, downs);
                } else {
                    let third = peer(3, 1);
                    assert_eq!(process.hears().await, Heard::Down(third));
                    let near = others.iter().find(|other| **other != third).unwrap();
                    let answer = process
                        .transport
                        .call(near.node, Bytes::from("echo"), Duration::from_secs(5))
                        .await;
                    assert_eq!(answer, Ok(Bytes::from("echo")));
                    assert_eq!(process.transport.connected(near.node), Some(*near));
                    assert_eq!(process.transport.connected(third.node), None);
                }
                tokio::time::sleep(Duration::from_secs(10)).await;
                if node == 1 {
                    turmoil::repair(host(3), host(1));
                    turmoil::repair(host(3), host(2));
                }
                let back: Vec<_> = match node {
                    3 => up(true),
                    _ => vec![Heard::Up(peer(3, 1), true)],
                };
                assert_eq!(hears(&process, back.len()).await, back);
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(())
            });
        }
        sim.run().unwrap();
    }
}

#[test]
fn a_node_that_crashed_comes_back_as_another_process() {
    for seed in 0..3 {
        let mut sim = simulation(seed).build();
        // Outside of the simulation: it survives the crash.
        let starts = Rc::new(Cell::new(0));
        sim.host(host(2), move || {
            let start = starts.get() + 1;
            starts.set(start);
            async move {
                let _process = process(2, start, 2).await;
                std::future::pending::<()>().await;
                Ok(())
            }
        });
        sim.client(host(1), async move {
            let process = process(1, 1, 2).await;
            assert_eq!(process.hears().await, Heard::Up(peer(2, 1), false));
            assert_eq!(process.hears().await, Heard::Down(peer(2, 1)));
            assert_eq!(process.hears().await, Heard::Up(peer(2, 2), false));
            Ok(())
        });
        while sim.elapsed() < Duration::from_secs(3) {
            sim.step().unwrap();
        }
        sim.crash(host(2));
        while sim.elapsed() < Duration::from_secs(13) {
            sim.step().unwrap();
        }
        sim.bounce(host(2));
        sim.run().unwrap();
    }
}
