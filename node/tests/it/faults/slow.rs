//! Wires between nodes are slow, and lose what is on them now and then.

use crate::{
    fleet::{CORES, EDGES, Fleet},
    process::Place,
    slow::{SlowWire, Weather},
};

#[tokio::test(flavor = "multi_thread")]
async fn wires_between_nodes_are_slow_stall_and_break_and_no_device_notices() {
    let places: Vec<_> = (0..CORES + EDGES).map(|_| Place::new()).collect();
    let mut wires = Vec::new();
    for place in &places {
        wires.push(SlowWire::start((place.ip, 5270).into(), (place.ip, 5269).into()).await);
    }
    let fleet = tokio::task::spawn_blocking(|| Fleet::start_over(places, 5270))
        .await
        .unwrap();
    let load = fleet.load(16).await;
    load.goes_on(20).await;
    for weather in [Weather::Slow, Weather::Stalls, Weather::Breaks] {
        load.longest();
        for wire in &wires {
            wire.weather(weather);
        }
        load.goes_on(30).await;
        for wire in &wires {
            wire.weather(Weather::Fair);
        }
        load.catches_up().await;
        eprintln!("{weather:?}: the longest wait was {:?}", load.longest());
    }
    assert!(wires.iter().any(|wire| wire.broken() > 0), "nothing broke");
    load.judge_unnoticed().await;
}
