//! Agent steps: which program works, what it is told, and what it may do by itself.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prompt_file::{self, PromptFile};
use crate::problem::FieldError;
use crate::status::{UnknownWord, words};

/// Most turns that a step may ask for.
const MAX_TURNS: u64 = 10_000;

words! {
    /// Programs that work as agents.
    AgentCli {
        /// Claude Code.
        Claude = "claude",
        /// Codex.
        Codex = "codex",
        /// opencode.
        Opencode = "opencode",
        /// Gemini CLI.
        Gemini = "gemini",
        /// Any other program: its step says how it is started, and where in its lines is what.
        Generic = "generic",
        /// The agent that comes with Hopyard: it plays a script and asks no model.
        Fake = "fake",
    }
}

words! {
    /// What an agent may do without asking.
    #[derive(Default)]
    Permissions {
        /// Look, and nothing else.
        Read = "read",
        /// Look, and change files of the workspace.
        #[default]
        Edit = "edit",
        /// Whatever the user of the executor may: run programs, reach the network.
        Full = "full",
    }
}

words! {
    /// Whether an executor stands between an agent and its models: it holds the key, counts, and keeps to the budget.
    GatewayUse {
        /// It has to: without a provider that fits, the step fails.
        On = "on",
        /// It does not: the agent has keys of its own, and its own sums are what counts.
        Off = "off",
    }
}

/// A coding agent at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSpec {
    /// The program: one of [`AgentCli`], or a template that gives one. Empty where `role` says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cli: String,
    /// Name of one of the workflow's roles, or a template of inputs that gives one: what the agent is and what it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What it shall do; a template. Empty where `prompt_file` says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// A file of the workspace that says what it shall do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_file: Option<PromptFile>,
    /// Model, by the name that its provider knows; a template. The program's own choice if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Most turns; a whole number or a template that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<String>,
    /// What it may do without asking.
    #[serde(default)]
    pub permissions: Permissions,
    /// Whether it goes on with the step's last conversation in the same workspace: that of a retry, or of an earlier run of the
    /// session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
    /// Whether its models are asked through the executor; if the executor has a provider that fits, unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayUse>,
    /// What the fake agent plays: JSON lines; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Program and arguments of a generic agent; templates, in which `{model}` stands for its model. Its prompt is its standard
    /// input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What a generic agent gets beside that to go on with a conversation; `{session}` stands for its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume_args: Vec<String>,
    /// Where a line of a generic agent says what: JSONPaths by the names of [`AGENT_MAP`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub map: BTreeMap<String, String>,
}

/// What can be read in the lines of a generic agent.
pub const AGENT_MAP: [&str; 17] = [
    "session",
    "model",
    "turn",
    "text",
    "tool_id",
    "tool_name",
    "tool_input",
    "result_id",
    "result_output",
    "result_failed",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
    "done",
    "error",
];

impl AgentSpec {
    /// Every template of it, with the field it stands in.
    pub fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        let optional = [("role", &self.role), ("model", &self.model), ("max_turns", &self.max_turns), ("script", &self.script)];
        let cli = Some(("cli", self.cli.as_str())).filter(|_| self.role.is_none());
        cli.into_iter()
            .chain([("prompt", self.prompt.as_str())])
            .chain(optional.into_iter().filter_map(|(field, text)| Some((field, text.as_deref()?))))
            .map(|(field, text)| (field.to_owned(), text))
            .chain(self.prompt_file.iter().flat_map(PromptFile::templates))
            .chain(self.command.iter().enumerate().map(|(at, text)| (format!("command/{at}"), text.as_str())))
    }

    /// What is wrong beyond its templates, by pointers below `at`.
    pub(super) fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        prompt_file::check(&self.prompt, self.prompt_file.as_ref(), at, errors);
        self.check_program(at, errors);
    }

    /// What is wrong with all but its prompt.
    pub(super) fn check_program(&self, at: &str, errors: &mut Vec<FieldError>) {
        for (field, text) in self.templates().filter(|(field, _)| field != "prompt" && !field.starts_with("with/")) {
            if text.trim().is_empty() || text.contains('\0') {
                errors.push(FieldError::new("length", format!("{at}/{field}"), format!("`{field}` has text and no NUL characters")));
            }
        }
        if let Some(turns) = self.max_turns.as_deref().filter(|text| !text.contains("${{"))
            && let Err(detail) = agent_turns(turns)
        {
            errors.push(FieldError::new("range", format!("{at}/max_turns"), detail));
        }
        // What a role brings is checked where it stands.
        let is_template = self.role.is_some() || self.cli.contains("${{");
        if self.role.is_some() && !self.cli.is_empty() {
            errors.push(FieldError::new("exclusive", format!("{at}/cli"), "an agent has a `cli` or a `role` that brings it"));
        }
        if !is_template && let Err(error) = AgentCli::from_str(&self.cli) {
            let known = AgentCli::ALL.iter().map(|cli| cli.as_str()).collect::<Vec<_>>().join(", ");
            errors.push(FieldError::new("unknown_value", format!("{at}/cli"), format!("`{}` is none of {known}", error.word)));
        }
        let generic = self.cli == AgentCli::Generic.as_str();
        if generic && self.command.is_empty() {
            errors.push(FieldError::new("missing_field", format!("{at}/command"), "a generic agent has a `command`"));
        }
        let own = [("command", self.command.is_empty()), ("resume_args", self.resume_args.is_empty()), ("map", self.map.is_empty())];
        for (field, _) in own.into_iter().filter(|(_, empty)| !empty && !generic && !is_template) {
            errors.push(FieldError::new("unknown_field", format!("{at}/{field}"), format!("only a generic agent has a `{field}`")));
        }
        if self.script.is_some() && !is_template && self.cli != AgentCli::Fake.as_str() {
            errors.push(FieldError::new("unknown_field", format!("{at}/script"), "only the fake agent plays a script"));
        }
    }
}

/// A program, once its template is rendered.
///
/// # Errors
/// When there is none of this name.
pub fn agent_cli(text: &str) -> Result<AgentCli, UnknownWord> {
    text.trim().parse()
}

/// A number of turns, once its template is rendered.
///
/// # Errors
/// One sentence, when it is none.
pub fn agent_turns(text: &str) -> Result<u64, String> {
    let turns = u64::from_str(text.trim()).ok().filter(|turns| (1..=MAX_TURNS).contains(turns));
    turns.ok_or_else(|| format!("max_turns is a whole number between 1 and {MAX_TURNS}"))
}
