//! The floor: message traffic through a relay that understands nothing. What it costs no server can save.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    rc::Rc,
};

use anyhow::Context;
use heronry_xmpp::xml::Framer;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::messages::{self, Messages};
use crate::{
    measure::{machine, process::Process},
    options::FloorOptions,
    relay,
    report::Report,
    traffic::{End, Pair, Tally},
};

/// Starts a relay as a process of its own and measures it as if it were a server.
///
/// # Errors
/// When the relay cannot be started or a connection to it is lost.
pub async fn run(options: &FloorOptions) -> anyhow::Result<Report<Messages>> {
    let relay = RelayProcess::start(options.relay_pin)?;
    let tally = Rc::new(Tally::default());
    let mut pairs = Vec::with_capacity(options.traffic.pairs);
    for number in 0..options.traffic.pairs {
        let sender = relay.connect(number as u32, 0).await?;
        let receiver = relay.connect(number as u32, 1).await?;
        let to = format!("u{number}@localhost/resource");
        let traffic = &options.traffic;
        pairs.push(Pair::new(
            sender,
            receiver,
            &to,
            traffic.window,
            traffic.body_bytes,
            tally.clone(),
        ));
    }
    let process = Process::new(relay.child.id());
    let (result, verdict) = messages::measure(pairs, &options.traffic, &tally, Some(process)).await?;
    Ok(Report::new("floor", result, verdict))
}

/// What the relay's process does: prints its port, relays, and ends with its standard input.
///
/// # Errors
/// When it cannot listen or relay.
pub fn relay() -> anyhow::Result<()> {
    let pin = std::env::var(PIN).ok().map(|processor| processor.parse()).transpose()?;
    if let Some(processor) = pin {
        machine::pin(processor)?;
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Ok(relay::run(&listener)?)
}

/// The environment variable that tells the relay its processor.
const PIN: &str = "HERONRY_LOADTEST_RELAY_PIN";

struct RelayProcess {
    child: Child,
    port: u16,
}

impl RelayProcess {
    fn start(pin: Option<usize>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(processor) = pin {
            command.env(PIN, processor.to_string());
        }
        let mut child = command.spawn().context("starting the relay")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let mut relay = Self { child, port: 0 };
        relay.port = line.trim().parse().context("the relay did not start")?;
        Ok(relay)
    }

    async fn connect(&self, pair: u32, side: u8) -> anyhow::Result<End<TcpStream>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&relay::hello(pair, side)).await?;
        Ok(End::new(stream, Framer::headless()))
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
