//! Prompts that lie in the repository of a run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json::escape;
use crate::problem::FieldError;

/// Longest path of a prompt file, in bytes.
const MAX_PATH: usize = 1024;

/// A prompt file of the workspace and what it gets. It is read and rendered when its step starts, from the files as they are then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromptFile {
    /// Path below the root of the repository.
    pub path: String,
    /// Values of its inputs; templates. Inputs of the run with the names of its own reach it without being named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, String>,
    /// The inputs of the run, as texts; only in grants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
}

impl PromptFile {
    /// Whether a path names something below the folder that it starts from.
    pub fn stays_below(path: &str) -> bool {
        let plain = |part: &str| !matches!(part, "" | "." | ".." | ".git");
        !path.is_empty() && path.len() <= MAX_PATH && !path.contains(['\0', '\\']) && path.split('/').all(plain)
    }

    /// Its templates, with the pointers of the fields that they stand in.
    pub(super) fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        self.with.iter().map(|(name, text)| (format!("with/{}", escape(name)), text.as_str()))
    }
}

/// What is wrong with the prompt of a step, which is a text or a file.
pub(super) fn check(prompt: &str, file: Option<&PromptFile>, at: &str, errors: &mut Vec<FieldError>) {
    match file {
        None if prompt.trim().is_empty() || prompt.contains('\0') => {
            errors.push(FieldError::new("length", format!("{at}/prompt"), "`prompt` has text and no NUL characters"));
        }
        None => {}
        Some(_) if !prompt.is_empty() => {
            errors.push(FieldError::new("exclusive", format!("{at}/prompt_file"), "a step has a `prompt` or a `prompt_file`"));
        }
        Some(file) if !PromptFile::stays_below(&file.path) => {
            let detail = "a path below the root of the repository, such as `prompts/fix.prompt.md`";
            errors.push(FieldError::new("path", format!("{at}/prompt_file"), detail));
        }
        Some(_) => {}
    }
}
