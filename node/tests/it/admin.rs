//! The admin port over real sockets, with a fake broker behind it.

use std::sync::{Arc, atomic::Ordering};

use heronry_node::{
    StartError,
    admin::{Admin, AdminOptions, Token},
    config::Config,
    telemetry::metrics::Recorded,
};
use heronry_proto::admin::{
    ExistingUsers, Health, ImportedUser, ScramHash as WireHash, ScramKeySet, ScramKeys as WireKeys, StatusRequest,
    UserAddRequest, UserDeleteRequest, UserImportReply, UserImportRequest, UserListRequest, UserPasswdRequest,
    admin_client::AdminClient, imported_user, user_add_request, user_passwd_request,
};
use heronry_xmpp::sasl::{Password, ScramHash, ScramKeys};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Request, transport::Channel};

use crate::fake::FakeBroker;

struct Port {
    admin: Admin,
    broker: Arc<FakeBroker>,
    token: Token,
    config: Config,
    _data: tempfile::TempDir,
}

impl Port {
    async fn open() -> Self {
        let broker = Arc::<FakeBroker>::default();
        let data = tempfile::tempdir().unwrap();
        let token = Token::of_broker(data.path()).unwrap();
        let mut config = Config::default();
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        config.limits.admin_connections_max = 4;
        let metrics = Recorded::new(PrometheusBuilder::new().build_recorder().handle());
        let options = AdminOptions {
            token: token.clone(),
            metrics,
        };
        let admin = Admin::start(&config, Arc::clone(&broker), options).await.unwrap();
        Self {
            admin,
            broker,
            token,
            config,
            _data: data,
        }
    }

    async fn client(&self) -> AdminClient<Channel> {
        AdminClient::connect(format!("http://{}", self.admin.address()))
            .await
            .unwrap()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.token.authorization().parse().unwrap());
        request
    }

    /// The status line of `GET path` with these headers.
    async fn get(&self, path: &str, headers: &str) -> String {
        let answer = self.answer(path, headers).await;
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// The answer to `GET path` with these headers.
    async fn answer(&self, path: &str, headers: &str) -> String {
        let mut socket = TcpStream::connect(self.admin.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn password(jid: &str, password: &str) -> UserAddRequest {
    UserAddRequest {
        jid: jid.to_owned(),
        credentials: Some(user_add_request::Credentials::Password(password.to_owned())),
    }
}

#[tokio::test]
async fn health_and_metrics_are_for_everybody_and_readiness_follows_the_broker() {
    let port = Port::open().await;
    let host = "host: 127.0.0.1\r\n";
    assert_eq!(port.get("/healthz", host).await, "HTTP/1.1 200 OK");
    assert_eq!(port.get("/metrics", host).await, "HTTP/1.1 200 OK");
    assert_eq!(port.get("/readyz", host).await, "HTTP/1.1 503 Service Unavailable");
    let answer = port.answer("/readyz", host).await;
    assert!(
        answer.ends_with("\r\n\r\nnot ready\nshard 3 has no leader\n"),
        "{answer}"
    );
    port.broker.ready.store(true, Ordering::Relaxed);
    assert_eq!(port.get("/readyz", host).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn requests_from_other_sites_are_refused_everywhere() {
    let port = Port::open().await;
    for path in ["/healthz", "/metrics", "/heronry.admin.v1.Admin/Status", "/"] {
        let foreign = port.get(path, "host: evil.example\r\n").await;
        assert_eq!(foreign, "HTTP/1.1 421 Misdirected Request", "{path}");
        let origin = port
            .get(path, "host: localhost\r\norigin: http://evil.example\r\n")
            .await;
        assert_eq!(origin, "HTTP/1.1 403 Forbidden", "{path}");
        assert_eq!(port.get(path, "").await, "HTTP/1.1 400 Bad Request", "{path}");
    }
}

#[tokio::test]
async fn every_method_wants_the_token() {
    let port = Port::open().await;
    let mut client = port.client().await;
    let jid = || "a@localhost".to_owned();
    let codes = [
        client.status(StatusRequest {}).await.unwrap_err().code(),
        client.user_add(password("a@localhost", "p")).await.unwrap_err().code(),
        client.user_list(UserListRequest::default()).await.unwrap_err().code(),
        client
            .user_delete(UserDeleteRequest { jid: jid() })
            .await
            .unwrap_err()
            .code(),
        client
            .user_passwd(UserPasswdRequest {
                jid: jid(),
                credentials: None,
            })
            .await
            .unwrap_err()
            .code(),
        client
            .user_import(futures::stream::empty::<UserImportRequest>())
            .await
            .unwrap_err()
            .code(),
        client.user_count(UserListRequest::default()).await.unwrap_err().code(),
        client.user_export(UserListRequest::default()).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::Unauthenticated; 8]);
    let mut wrong = Request::new(StatusRequest {});
    wrong
        .metadata_mut()
        .insert("authorization", "Bearer wrong".parse().unwrap());
    assert_eq!(client.status(wrong).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(port.broker.accounts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn status_is_degraded_when_there_are_problems() {
    let port = Port::open().await;
    let mut client = port.client().await;
    let status = client
        .status(port.request(StatusRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.health(), status.node_id, status.roles),
        (Health::Healthy, 7, vec!["edge".into(), "core".into()])
    );
    port.broker
        .problems
        .lock()
        .unwrap()
        .push("shard 3 has no leader".to_owned());
    let status = client
        .status(port.request(StatusRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.health(), status.problems),
        (Health::Degraded, vec!["shard 3 has no leader".to_owned()])
    );
}

#[tokio::test]
async fn an_account_gets_keys_for_every_enabled_hash() {
    let port = Port::open().await;
    let mut client = port.client().await;
    client
        .user_add(port.request(password("Juliet@localhost", "é")))
        .await
        .unwrap();
    {
        let accounts = port.broker.accounts.lock().unwrap();
        let keys = &accounts["juliet@localhost"];
        let hashes: Vec<_> = keys.iter().map(|keys| keys.hash()).collect();
        assert_eq!(hashes, [ScramHash::Sha512, ScramHash::Sha256, ScramHash::Sha1]);
        let password = Password::new("e\u{301}").unwrap();
        assert!(keys.iter().all(|keys| keys.verify(&password)));
    }
    let again = client
        .user_add(port.request(password("juliet@localhost", "p")))
        .await
        .unwrap_err();
    assert_eq!(
        (again.code(), again.message()),
        (Code::AlreadyExists, "there is an account juliet@localhost already")
    );
}

#[tokio::test]
async fn addresses_and_credentials_that_cannot_be_are_refused() {
    let port = Port::open().await;
    let mut client = port.client().await;
    let cases = [
        (
            password("localhost", "p"),
            "\"localhost\" is a domain: write NAME@localhost",
        ),
        (
            password("a@elsewhere.example", "p"),
            "elsewhere.example is not served here, only localhost",
        ),
        (password("a@localhost", ""), "the password is empty"),
        (
            UserAddRequest {
                jid: "a@localhost".to_owned(),
                credentials: None,
            },
            "a password or keys are needed",
        ),
        (
            UserAddRequest {
                jid: "a@localhost".to_owned(),
                credentials: Some(user_add_request::Credentials::Keys(ScramKeySet::default())),
            },
            "a password or keys are needed",
        ),
    ];
    for (request, sentence) in cases {
        let refusal = client.user_add(port.request(request)).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, sentence));
    }
    let malformed = client
        .user_add(port.request(password("a b@localhost", "p")))
        .await
        .unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument, "{malformed:?}");
}

#[tokio::test]
async fn passwd_and_delete_need_an_account() {
    let port = Port::open().await;
    let mut client = port.client().await;
    let change = || UserPasswdRequest {
        jid: "a@localhost".to_owned(),
        credentials: Some(user_passwd_request::Credentials::Password("new".to_owned())),
    };
    let delete = || UserDeleteRequest {
        jid: "a@localhost".to_owned(),
    };
    assert_eq!(
        client.user_passwd(port.request(change())).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        client.user_delete(port.request(delete())).await.unwrap_err().code(),
        Code::NotFound
    );
    client
        .user_add(port.request(password("a@localhost", "old")))
        .await
        .unwrap();
    client.user_passwd(port.request(change())).await.unwrap();
    let new = Password::new("new").unwrap();
    assert!(
        port.broker.accounts.lock().unwrap()["a@localhost"]
            .iter()
            .all(|keys| keys.verify(&new))
    );
    client.user_delete(port.request(delete())).await.unwrap();
    assert!(port.broker.accounts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_list_of_many_pages_has_everybody_once() {
    let port = Port::open().await;
    let names: Vec<_> = (0..600).map(|n| format!("u{n:03}@localhost")).collect();
    port.broker
        .accounts
        .lock()
        .unwrap()
        .extend(names.iter().map(|name| (name.clone(), Vec::new())));
    let mut client = port.client().await;
    let mut list = client
        .user_list(port.request(UserListRequest::default()))
        .await
        .unwrap()
        .into_inner();
    let mut listed = Vec::new();
    while let Some(page) = list.message().await.unwrap() {
        listed.extend(page.users.into_iter().map(|user| user.jid));
    }
    assert_eq!(listed, names);
    let count = async |prefix: &str| {
        let request = UserListRequest {
            domain: "localhost".to_owned(),
            prefix: prefix.to_owned(),
        };
        let counted = port.client().await.user_count(port.request(request)).await.unwrap();
        counted.into_inner().users
    };
    assert_eq!((count("").await, count("u00").await, count("v").await), (600, 10, 0));
}

/// Sends these accounts, each with a password, and adds the replies up.
async fn import(port: &Port, existing: ExistingUsers, jids: &[&str]) -> UserImportReply {
    let users = jids.iter().zip(1..).map(|(jid, number)| ImportedUser {
        number,
        jid: (*jid).to_owned(),
        credentials: Some(imported_user::Credentials::Password("p".to_owned())),
    });
    let requests = users.map(move |user| UserImportRequest {
        users: vec![user],
        existing: existing.into(),
    });
    let requests: Vec<_> = requests.collect();
    let mut client = port.client().await;
    let replies = client.user_import(port.request(futures::stream::iter(requests))).await;
    let mut replies = replies.unwrap().into_inner();
    let mut sum = UserImportReply::default();
    while let Some(reply) = replies.message().await.unwrap() {
        sum.created += reply.created;
        sum.replaced += reply.replaced;
        sum.kept += reply.kept;
        sum.refusals.extend(reply.refusals);
    }
    sum.refusals.sort_unstable_by_key(|refusal| refusal.number);
    sum
}

#[tokio::test]
async fn an_import_counts_and_names_what_it_refuses() {
    let port = Port::open().await;
    let mut client = port.client().await;
    client
        .user_add(port.request(password("old@localhost", "p")))
        .await
        .unwrap();
    let jids = ["new@localhost", "old@localhost", "b@elsewhere.example"];
    let reply = import(&port, ExistingUsers::Replace, &jids).await;
    assert_eq!(
        (reply.created, reply.replaced, reply.kept, reply.refusals.len()),
        (1, 1, 0, 1)
    );
    let refusal = &reply.refusals[0];
    assert_eq!((refusal.number, refusal.jid.as_str()), (3, "b@elsewhere.example"));
    assert_eq!(refusal.reason, "elsewhere.example is not served here, only localhost");
}

#[tokio::test]
async fn what_happens_with_accounts_that_exist_is_the_callers_choice() {
    let port = Port::open().await;
    let mut client = port.client().await;
    client
        .user_add(port.request(password("old@localhost", "other")))
        .await
        .unwrap();
    let kept = import(&port, ExistingUsers::Keep, &["old@localhost"]).await;
    assert_eq!((kept.created, kept.replaced, kept.kept), (0, 0, 1));
    let refused = import(&port, ExistingUsers::Refuse, &["old@localhost", "x@localhost"]).await;
    assert_eq!((refused.created, refused.refusals.len()), (1, 1));
    assert_eq!(refused.refusals[0].reason, "there is an account old@localhost already");
    let other = Password::new("other").unwrap();
    assert!(port.broker.accounts.lock().unwrap()["old@localhost"][0].verify(&other));
}

#[tokio::test]
async fn an_import_waits_for_a_shard_that_has_no_leader_for_a_moment() {
    let port = Port::open().await;
    port.broker.unavailable.store(3, Ordering::Relaxed);
    let reply = import(&port, ExistingUsers::Replace, &["a@localhost"]).await;
    assert_eq!((reply.created, reply.refusals), (1, Vec::new()));
}

#[tokio::test]
async fn an_import_is_committed_many_accounts_at_a_time_and_nobody_is_forgotten() {
    let port = Port::open().await;
    let names: Vec<_> = (0..3000).map(|n| format!("u{n}@localhost")).collect();
    let keys = ScramKeys::derive(ScramHash::Sha256, &Password::new("p").unwrap(), &[7; 16], 4096).unwrap();
    let keys = ScramKeySet {
        keys: vec![WireKeys {
            hash: WireHash::Sha256.into(),
            iterations: 4096,
            salt: keys.salt().to_vec().into(),
            stored_key: keys.stored_key().to_vec().into(),
            server_key: keys.server_key().to_vec().into(),
        }],
    };
    let user = |(number, jid): (usize, &String)| ImportedUser {
        number: number as u64,
        jid: jid.clone(),
        credentials: Some(imported_user::Credentials::Keys(keys.clone())),
    };
    let users: Vec<_> = names.iter().enumerate().map(user).collect();
    let requests: Vec<_> = users
        .chunks(100)
        .map(|users| UserImportRequest {
            users: users.to_vec(),
            existing: 0,
        })
        .collect();
    let mut client = port.client().await;
    let replies = client.user_import(port.request(futures::stream::iter(requests))).await;
    let mut replies = replies.unwrap().into_inner();
    let mut created = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        assert_eq!(reply.refusals, []);
        created += reply.created;
    }
    assert_eq!((created, port.broker.accounts.lock().unwrap().len()), (3000, 3000));
    // 3 000 accounts of some 300 bytes, 64 KiB at a time, and what is left in each of two lanes.
    let batches = port.broker.batches.load(Ordering::Relaxed);
    assert!((5..=40).contains(&batches), "{batches}");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let port = Port::open().await;
    let address = port.admin.address();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut fifth = TcpStream::connect(address).await.unwrap();
    fifth.write_all(request).await.unwrap();
    let mut answer = [0; 15];
    // The four are served, and the fifth, which asked before them, is not.
    for socket in &mut held {
        socket.write_all(request).await.unwrap();
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
    assert_eq!(
        fifth.try_read(&mut answer).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    held.pop();
    fifth.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_its_key() {
    let port = Port::open().await;
    let mut config = port.config.clone();
    config.admin.listen = port.admin.address();
    let metrics = Recorded::new(PrometheusBuilder::new().build_recorder().handle());
    let second = Admin::start(
        &config,
        Arc::clone(&port.broker),
        AdminOptions {
            token: port.token.clone(),
            metrics,
        },
    )
    .await;
    let Err(StartError::Listen {
        key: "admin.listen", ..
    }) = second
    else {
        panic!("two listeners on one address")
    };
}

#[tokio::test]
async fn after_stop_the_port_is_closed() {
    let port = Port::open().await;
    let address = port.admin.address();
    assert_eq!(port.get("/healthz", "host: localhost\r\n").await, "HTTP/1.1 200 OK");
    port.admin.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}
