//! A peer that says what a test wants.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::channel::mpsc;
use heronry_cluster::transport::PeerId;
use heronry_proto::peer::{Frame, Hello, Lane, Messages, Ready, frame::Body, peer_client::PeerClient};
use tonic::{Status, Streaming, transport::Endpoint};

use super::{CLUSTER, SOON};

/// One connection, begun by the test.
pub(crate) struct Raw {
    says: mpsc::UnboundedSender<Frame>,
    hears: Streaming<Frame>,
    number: u64,
}

/// What a member says first.
pub(crate) fn hello(of: PeerId, lane: Lane) -> Hello {
    Hello {
        protocol: 1,
        lane: lane.into(),
        cluster_name: "colony".to_owned(),
        cluster_id: CLUSTER.to_bytes().to_vec().into(),
        node_id: of.node.0,
        start: of.start,
        version: "0.1.0".to_owned(),
        feature_level: 1,
        feature_level_in_use: 0,
        wall_clock_micros: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64,
        worked_with: 0,
        ticket: 0,
    }
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn dial(address: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (says, said) = mpsc::unbounded();
        let hears = PeerClient::new(channel).link(said).await.unwrap().into_inner();
        Self { says, hears, number: 0 }
    }

    /// Says Hello; what is said to that.
    pub(crate) async fn greet(address: &str, hello: Hello) -> (Self, Result<Option<Body>, Status>) {
        let mut raw = Self::dial(address).await;
        raw.say(Body::Hello(hello));
        let answer = raw.hears().await;
        (raw, answer)
    }

    /// A connection that works.
    pub(crate) async fn member(address: &str, of: PeerId, lane: Lane) -> Self {
        let (mut raw, answer) = Self::greet(address, hello(of, lane)).await;
        assert!(matches!(answer, Ok(Some(Body::Hello(_)))), "{answer:?}");
        raw.say(Body::Ready(Ready {}));
        raw
    }

    pub(crate) fn say(&mut self, body: Body) {
        self.number += 1;
        self.say_as(self.number, body);
    }

    pub(crate) fn say_as(&mut self, number: u64, body: Body) {
        let frame = Frame {
            number,
            body: Some(body),
        };
        let _ = self.says.unbounded_send(frame);
    }

    pub(crate) async fn hears(&mut self) -> Result<Option<Body>, Status> {
        let frame = tokio::time::timeout(SOON, self.hears.message())
            .await
            .expect("nothing is heard");
        Ok(frame?.and_then(|frame| frame.body))
    }

    /// Waits until the other side has ended the connection.
    pub(crate) async fn is_left(&mut self) {
        while let Ok(Some(_)) = self.hears().await {}
    }
}

pub(crate) fn messages<const N: usize>(messages: [&'static str; N]) -> Body {
    let messages = messages.into_iter().map(Bytes::from).collect();
    Body::Messages(Messages { messages })
}

/// With the ids of nodes and clusters in fewer digits.
pub(crate) fn short(sentence: &str) -> String {
    sentence.replace("000000000000000", "")
}

/// The name of the reason and the sentence of a refusal.
pub(crate) fn refusal(answer: Result<Option<Body>, Status>) -> (String, String) {
    match answer {
        Ok(Some(Body::Refusal(refusal))) => (refusal.reason, short(&refusal.sentence)),
        other => panic!("{other:?}"),
    }
}
