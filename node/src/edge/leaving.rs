//! An edge that is to hold no sockets any more: it accepts none, and ends streams little by little, saying where to go on.

use std::sync::Arc;
use std::time::Duration;

use heronry_xmpp::stream::StreamError;

use super::{Edge, listener::Begins, port::ToConnection};

/// The shortest time between two handfuls of streams that are ended.
const STEP: Duration = Duration::from_millis(100);

/// Where devices reach an edge: `host:port`, for each way connections begin; `None`: it has not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doors {
    /// With STARTTLS.
    pub(crate) clear: Option<Box<str>>,
    /// With TLS from the first byte.
    pub(crate) tls: Option<Box<str>>,
}

impl Doors {
    fn of(&self, begins: Begins) -> Option<&str> {
        match begins {
            Begins::Clear => self.clear.as_deref(),
            Begins::Tls => self.tls.as_deref(),
        }
    }
}

/// Other edges, of which a device is told one.
#[derive(Clone, Debug)]
pub(crate) struct Directions {
    edges: Arc<[Doors]>,
    /// Which is whose turn.
    turn: usize,
}

impl Directions {
    /// What a device is told whose connection began like this: RFC 6120 §4.9.3.19 where there is an edge that has said how it is
    /// reached, else §4.9.3.20, after which it goes wherever it would go by itself.
    pub(super) fn error(&self, begins: Begins) -> StreamError {
        let places: Vec<_> = self.edges.iter().filter_map(|doors| doors.of(begins)).collect();
        let place = places.get(self.turn.checked_rem(places.len()).unwrap_or_default());
        let error = place.map_or_else(StreamError::system_shutdown, |place| {
            StreamError::see_other_host(*place)
        });
        error.with_text("this edge is being drained, connect to another one")
    }
}

impl Edge {
    /// The edge is to hold no sockets any more, and others are at these doors; `None`: it stays. As long as there is no other edge,
    /// whoever is connected stays.
    pub(crate) fn leave(&self, others: Option<Vec<Doors>>) {
        self.others.send_if_modified(|known| {
            let changed = known.as_deref() != others.as_deref();
            if changed {
                *known = others.map(Into::into);
            }
            changed
        });
    }

    /// Whether it is to hold no sockets any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.others.borrow().is_some()
    }

    /// Ends streams while the edge is to hold none, at most so many a second as [`EdgeLimits`](super::EdgeLimits) says; for ever.
    pub(crate) async fn hand_over(self: Arc<Self>) {
        let mut others = self.others.subscribe();
        let rate = self.limits.handovers_per_second_max.max(1);
        let step = STEP.max(Duration::from_secs(1) / rate);
        let handful = (step * rate).as_secs_f64().round() as usize;
        let (mut cursor, mut turn) = (0, 0);
        // It ends only with the edge.
        while others.wait_for(Option::is_some).await.is_ok() {
            let known = others.borrow().clone();
            if let Some(edges) = known.filter(|edges| !edges.is_empty()) {
                for port in self.hub.after(&mut cursor, handful) {
                    turn += 1;
                    let edges = Arc::clone(&edges);
                    port.send(ToConnection::GoTo(Directions { edges, turn }));
                }
            }
            tokio::time::sleep(step).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(clear: &str, tls: &str) -> Doors {
        let door = |text: &str| (!text.is_empty()).then(|| text.into());
        Doors {
            clear: door(clear),
            tls: door(tls),
        }
    }

    #[test]
    fn devices_are_told_other_edges_in_turn_by_the_way_they_came() {
        let edges: Arc<[Doors]> = [doors("a:1", ""), doors("b:1", "b:2"), doors("", "")].into();
        let told = |begins| {
            let directions = (0..4).map(|turn| Directions {
                edges: Arc::clone(&edges),
                turn,
            });
            directions
                .map(|directions| directions.error(begins).to_string())
                .map(|error| error.split(':').take(2).collect::<Vec<_>>().join(":"))
                .collect::<Vec<_>>()
        };
        let to = |place| format!("see-other-host {place}");
        assert_eq!(told(Begins::Clear), [to("a:1"), to("b:1"), to("a:1"), to("b:1")]);
        assert_eq!(told(Begins::Tls), [to("b:2"), to("b:2"), to("b:2"), to("b:2")]);
    }

    #[test]
    fn without_a_known_door_the_device_finds_its_own_way() {
        let edges = [Doors::default()].into();
        let error = Directions { edges, turn: 7 }.error(Begins::Clear);
        assert_eq!(
            error.to_string(),
            "system-shutdown: this edge is being drained, connect to another one"
        );
    }
}
