//! A whole node in this process, on ports of its own, with a data directory of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use heronry_client::{Client, Event, Events, Options, Password, Server, Tls, Trust, stanza::Stanza};
use heronry_node::{
    StartError,
    admin::Broker as _,
    config::{Config, Mechanism},
    node::Node,
};
use heronry_xmpp::{
    jid::BareJid,
    sasl::{ScramHash, ScramKeys},
};
use tempfile::TempDir;

/// What nothing here should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Broker {
    pub(crate) node: Held,
    pub(crate) config: Config,
    _data: TempDir,
}

/// A node that is ended in order: a process that exits while RocksDB's threads run may be aborted.
pub(crate) struct Held(Arc<Node>);

impl std::ops::Deref for Held {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let node = Arc::clone(&self.0);
        // The test's own runtime may have one thread only, and that is this one.
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(node.shutdown());
        });
        let _ = ended.join();
    }
}

impl Broker {
    /// The default configuration, on free ports.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.storage.data = data.path().to_owned();
        config.edge.c2s = vec!["127.0.0.1:0".parse().unwrap()];
        config.edge.c2s_tls = vec!["127.0.0.1:0".parse().unwrap()];
        config.auth.mechanisms = vec![Mechanism::ScramSha256, Mechanism::Plain];
        change(&mut config);
        let node = Held(Arc::new(Node::start(config.clone()).await.unwrap()));
        Self {
            node,
            config,
            _data: data,
        }
    }

    /// Ends the node in order and starts another one from its data.
    pub(crate) async fn restart(self) -> Self {
        let Self { node, config, _data } = self;
        node.shutdown().await;
        drop(node);
        let started = async {
            loop {
                match Node::start(config.clone()).await {
                    Ok(node) => break node,
                    // Its threads are still putting things away.
                    Err(StartError::DataInUse { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let node = Held(Arc::new(tokio::time::timeout(PATIENCE, started).await.unwrap()));
        Self { node, config, _data }
    }

    pub(crate) fn c2s(&self) -> SocketAddr {
        self.node.c2s()[0]
    }

    pub(crate) fn c2s_tls(&self) -> SocketAddr {
        self.node.c2s_tls()[0]
    }

    /// An account whose password is its name.
    pub(crate) async fn user(&self, name: &str) -> BareJid {
        let jid = BareJid::parse(&format!("{name}@localhost")).unwrap();
        let password = Password::new(name).unwrap();
        let keys = ScramKeys::derive(ScramHash::Sha256, &password, name.as_bytes(), 4096).unwrap();
        self.node.broker().user_add(jid.clone(), vec![keys]).await.unwrap();
        jid
    }

    /// How this account logs in over STARTTLS.
    pub(crate) fn options(&self, name: &str) -> Options {
        let jid = BareJid::parse(&format!("{name}@localhost")).unwrap();
        Options::new(jid, Password::new(name).unwrap())
            .server(Server::Address(self.c2s()))
            .tls(Tls::StartTls(Trust::dangerous_accept_any()))
    }

    /// Makes an account and logs it in.
    pub(crate) async fn device(&self, name: &str) -> Device {
        self.user(name).await;
        Device::connect(self.options(name)).await
    }
}

/// A client and what it is told.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) events: Events,
}

impl Device {
    pub(crate) async fn connect(options: Options) -> Self {
        let connected = tokio::time::timeout(PATIENCE, Client::connect(options)).await;
        let (client, events) = connected.unwrap().unwrap();
        Self { client, events }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.next())
            .await
            .unwrap()
            .unwrap()
    }

    /// The next message; presence, the device's own among it (RFC 6121 §4.2.2), is passed over.
    pub(crate) async fn message(&mut self) -> Stanza {
        loop {
            match self.event().await {
                Event::Message(message) => return message,
                Event::Presence(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The text of the next message.
    pub(crate) async fn text(&mut self) -> String {
        let message = self.message().await;
        let root = message.root_element().unwrap();
        root.child("body", "jabber:client").unwrap().text()
    }
}
