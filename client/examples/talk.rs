//! Talks to somebody: `cargo run -p heronry-client --example talk -- ROMEO@DOMAIN PASSWORD JULIET@DOMAIN "good morrow"`
//!
//! Sends a message, waits until the server has it, then prints what comes in until the connection ends. For a broker on this
//! machine without a certificate that others would trust, set `HERONRY_EXAMPLE_CERTIFICATE` to its certificate's file.

use std::{env, error::Error, fs};

use heronry_client::{Client, Event, Options, Password, Tls, Trust, jid::BareJid, jid::Jid, message, xml::CLIENT};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [account, password, to, text] = &arguments[..] else {
        return Err("usage: talk ACCOUNT PASSWORD TO TEXT".into());
    };
    let mut options = Options::new(BareJid::parse(account)?, Password::new(password)?);
    if let Some(file) = env::var_os("HERONRY_EXAMPLE_CERTIFICATE") {
        options = options.tls(Tls::StartTls(Trust::certificates(&fs::read(file)?)?));
    }

    let (client, mut events) = Client::connect(options).await?;
    println!("connected as {}", client.jid());
    client.send(message(Jid::parse(to)?, text)).await?;
    client.flush().await?;
    println!("the server has it");

    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                let body = message.root_element()?.child("body", CLIENT).map(|body| body.text());
                println!(
                    "{}: {}",
                    message.from.map(|from| from.to_string()).unwrap_or_default(),
                    body.unwrap_or_default()
                );
            }
            Event::Disconnected(reason) => return Err(reason.into()),
            _ => {}
        }
    }
    Ok(())
}
