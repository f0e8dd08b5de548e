//! The client of the HTTP API that all client verbs share.

pub mod bench;
pub mod checkout;
pub mod fleet;
pub mod follow;
pub mod inputs;
pub mod lines;
pub mod output;
mod replay;
pub mod repository;
pub mod runs;
pub mod sse;
pub mod submit;
pub mod summary;
pub mod workflows;
pub mod yaml;

use std::time::Duration;

use anyhow::{Context as _, Result};
use hopyard_contract::{Name, Problem};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::Failure;

/// Longer than the longest `wait` that the API takes.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// The API of one server and one namespace; clones share connections.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    root: Url,
    namespace: Option<Name>,
    token: Option<String>,
}

impl Api {
    /// A client of the API at `url`; nothing is sent yet. Without a namespace, the token's or `default` is meant.
    ///
    /// # Errors
    /// When the URL is neither http nor https.
    pub fn new(url: &str, namespace: Option<Name>, token: Option<String>) -> Result<Self> {
        let root = Url::parse(url).map_err(|e| Failure::usage(format!("`{url}` is no URL of a server: {e}")))?;
        if !matches!(root.scheme(), "http" | "https") {
            return Err(Failure::usage(format!("`{url}` starts with neither http:// nor https://")));
        }
        // A second call finds it in place, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy();
        if root.scheme() == "http" {
            // Without this, a machine that has no CA certificates could not even speak plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().context("cannot set up the HTTP client")?;
        Ok(Self { http, root, namespace, token })
    }

    /// The same server for routes that belong to no namespace.
    pub fn global(&self) -> Self {
        Self { namespace: None, ..self.clone() }
    }

    /// Address of the server, without a slash at its end.
    pub fn address(&self) -> &str {
        self.root.as_str().trim_end_matches('/')
    }

    /// The API's URL of a path such as `/runs`; each element of `query` is encoded.
    pub fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let namespace = self.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        self.root_url(&format!("/api/v1{namespace}{path}"), query)
    }

    fn root_url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{path}", self.root.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        url
    }

    /// Reads a JSON answer.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] or [`Failure::Refused`].
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        let response = self.send(self.request(Method::GET, self.url(path, query)).header(ACCEPT, "application/json")).await?;
        self.json(response).await
    }

    /// Reads a JSON answer of a known shape.
    ///
    /// # Errors
    /// As [`Api::get`], and when the answer has another shape.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T> {
        let value = self.get(path, query).await?;
        serde_json::from_value(value).with_context(|| format!("the server's answer to {path} has an unknown shape"))
    }

    /// Reads a path below the root, such as `/health`, whatever its status.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], or when the answer is no JSON.
    pub async fn get_root(&self, path: &str) -> Result<(StatusCode, Value)> {
        let response = self.request(Method::GET, self.root_url(path, &[])).send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        Ok((status, self.json(response).await?))
    }

    /// Reads bytes, with the headers of the answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn bytes(&self, path: &str, query: &[(&str, String)]) -> Result<(HeaderMap, Vec<u8>)> {
        let response = self.send(self.request(Method::GET, self.url(path, query))).await?;
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        Ok((headers, body.to_vec()))
    }

    /// Sends JSON and reads the JSON answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: &Value, headers: HeaderMap) -> Result<Value> {
        let request = self.request(Method::POST, self.url(path, &[])).headers(headers).json(body);
        let response = self.send(request).await?;
        self.json(response).await
    }

    /// Deletes; there is nothing to read in the answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, self.url(path, &[]))).await.map(|_| ())
    }

    /// Stores a text and reads the JSON answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn put(&self, path: &str, kind: &'static str, body: String) -> Result<Value> {
        let request = self.request(Method::PUT, self.url(path, &[])).header(CONTENT_TYPE, kind).body(body);
        let response = self.send(request).await?;
        self.json(response).await
    }

    /// Opens a stream of events from after `last_id`; it may stay open for ever.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn stream(&self, path: &str, last_id: Option<&str>) -> Result<Response> {
        let mut request = self.bare(Method::GET, self.url(path, &[])).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_id.filter(|id| !id.is_empty()) {
            request = request.header("last-event-id", id);
        }
        self.send(request).await
    }

    fn bare(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.bare(method, url).timeout(ANSWER_WITHIN)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.map_err(|e| self.unreachable(&e))?;
        let problem = serde_json::from_str(&body).unwrap_or_else(|_| {
            let text = body.trim().lines().next().unwrap_or_default().to_owned();
            Problem::new(status.as_u16(), "no_problem_body", if text.is_empty() { status.to_string() } else { text })
        });
        Err(Failure::Refused(Box::new(problem)).into())
    }

    async fn json(&self, response: Response) -> Result<Value> {
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&body).with_context(|| format!("{} answers, but not with JSON: is it a Hopyard server?", self.address()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        // The innermost cause says what happened; the outer ones repeat the URL.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Failure::Unreachable { url: self.address().to_owned(), reason: cause.to_string() }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn urls_keep_their_prefix_and_carry_namespace_and_query() {
        let plain = Api::new("http://127.0.0.1:8733/", None, None).unwrap();
        assert_eq!(plain.url("/runs", &[]).as_str(), "http://127.0.0.1:8733/api/v1/runs");
        let other = Api::new("https://h/team", Some(Name::literal("a")), None).unwrap();
        let query = [("label", "k=v w".to_owned()), ("status", "failed".to_owned())];
        assert_eq!(other.url("/runs", &query).as_str(), "https://h/team/api/v1/namespaces/a/runs?label=k%3Dv+w&status=failed");
        assert_eq!(Exit::of_error(&Api::new("ftp://h", None, None).unwrap_err()), Exit::Usage);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let api = Api::new(&format!("http://{free}"), None, None).unwrap();
        let error = api.get("/runs", &[]).await.unwrap_err();
        assert_eq!(Exit::of_error(&error), Exit::Unreachable);
        assert!(error.to_string().contains(&free.to_string()), "{error}");
    }
}
