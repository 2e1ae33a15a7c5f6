//! A wire with a weather: what TCP makes of a bad network.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// What happens to what is on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It arrives.
    Fair,
    /// It takes up to 60 ms in each direction.
    Slow,
    /// One piece in fifty is lost and sent again after 200 to 500 ms, as TCP does it, and everything behind it waits.
    Stalls,
    /// One piece in two hundred breaks the connection.
    Breaks,
}

/// Everything goes through to another address, in its weather.
pub(crate) struct SlowWire {
    weather: watch::Sender<Weather>,
    broken: Arc<AtomicUsize>,
}

impl SlowWire {
    pub(crate) async fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let (seen, broken) = (weather.subscribe(), Arc::new(AtomicUsize::new(0)));
        let breaks = Arc::clone(&broken);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (seen, breaks) = (seen.clone(), Arc::clone(&breaks));
                tokio::spawn(async move {
                    // Nobody there: the connection ends, as it would without us.
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                    let is_broken = tokio::select! {
                        is_broken = pass_on(near_read, far_write, &seen) => is_broken,
                        is_broken = pass_on(far_read, near_write, &seen) => is_broken,
                    };
                    breaks.fetch_add(usize::from(is_broken), Ordering::Relaxed);
                });
            }
        });
        Self { weather, broken }
    }

    pub(crate) fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Connections that the weather has ended.
    pub(crate) fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Passes on what comes, until either side ends or the weather ends it. Says whether it was the weather.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: &watch::Receiver<Weather>) -> bool {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut piece).await {
        if count == 0 {
            return false;
        }
        let now = *weather.borrow();
        match now {
            Weather::Fair => {}
            Weather::Slow => sleep(Duration::from_millis(random(60))).await,
            Weather::Stalls if random(50) == 0 => sleep(Duration::from_millis(200 + random(300))).await,
            Weather::Breaks if random(200) == 0 => return true,
            Weather::Stalls | Weather::Breaks => {}
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return false;
        }
    }
    false
}

/// A number below `bound`.
fn random(bound: u64) -> u64 {
    getrandom::u64().unwrap() % bound
}
