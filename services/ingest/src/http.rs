//! The one table of routes: the router and the OpenAPI document are both made from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use hopyard_contract::{Name, RunId};

use crate::door::Door;
use crate::problem::Refusal;

pub mod body;
pub mod frame;
pub mod leaving;
pub mod meta;
pub mod openapi;
pub mod serve;
pub mod wire;

/// Prefix of everything but the probes.
pub const PREFIX: &str = "/api/v1";

/// One entry of the table.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Bare path, such as `/api/v1/runs/{id}`; the form below `/api/v1/namespaces/{ns}` comes by itself.
    pub path: &'static str,
    /// Handler of this one method.
    pub handler: MethodRouter<Door>,
    /// What the OpenAPI document says.
    pub operation: OperationDoc,
    /// Whether the answer depends on a namespace.
    pub namespaced: bool,
}

impl Route {
    /// An entry whose answer depends on a namespace.
    pub fn new(method: Method, path: &'static str, handler: MethodRouter<Door>, operation: OperationDoc) -> Self {
        Self { method, path, handler, operation, namespaced: true }
    }

    /// The same answer in every namespace: there is no form with one.
    #[must_use]
    pub fn global(mut self) -> Self {
        self.namespaced = false;
        self
    }
}

/// Description of an operation for the OpenAPI document.
#[derive(Clone, Debug)]
pub struct OperationDoc {
    /// Unique id, such as `listRuns`.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Parameters in the query or a header.
    pub parameters: Vec<ParameterDoc>,
    /// Media type and schema name of the body; a name of [`hopyard_contract::schema`], empty for any bytes.
    pub request: Vec<(&'static str, &'static str)>,
    /// Whether the body may be left out.
    pub request_optional: bool,
    /// Answers other than problems, which every operation may give.
    pub responses: Vec<ResponseDoc>,
}

/// A parameter of an operation.
#[derive(Clone, Debug)]
pub struct ParameterDoc {
    /// `query` or `header`.
    pub place: &'static str,
    /// Name.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// Which texts are values.
    pub shape: Shape,
}

/// The values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any text, or one that only the handler can judge.
    Text,
    /// A text of so many characters.
    Line(usize),
    /// A plain decimal number within bounds.
    Number(u64, u64),
    /// A name as everywhere.
    Name,
    /// An RFC 3339 time.
    Time,
    /// A number and a unit.
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// An answer of an operation.
#[derive(Clone, Debug)]
pub struct ResponseDoc {
    /// Status.
    pub status: u16,
    /// One line.
    pub doc: &'static str,
    /// Media type.
    pub media: &'static str,
    /// Name in [`hopyard_contract::schema`]; empty for any value or bytes.
    pub schema: &'static str,
}

impl OperationDoc {
    /// An operation without parameters, body and answers.
    pub fn new(id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, parameters: Vec::new(), request: Vec::new(), request_optional: false, responses: Vec::new() }
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &'static str, doc: &'static str) -> Self {
        self.parameters.push(ParameterDoc { place: "query", name, doc, shape: Shape::Text });
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, doc: &'static str) -> Self {
        self.parameters.push(ParameterDoc { place: "header", name, doc, shape: Shape::Text });
        self
    }

    /// Says which texts are values of the parameter that was added last.
    #[must_use]
    pub fn shaped(mut self, shape: Shape) -> Self {
        if let Some(last) = self.parameters.last_mut() {
            last.shape = shape;
        }
        self
    }

    /// Adds a form of the body.
    #[must_use]
    pub fn body(mut self, media: &'static str, schema: &'static str) -> Self {
        self.request.push((media, schema));
        self
    }

    /// The body may be left out.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.request_optional = true;
        self
    }

    /// Adds a JSON answer; `schema` may be empty.
    #[must_use]
    pub fn json(self, status: u16, schema: &'static str, doc: &'static str) -> Self {
        self.answer(status, "application/json", schema, doc)
    }

    /// Adds an answer of any media type.
    #[must_use]
    pub fn answer(mut self, status: u16, media: &'static str, schema: &'static str, doc: &'static str) -> Self {
        self.responses.push(ResponseDoc { status, doc, media, schema });
        self
    }
}

/// All routes.
pub fn table() -> Vec<Route> {
    let mut routes = crate::runs::routes();
    routes.extend(crate::answers::routes());
    routes.extend(crate::workflows::routes());
    routes.extend(crate::executors::routes());
    routes.extend(crate::dead_letters::routes());
    routes.extend(crate::read::routes());
    routes.extend(meta::routes());
    routes
}

/// The whole service: routes inside of the frame that every request passes.
pub fn router(door: Door) -> Router {
    let mut routes = Router::new();
    let mut global = BTreeSet::new();
    for route in table() {
        if !route.namespaced {
            global.insert(route.path);
        }
        routes = routes.route(route.path, route.handler);
    }
    let global = Arc::new(global);
    let routes = routes
        .route_layer(from_fn(move |request: Request, next: Next| {
            let global = global.clone();
            async move { matched(&global, request, next).await }
        }))
        .fallback(|| async { Refusal::new(404, "unknown_route", "there is no such route; see /api/v1/openapi.json") })
        .with_state(door);
    // The frame has to see a request before it is routed, since it takes the namespace out of the path.
    Router::new().fallback_service(routes).layer(from_fn(frame::frame))
}

/// Which entry of the table answered, for metrics.
#[derive(Clone)]
pub(crate) struct Matched(pub(crate) String);

async fn matched(global: &BTreeSet<&'static str>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or_else(String::new, |p| p.as_str().to_owned());
    let explicit = request.extensions().get::<Namespace>().is_some_and(|n| n.explicit);
    if explicit && global.contains(path.as_str()) {
        return Refusal::new(404, "unknown_route", "this route has no form with a namespace").into_response();
    }
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Matched(path));
    response
}

/// The namespace of a request: named in the path, else `default`.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Whether the path named it.
    pub explicit: bool,
}

impl<S: Sync> FromRequestParts<S> for Namespace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self { name: Name::default_namespace(), explicit: false }))
    }
}

/// Reads a run id of a path: what is no canonical id names no run.
///
/// # Errors
/// 404 `unknown_run`.
pub fn run_id(text: &str) -> Result<RunId, Refusal> {
    text.parse().map_err(|_| Refusal::unknown_run())
}

#[cfg(test)]
mod tests;
