//! A network between two processes that can be cut, and that can cease to carry anything.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the network does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Carries,
    Stalls,
    /// Connections of an earlier round are cut.
    Round(u64),
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    state: watch::Sender<State>,
    /// Bytes that were carried towards the target.
    pub(crate) carried: Arc<AtomicU64>,
    /// After so many bytes towards the target connections are cut.
    pub(crate) cut_after: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn to(target: String) -> Self {
        let listener = TcpListener::bind(super::address()).await.unwrap();
        let state = watch::Sender::new(State::Carries);
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            state,
            carried: Arc::default(),
            cut_after: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let (state, carried, cut_after) = (
            proxy.state.clone(),
            Arc::clone(&proxy.carried),
            Arc::clone(&proxy.cut_after),
        );
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (near_reads, near_writes) = near.into_split();
                let (far_reads, far_writes) = far.into_split();
                let (one, other) = (state.subscribe(), state.subscribe());
                let forth = carry(
                    near_reads,
                    far_writes,
                    one,
                    Some((Arc::clone(&carried), Arc::clone(&cut_after))),
                );
                let back = carry(far_reads, near_writes, other, None);
                tokio::spawn(async move {
                    tokio::select! {
                        () = forth => {}
                        () = back => {}
                    }
                });
            }
        });
        proxy
    }

    /// Cuts all connections; new ones are carried.
    pub(crate) fn cut(&self) {
        static ROUND: AtomicU64 = AtomicU64::new(1);
        self.state
            .send_replace(State::Round(ROUND.fetch_add(1, Ordering::Relaxed)));
    }

    /// Carries nothing any more, and ends nothing either.
    pub(crate) fn stall(&self) {
        self.state.send_replace(State::Stalls);
    }
}

type Budget = Option<(Arc<AtomicU64>, Arc<AtomicU64>)>;

async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    budget: Budget,
) {
    let begun = *state.borrow_and_update();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *state.borrow_and_update();
        if now == State::Stalls {
            let _ = state.changed().await;
            continue;
        }
        if now != begun {
            return;
        }
        let read = tokio::select! {
            _ = state.changed() => continue,
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        if read == 0 {
            return;
        }
        let mut write = read;
        if let Some((carried, cut_after)) = &budget {
            let before = carried.fetch_add(read as u64, Ordering::Relaxed);
            let left = cut_after.load(Ordering::Relaxed).saturating_sub(before);
            write = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if to.write_all(&buffer[..write]).await.is_err() || write < read {
            return;
        }
    }
}
