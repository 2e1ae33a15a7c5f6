//! The command line's end of the Admin service.

use std::time::Duration;

use heronry_proto::admin::admin_client::AdminClient;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{Failure, failure};
use crate::{admin::Token, config::Config};

/// How long the broker may take to answer one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Client = AdminClient<InterceptedService<Channel, ShowToken>>;

/// Shows the token with every request.
#[derive(Clone)]
pub(super) struct ShowToken(MetadataValue<Ascii>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Asks the broker that the configuration describes. Failures say what to do.
pub(super) fn ask<T>(
    config: &Config,
    question: impl AsyncFnOnce(&mut Client) -> Result<T, Status>,
) -> Result<T, Failure> {
    ask_within(config, Some(ANSWER_TIMEOUT), question)
}

/// As [`ask`], when the answer may take as long as it takes.
pub(super) fn ask_for_long<T>(
    config: &Config,
    question: impl AsyncFnOnce(&mut Client) -> Result<T, Status>,
) -> Result<T, Failure> {
    ask_within(config, None, question)
}

fn ask_within<T>(
    config: &Config,
    timeout: Option<Duration>,
    question: impl AsyncFnOnce(&mut Client) -> Result<T, Status>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let mut client = connect(config, timeout).await?;
        question(&mut client).await.map_err(|status| failed(config, &status))
    })
}

async fn connect(config: &Config, timeout: Option<Duration>) -> Result<Client, Failure> {
    let address = config.admin_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| {
            Failure::new(
                failure::USAGE,
                format!("admin.listen {address} cannot be an address: {error}"),
            )
        })?
        .connect_timeout(CONNECT_TIMEOUT)
        // A broker that is gone is noticed, however long its answer may take.
        .http2_keep_alive_interval(CONNECT_TIMEOUT)
        .keep_alive_timeout(CONNECT_TIMEOUT);
    let endpoint = match timeout {
        Some(timeout) => endpoint.timeout(timeout),
        None => endpoint,
    };
    let channel = endpoint.connect().await.map_err(|_| unreachable_at(config))?;
    // Only now: without a broker its token is not missed.
    let token = Token::of_client(config.data()).map_err(|error| {
        Failure::new(
            failure::TOKEN,
            format!(
                "the token {} cannot be read ({error}): name the broker's data directory with --data DIR, or set HERONRY_ADMIN_TOKEN",
                config.data().join(crate::admin::token::FILE).display()
            ),
        )
    })?;
    let shown = token
        .authorization()
        .parse()
        .map_err(|_| Failure::new(failure::TOKEN, "the token is not printable ASCII"))?;
    Ok(AdminClient::with_interceptor(channel, ShowToken(shown)))
}

fn unreachable_at(config: &Config) -> Failure {
    let address = config.admin_address();
    Failure::new(
        failure::UNREACHABLE,
        format!(
            "no broker answers at {address}: start one with `heronry run`, or name its address with --set admin.listen=IP:PORT"
        ),
    )
}

fn failed(config: &Config, status: &Status) -> Failure {
    let address = config.admin_address();
    let code = match status.code() {
        Code::Unauthenticated => {
            return Failure::new(
                failure::TOKEN,
                format!(
                    "the broker at {address} does not accept the token: name its data directory with --data DIR, or set HERONRY_ADMIN_TOKEN"
                ),
            );
        }
        Code::AlreadyExists | Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => failure::REFUSED,
        Code::DeadlineExceeded | Code::Cancelled => {
            return Failure::new(
                failure::UNREACHABLE,
                format!("the broker at {address} does not answer in time: try again"),
            );
        }
        // The connection broke, or the broker says that it cannot do it now.
        Code::Unavailable => failure::UNREACHABLE,
        _ => 1,
    };
    Failure::new(code, status.message())
}
