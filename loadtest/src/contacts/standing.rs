//! Accounts that are there all the time, and read what they are told.

use anyhow::{Context, bail};
use heronry_client::connection::OpenSession;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use crate::{contacts::Circle, fleet::Fleet, progress};

/// Sessions of those who stay. They end when this is dropped.
#[derive(Debug)]
pub struct Standing {
    reading: JoinSet<anyhow::Result<()>>,
}

impl Standing {
    /// Logs them in, `concurrency` at a time, and has each say that it is there.
    ///
    /// # Errors
    /// When one cannot log in.
    pub async fn begin(fleet: &Fleet, circle: Circle, concurrency: usize) -> anyhow::Result<Self> {
        let bar = progress::count("those who stay", circle.users as u64);
        let sessions = fleet.log_in(circle.standing(), concurrency, |_| bar.inc(1)).await?;
        bar.finish_and_clear();
        let mut reading = JoinSet::new();
        for mut session in sessions {
            let said = session.transport.write_all(b"<presence/>").await;
            said.context("saying that an account is there")?;
            session.transport.flush().await?;
            reading.spawn_local(read(session));
        }
        Ok(Self { reading })
    }

    /// Waits until one of them is lost, which is an error.
    ///
    /// # Errors
    /// Always.
    pub async fn lost(&mut self) -> anyhow::Result<std::convert::Infallible> {
        match self.reading.join_next().await {
            Some(ended) => ended.context("a session panicked")??,
            None => std::future::pending().await,
        }
        bail!("the server has closed a session that was to stay")
    }
}

/// Reads and forgets.
async fn read(mut session: OpenSession) -> anyhow::Result<()> {
    let mut bytes = vec![0; 4096];
    while session
        .transport
        .read(&mut bytes)
        .await
        .context("a session that was to stay")?
        > 0
    {}
    Ok(())
}
