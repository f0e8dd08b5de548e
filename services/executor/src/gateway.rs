//! The metering gateway of one agent step: the only place where it finds a model.
//!
//! An agent holds a token that opens nothing else. Its calls are passed on with the real key; tokens and money are read from
//! the answers while they pass by; a call that the budget does not allow is refused before it is made, in the provider's own
//! form, so that no program tries it again. Calls wait while the step is held still, and while the provider asks for a short
//! pause; when it asks for a long one they are refused as well, and the step is paused.

mod forward;
mod ledger;
mod purse;
mod refusal;
mod route;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use hopyard_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use ledger::Ledger;

use crate::limit::Limit;
use crate::live::Attempt;
use crate::prices::Prices;
use crate::providers::Provider;

/// How long answers that nobody reads any more may take to be noticed as such.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What the calls of one step have in common.
pub(crate) struct Session {
    /// The agent's token.
    token: String,
    /// Who answers.
    provider: Arc<Provider>,
    prices: Arc<Prices>,
    ledger: Arc<Ledger>,
    /// The attempt: calls wait while its lease is overdue, and end with it.
    live: Arc<Attempt>,
    /// Longest such wait.
    freeze_limit: Duration,
    stop: Arc<Stop>,
}

/// Why a step can make no more calls.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    limit: OnceLock<Limit>,
    token: CancellationToken,
}

impl Stop {
    /// The budget does not allow another call.
    fn over_budget(&self) {
        self.token.cancel();
    }

    /// The provider takes no calls for long.
    fn limited(&self, limit: Limit) {
        // The first one says enough.
        let _ = self.limit.set(limit);
        self.token.cancel();
    }

    /// Cancelled when a call was refused here: no other will go through.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The provider's limit, if that is why.
    pub(crate) fn limit(&self) -> Option<&Limit> {
        self.limit.get()
    }
}

/// A gateway that is open.
pub(crate) struct Gateway {
    address: SocketAddr,
    token: String,
    /// Ends the server also when nobody closes it: a step may fail before it begins.
    close: DropGuard,
    server: JoinHandle<()>,
}

impl Gateway {
    /// Opens one on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) async fn open(
        tasks: &Tasks,
        provider: Arc<Provider>,
        prices: Arc<Prices>,
        ledger: Arc<Ledger>,
        live: Arc<Attempt>,
        freeze_limit: Duration,
        stop: Arc<Stop>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the gateway of the step has no port")?;
        let address = listener.local_addr()?;
        // Two ids of 122 random bits each: nothing to be guessed.
        let token = format!("hopyard-{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let session = Session { token: token.clone(), provider, prices, ledger, live, freeze_limit, stop };
        let router = Router::new().fallback(on_request).with_state(Arc::new(session));
        let close = CancellationToken::new();
        let closed = close.clone().cancelled_owned();
        let server = tasks.spawn_part("gateway", async move {
            axum::serve(listener, router).with_graceful_shutdown(closed).await.context("the gateway of a step ended")
        });
        Ok(Self { address, token, close: close.drop_guard(), server })
    }

    /// Its address, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The agent's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Takes no more calls; returns when the last one is written down.
    pub(crate) async fn close(self) {
        drop(self.close);
        if tokio::time::timeout(LAST_ANSWERS, self.server).await.is_err() {
            tracing::warn!("a call of an agent that has ended goes on; what it uses is not counted");
        }
    }
}

async fn on_request(State(session): State<Arc<Session>>, request: axum::extract::Request) -> Response {
    let route = match route::of(&request) {
        Ok(route) => route,
        Err(refusal) => return *refusal,
    };
    if !route.presents(&session.token) {
        return refusal::unauthorised(route.wire);
    }
    if route.wire != session.provider.wire {
        return refusal::other_wire(route.wire, &session.provider.name);
    }
    forward::call(session, route, request).await
}
