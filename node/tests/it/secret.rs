//! What a cluster says of accounts that do not exist is the same at each of its nodes.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    backup::cluster,
    process::{PATIENCE, Place},
};

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";

/// The salt in the first answer of SCRAM (RFC 5802 §5.1).
async fn salt(place: &Place, name: &str) -> String {
    let mut stream = TcpStream::connect((place.ip, 5222)).await.unwrap();
    let mut heard = String::new();
    let mut until = async |stream: &mut TcpStream, what: &str| {
        while !heard.contains(what) {
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "{heard}");
            heard.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        heard.clone()
    };
    stream.write_all(OPEN.as_bytes()).await.unwrap();
    until(&mut stream, "</stream:features>").await;
    let first = BASE64.encode(format!("n,,n={name},r=rOprNGfwEbeRWgbNEkqO"));
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>");
    stream.write_all(auth.as_bytes()).await.unwrap();
    let heard = until(&mut stream, "</challenge>").await;
    let challenge = heard.rsplit_once("</challenge>").unwrap().0.rsplit_once('>').unwrap().1;
    let challenge = String::from_utf8(BASE64.decode(challenge).unwrap()).unwrap();
    let salt = challenge.split(',').find_map(|part| part.strip_prefix("s="));
    salt.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_say_the_same_of_whoever_does_not_exist_before_and_after_a_restart() {
    let (places, mut brokers) = tokio::task::block_in_place(|| cluster(2, &["--set=tls.required=false"]));
    let files = || {
        places
            .iter()
            .map(|place| std::fs::read(place.data().join("unknown-users.secret")).unwrap())
    };
    let own: Vec<_> = files().collect();
    assert_ne!(own[0], own[1], "each has made one");
    let expected = salt(&places[0], "nobody").await;
    let same = async || {
        let until = Instant::now() + PATIENCE;
        for place in &places {
            while salt(place, "nobody").await != expected {
                assert!(Instant::now() < until, "the nodes can be told apart");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    same().await;
    assert_ne!(salt(&places[0], "somebody").await, expected);
    brokers.clear();
    brokers.extend(std::thread::scope(|scope| {
        let starting: Vec<_> = places.iter().map(|place| scope.spawn(|| place.start())).collect();
        starting
            .into_iter()
            .map(|broker| broker.join().unwrap())
            .collect::<Vec<_>>()
    }));
    same().await;
}

#[test]
fn a_cluster_that_is_at_the_level_of_its_programs_is_not_upgraded() {
    let place = Place::new();
    let _broker = place.start();
    let upgraded = place.run(&["cluster", "upgrade"]).ok();
    assert_eq!(
        upgraded.stdout,
        "the cluster is at feature level 2 already, the highest that this node's program knows\n"
    );
    let status = place.run(&["cluster", "status"]).ok().stdout;
    assert!(status.contains(", feature level 2\n"), "{status}");
}
