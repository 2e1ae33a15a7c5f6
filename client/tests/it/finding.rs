//! Which server it is, and the next one.

use std::{net::Ipv4Addr, time::Duration};

use heronry_client::{
    Client, ConnectError, Disconnect, Event, Mechanism, Options, Password, Reconnect, Resumption, Server, Tls, Trust,
    jid::BareJid,
};

use crate::{
    managed,
    names::Zone,
    next, note,
    server::{ACCOUNT, Binding, OnResume, PASSWORD, SM_ID, ServerTls, TestServer},
};

const AT_ONCE: Reconnect = Reconnect::Automatic {
    first: Duration::from_millis(1),
    max: Duration::from_millis(5),
};

/// Options that leave everything about the server to service records.
fn by_service(trust: &ServerTls, names: std::net::SocketAddr) -> Options {
    let account = BareJid::parse(ACCOUNT).expect("account");
    let trust = Trust::certificates(trust.pem.as_bytes()).expect("certificate");
    Options::new(account, Password::new(PASSWORD).expect("password"))
        .tls(Tls::Any(trust))
        .name_servers([names])
        .stream_management(false)
}

/// An address of loopback that nothing else uses.
fn own_address(n: u8) -> Ipv4Addr {
    let [.., a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + n, a, b.clamp(1, 254))
}

/// A port where nobody listens.
fn nobody() -> Server {
    Server::Address((own_address(0), 5).into())
}

#[tokio::test]
async fn service_records_of_both_kinds_are_tried_by_their_priority() {
    let tls = ServerTls::new(false);
    let starttls = TestServer::start(Some(tls.clone())).await;
    let direct = TestServer::start(Some(tls.with_direct(true))).await;
    for (starttls_priority, direct_priority) in [(10, 5), (5, 10)] {
        let names = Zone::default()
            .service(
                "xmpp-client",
                (starttls_priority, 0, starttls.address().port(), "a.capulet.example."),
            )
            .service(
                "xmpps-client",
                (direct_priority, 0, direct.address().port(), "b.capulet.example."),
            )
            .address("a.capulet.example.", Ipv4Addr::LOCALHOST)
            .address("b.capulet.example.", Ipv4Addr::LOCALHOST)
            .serve()
            .await;
        let server = if starttls_priority < direct_priority {
            &starttls
        } else {
            &direct
        };
        let (connected, _peer) = tokio::join!(Client::connect(by_service(&tls, names)), server.accept());
        connected.expect("a session");
    }
}

#[tokio::test]
async fn the_next_record_is_tried_when_one_leads_nowhere() {
    let tls = ServerTls::new(true);
    let server = TestServer::start(Some(tls.clone())).await;
    let names = Zone::default()
        .service("xmpps-client", (1, 0, 5, "nobody.capulet.example."))
        .service("xmpps-client", (2, 0, 5223, "unknown.capulet.example."))
        .service("xmpps-client", (3, 0, server.address().port(), "a.capulet.example."))
        .address("nobody.capulet.example.", own_address(0))
        .address("a.capulet.example.", Ipv4Addr::LOCALHOST)
        .serve()
        .await;
    let (connected, _peer) = tokio::join!(Client::connect(by_service(&tls, names)), server.accept());
    connected.expect("a session");
}

#[tokio::test]
async fn without_records_the_domain_itself_is_the_server() {
    let tls = ServerTls::new(false);
    let ip = own_address(1);
    let server = TestServer::start_at((ip, 5222).into(), Some(tls.clone())).await;
    let names = Zone::default().address("capulet.example.", ip).serve().await;
    let (connected, _peer) = tokio::join!(Client::connect(by_service(&tls, names)), server.accept());
    connected.expect("a session");
}

#[tokio::test]
async fn a_domain_without_the_service_is_not_tried_in_another_way() {
    let tls = ServerTls::new(false);
    let names = Zone::default()
        .service("xmpps-client", (0, 0, 0, "."))
        .address("capulet.example.", own_address(2))
        .serve()
        .await;
    let error = Client::connect(by_service(&tls, names)).await.expect_err("no service");
    assert!(matches!(error, ConnectError::NoService), "{error:?}");
}

#[tokio::test]
async fn the_next_server_is_tried_when_one_cannot_serve() {
    let (first, second) = (TestServer::start(None).await, TestServer::start(None).await);
    let servers = [
        nobody(),
        Server::Address(first.address()),
        Server::Address(second.address()),
    ];
    let options = first.options().servers(servers).stream_management(false);
    let (connected, (), _peer) = tokio::join!(
        Client::connect(options),
        first.refuse("system-shutdown"),
        second.accept()
    );
    connected.expect("a session");
}

#[tokio::test]
async fn a_refused_password_is_not_shown_to_the_next_server() {
    let (first, second) = (TestServer::start(None).await, TestServer::start(None).await);
    let account = BareJid::parse(ACCOUNT).expect("account");
    let options = Options::new(account, Password::new("wrong").expect("password"))
        .servers([Server::Address(first.address()), Server::Address(second.address())])
        .mechanism(Mechanism::from_name("SCRAM-SHA-256").expect("mechanism"))
        .tls(Tls::None);
    let (connected, ()) = tokio::join!(Client::connect(options), first.accept_failure());
    assert!(matches!(connected, Err(ConnectError::NotAuthenticated(_))));
    second.nobody_came().await;
}

#[tokio::test]
async fn of_several_errors_the_one_that_may_pass_is_told() {
    let server = TestServer::start(None).await;
    let options = server.options().servers([nobody(), Server::Address(server.address())]);
    let (connected, ()) = tokio::join!(Client::connect(options), server.refuse("host-unknown"));
    let error = connected.expect_err("no session");
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_server_may_send_us_to_another() {
    let (first, second) = (TestServer::start(None).await, TestServer::start(None).await);
    let place = second.address().to_string();
    let options = first.options().stream_management(false);
    let (connected, (), _peer) = tokio::join!(Client::connect(options), first.redirect(&place), second.accept());
    connected.expect("a session");
}

#[tokio::test]
async fn a_redirection_in_the_clear_leads_to_no_server_but_the_domains() {
    let (real, forger) = (ServerTls::new(false), ServerTls::new(false));
    let first = TestServer::start(Some(real)).await;
    let second = TestServer::start(Some(forger)).await;
    let place = second.address().to_string();
    let (connected, (), ()) = tokio::join!(
        Client::connect(first.options()),
        first.redirect(&place),
        second.accept_failure()
    );
    let error = connected.expect_err("untrusted");
    assert!(matches!(error, ConnectError::Untrusted(_)), "{error:?}");
}

#[tokio::test]
async fn redirections_are_not_followed_for_ever() {
    let server = TestServer::start(None).await;
    let place = server.address().to_string();
    let circle = async {
        for _ in 0..6 {
            server.redirect(&place).await;
        }
    };
    let (connected, ()) = tokio::join!(Client::connect(server.options()), circle);
    let error = connected.expect_err("a circle");
    assert!(
        matches!(error, ConnectError::Negotiation(_)) && error.is_transient(),
        "{error:?}"
    );
    server.nobody_came().await;
}

#[tokio::test]
async fn a_session_is_moved_by_see_other_host() {
    let (first, second) = (TestServer::start(None).await, TestServer::start(None).await);
    let (client, mut events, mut peer) = managed(&first, first.options().reconnect(AT_ONCE)).await;
    let place = second.address();
    peer.say(&format!(
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{place}</see-other-host></stream:error>\
         </stream:stream>"
    ))
    .await;
    let mut peer = second.accept_and(OnResume::Resume { h: 0 }).await;
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected(Disconnect::Refused(_))
    ));
    assert!(matches!(
        next(&mut events).await,
        Event::Reconnected(Resumption::Resumed { .. })
    ));
    client.send(note("a")).await.expect("connected");
    assert_eq!(peer.stanza().await.attr("id"), Some("a"));
    first.nobody_came().await;
}

#[tokio::test]
async fn a_session_is_resumed_where_the_server_wants_it() {
    let (first, second) = (TestServer::start(None).await, TestServer::start(None).await);
    let location = format!("location='{}'", second.address());
    let begin = async {
        let mut peer = first.accept().await;
        peer.enable_management_with(&location).await;
    };
    let options = first.options().reconnect(AT_ONCE);
    let (connected, ()) = tokio::join!(Client::connect(options), begin);
    let (_client, mut events) = connected.expect("a session");
    let mut peer = second.accept_and(OnResume::Resume { h: 0 }).await;
    assert_eq!(&*peer.resume.take().expect("resumed").previd, SM_ID);
    while !matches!(next(&mut events).await, Event::Reconnected(_)) {}
    first.nobody_came().await;
    // When nobody is there any more, it is the usual way (XEP-0198 §5).
    drop((second, peer));
    let peer = first.accept_and(OnResume::Resume { h: 0 }).await;
    assert!(peer.resume.is_some());
}

#[tokio::test]
async fn the_channel_is_bound_when_the_server_offers_it() {
    for (binding, direct) in [
        (Binding::Exporter, true),
        (Binding::Exporter, false),
        (Binding::EndPoint, true),
    ] {
        let mut tls = ServerTls::new(direct);
        tls.binding = binding;
        let server = TestServer::start(Some(tls)).await;
        let options = server.options().stream_management(false);
        let (connected, peer) = tokio::join!(Client::connect(options), server.accept());
        connected.expect("a session");
        let mechanism = peer.mechanism.expect("authenticated").name();
        assert_eq!(mechanism, "SCRAM-SHA-512-PLUS");
    }
}

#[tokio::test]
async fn somebody_in_between_is_found_out_by_the_binding() {
    let mut tls = ServerTls::new(true);
    tls.binding = Binding::Elsewhere;
    let server = TestServer::start(Some(tls)).await;
    let (connected, ()) = tokio::join!(Client::connect(server.options()), server.accept_failure());
    assert!(matches!(connected, Err(ConnectError::NotAuthenticated(_))));
}
