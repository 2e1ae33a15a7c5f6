//! A name server that says what a test tells it, on a loopback socket.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A, rdata::SRV},
};
use tokio::net::UdpSocket;

/// What is known of each name.
#[derive(Default)]
pub(crate) struct Zone(HashMap<String, Vec<RData>>);

impl Zone {
    /// A service record of `capulet.example`: `priority weight port target`.
    pub(crate) fn service(mut self, service: &str, record: (u16, u16, u16, &str)) -> Self {
        let (priority, weight, port, target) = record;
        let record = RData::SRV(SRV::new(priority, weight, port, name(target)));
        self.0
            .entry(format!("_{service}._tcp.capulet.example."))
            .or_default()
            .push(record);
        self
    }

    pub(crate) fn address(mut self, host: &str, address: Ipv4Addr) -> Self {
        self.0.entry(host.to_owned()).or_default().push(RData::A(A(address)));
        self
    }

    /// Answers for ever; gives the server's address.
    pub(crate) async fn serve(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = socket.local_addr().expect("bound");
        let zone = Arc::new(self);
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = zone.answer(&query[..length]);
                socket.send_to(&answer, from).await.expect("loopback");
            }
        });
        address
    }

    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let query = Message::from_vec(query).expect("a query");
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        for question in &query.queries {
            answer.queries.push(question.clone());
            let known = self.0.get(&question.name().to_ascii());
            let wanted = |data: &&RData| data.record_type() == question.query_type();
            for data in known.into_iter().flatten().filter(wanted) {
                answer.add_answer(Record::from_rdata(question.name().clone(), 60, data.clone()));
            }
            if known.is_none() && question.query_type() != RecordType::A {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        answer.to_vec().expect("a message")
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}
