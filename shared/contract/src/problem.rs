//! Problems: what is wrong with an input, as a stable code, a pointer to the field and a sentence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// Stable code, such as `unknown_field`.
    pub code: String,
    /// JSON pointer to the field; empty for the whole body.
    pub pointer: String,
    /// One sentence for a person.
    pub detail: String,
    /// File of a definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl FieldError {
    /// An error at `pointer`, outside of any file.
    pub fn new(code: &str, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), pointer: pointer.into(), detail: detail.into(), file: None, line: None, column: None }
    }

    /// The same error with its pointer below `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:{}:{}: ", self.line.unwrap_or(1), self.column.unwrap_or(1))?;
        }
        if self.pointer.is_empty() {
            write!(f, "{} ({})", self.detail, self.code)
        } else {
            write!(f, "{}: {} ({})", self.pointer, self.detail, self.code)
        }
    }
}

/// An RFC 9457 problem: the answer of the HTTP API and, where there is one, of the bus to what it refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `https://hopyard.dev/problems/<code>`; an identifier, not a page to load.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text of the status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence for a person.
    pub detail: String,
    /// Stable code.
    pub code: String,
    /// JSON pointer of the first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The id of the request, as in `X-Request-Id` and the logs.
    pub request_id: String,
    /// Everything that is wrong, not only the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The run that the problem is about, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<crate::RunId>,
    /// The run as it is, for `already_final`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<serde_json::Value>,
    /// How long to wait before the same is sent again, in ms; over HTTP the header `Retry-After` says it in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem without a field.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://hopyard.dev/problems/{code}"),
            title: title(status).to_owned(),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            pointer: None,
            request_id: String::new(),
            errors: Vec::new(),
            run_id: None,
            run: None,
            retry_after_ms: None,
        }
    }

    /// A problem made of field errors; code, pointer and detail are the first one's.
    ///
    /// The status follows the code of the first error.
    pub fn of_errors(errors: Vec<FieldError>) -> Self {
        let Some(first) = errors.first() else {
            return Self::new(422, "invalid", "the request is not valid");
        };
        let mut problem = Self::new(status_of(&first.code), &first.code, first.detail.clone());
        problem.pointer = Some(first.pointer.clone());
        problem.errors = errors;
        problem
    }

    /// The same problem with another status, and its title.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        title(status).clone_into(&mut self.title);
        self
    }
}

/// HTTP status of a field error's code: 400 for what is no JSON, 409 and 404 for the two codes that say so, else 422.
pub fn status_of(code: &str) -> u16 {
    match code {
        "json_syntax" | "duplicate_key" | "too_deep" | "number_range" => 400,
        "idempotency_conflict" => 409,
        _ => 422,
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}
