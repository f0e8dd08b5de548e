//! Approval steps: a person is asked, and the run goes on when there is an answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::FieldError;

/// What a person is asked before the run goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalSpec {
    /// The question; a template.
    pub prompt: String,
}

impl ApprovalSpec {
    /// What is wrong beyond its template, by pointers below `at`.
    pub(super) fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self.prompt.trim().is_empty() || self.prompt.contains('\0') {
            errors.push(FieldError::new("length", format!("{at}/prompt"), "`prompt` has text and no NUL characters"));
        }
    }
}
