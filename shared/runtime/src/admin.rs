//! The admin port of every service: `/metrics`, `/livez`, `/readyz`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hopyard_contract::view::{ComponentHealth, Health};

use crate::clock::BootInstant;
use crate::instruments;
use crate::tasks::Tasks;

/// What a service says about itself: whether it can do its own part.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<String, ComponentHealth>>>,
    ticks: Arc<Mutex<BTreeMap<&'static str, (BootInstant, Duration)>>>,
}

impl Readiness {
    /// Says how a component is.
    pub fn set(&self, component: &str, health: ComponentHealth) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).insert(component.to_owned(), health);
    }

    /// A loop went round; it is late when it does not within three times `period`.
    pub fn tick(&self, name: &'static str, period: Duration) {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (BootInstant::now(), period));
    }

    /// All components.
    pub fn health(&self) -> Health {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, (at, period)) in self.ticks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let late = at.elapsed() > *period * 3;
            let health = if late {
                ComponentHealth::degraded("late", format!("has not gone round for {} s", at.elapsed().as_secs()))
            } else {
                ComponentHealth::ok()
            };
            components.insert((*name).to_owned(), health);
        }
        Health::of(components)
    }
}

/// Opens the admin port and returns the address it got.
///
/// # Errors
/// When the address is taken.
pub async fn serve(tasks: &Tasks, address: &str, readiness: Readiness) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("the admin address {address} cannot be opened"))?;
    let local = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(|| async { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], instruments::render()) }))
        .route("/livez", get(|| async { Json(Health::of(BTreeMap::new())) }))
        .route("/readyz", get(readyz))
        .with_state(readiness);
    let stop = tasks.stopping().clone();
    tasks.spawn("admin", async move {
        axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await.context("the admin port failed")
    });
    Ok(local)
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let health = readiness.health();
    let status = if health.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
