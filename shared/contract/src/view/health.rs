//! Health of a service or of the whole system.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `/health`, `/livez` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// By component.
    pub components: BTreeMap<String, ComponentHealth>,
}

/// Health of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentHealth {
    /// `ok` or `degraded`.
    pub status: String,
    /// Coded reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
}

impl Health {
    /// Joins components: degraded as soon as one is.
    pub fn of(components: BTreeMap<String, ComponentHealth>) -> Self {
        let ok = components.values().all(|c| c.status == "ok");
        Self { status: if ok { "ok" } else { "degraded" }.to_owned(), components }
    }
}

impl ComponentHealth {
    /// Nothing to say.
    pub fn ok() -> Self {
        Self { status: "ok".to_owned(), code: None, text: None }
    }
    /// Something is wrong.
    pub fn degraded(code: &str, text: impl Into<String>) -> Self {
        Self { status: "degraded".to_owned(), code: Some(code.to_owned()), text: Some(text.into()) }
    }
}
