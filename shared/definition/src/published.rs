//! The published JSON Schema of a definition, from types that mirror what the readers take.
#![expect(dead_code, reason = "the types are only read by the schema generator")]

use std::collections::BTreeMap;

use hopyard_contract::Name;
use hopyard_contract::duration::Span;
use hopyard_contract::plan::{AgentCli, Concurrency, GatewayUse, LlmTool, Permissions, ResultSpec, Retry, WorkspaceSpec};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// A workflow definition.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "Hopyard workflow definition")]
struct Workflow {
    /// Version of the language: 1.
    #[schemars(range(min = 1, max = 1))]
    version: u32,
    /// Name of the workflow.
    name: Name,
    /// JSON Schema of each input; one without a default is required.
    #[schemars(length(max = 256))]
    inputs: Option<BTreeMap<String, Map<String, Value>>>,
    /// The directory the steps work in.
    workspace: Option<WorkspaceSpec>,
    /// Limits of money, turns and time.
    budget: Option<BudgetSpec>,
    /// Bound on runs at the same time.
    concurrency: Option<Concurrency>,
    /// Longest time from the first start to the end of the run.
    timeout: Option<Span>,
    /// What steps take that do not say otherwise.
    defaults: Option<Defaults>,
    /// Environment of every step; values are templates.
    env: Option<BTreeMap<String, Scalar>>,
    /// Agents that steps take by name.
    #[schemars(length(max = 100))]
    roles: Option<BTreeMap<String, RoleSpec>>,
    /// Steps, in any order; `needs` says what waits for what.
    #[schemars(length(min = 1, max = 200))]
    steps: Vec<StepSpec>,
    /// How the work is handed back.
    result: Option<ResultSpec>,
}

/// Limits of a run; each is optional.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct BudgetSpec {
    /// Money in US dollars, read exactly as it is written, with at most six decimals.
    cost_usd: Option<Amount>,
    /// Turns of agents.
    #[schemars(range(min = 1, max = 1_000_000))]
    turns: Option<u64>,
    /// Time from the first start.
    time: Option<Span>,
}

/// What steps take that do not say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// Longest time of one attempt.
    timeout: Option<Span>,
    /// Longest time without output.
    idle_timeout: Option<Span>,
    /// When and how often to try again; a step's own policy replaces this one.
    retry: Option<Retry>,
    /// Pool of executors.
    pool: Option<Name>,
    /// Time between TERM and KILL.
    grace: Option<Span>,
}

/// One step: a script for a shell, a coding agent, or a question to a model or a person.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["shell"]}, {"required": ["agent"]}, {"required": ["llm"]}, {"required": ["best_of"]}, {"required": ["approval"]}]))]
struct StepSpec {
    /// Id within the workflow.
    id: Name,
    /// Steps that have to end first: a list, or one id.
    needs: Option<Needs>,
    /// Condition, such as `failed()`; `completed()` if absent.
    #[schemars(rename = "if")]
    condition: Option<Scalar>,
    /// Pool of executors.
    pool: Option<Name>,
    /// Environment; values are templates.
    env: Option<BTreeMap<String, Scalar>>,
    /// Longest time of one attempt.
    timeout: Option<Span>,
    /// Longest time without output.
    idle_timeout: Option<Span>,
    /// Time between TERM and KILL.
    grace: Option<Span>,
    /// When and how often to try again.
    retry: Option<Retry>,
    /// A script for `sh -e`, or for the interpreter its first line names by `#!`.
    #[schemars(length(min = 1))]
    shell: Option<String>,
    /// A coding agent that works in the run's workspace.
    agent: Option<AgentStep>,
    /// One question to a model.
    llm: Option<LlmStep>,
    /// Several agents that try the same at once, of which the best wins.
    best_of: Option<BestOfStep>,
    /// A question to a person.
    approval: Option<ApprovalStep>,
}

/// One task, several agents: each works in a workspace of its own, a check judges, and the run goes on with the work of the best.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct BestOfStep {
    /// What they shall do; a template.
    #[schemars(length(min = 1))]
    prompt: Option<String>,
    /// A prompt file of the repository, instead of `prompt`.
    #[schemars(length(min = 1, max = 1024))]
    prompt_file: Option<String>,
    /// Values of its inputs; templates.
    with: Option<BTreeMap<String, Scalar>>,
    /// Who tries it; of two that are as good, the one that stands first wins.
    #[schemars(length(min = 2, max = 8))]
    variants: Vec<VariantStep>,
    /// A script that runs in the workspace of each when its agent has completed; a variant passes if it ends with 0.
    #[schemars(length(min = 1))]
    check: String,
    /// Output of the check whose number decides: the highest wins, then the cheapest. Without it the cheapest does.
    #[schemars(length(min = 1))]
    score: Option<String>,
}

/// One of the agents: what an agent has beside its prompt.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["cli"]}, {"required": ["role"]}]))]
struct VariantStep {
    /// Name among the variants.
    name: Name,
    /// Name of one of the workflow's `roles`, instead of a program.
    #[schemars(length(min = 1))]
    role: Option<String>,
    /// Whether it goes on with the step's last conversation in the same workspace; false if absent.
    resume: Option<bool>,
    #[schemars(flatten)]
    agent: AgentFields,
}

/// A question to a person; the run is paused until it is answered, or the step's `timeout` is over.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ApprovalStep {
    /// What is asked; a template.
    #[schemars(length(min = 1))]
    prompt: String,
}

/// One question to a model.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LlmStep {
    /// `PROVIDER/MODEL`, or the name of a model alone for an executor with one provider; a template. That of the prompt file if absent.
    #[schemars(length(min = 1))]
    model: Option<String>,
    /// What is asked; a template.
    #[schemars(length(min = 1))]
    prompt: Option<String>,
    /// A prompt file of the repository, instead of `prompt`.
    #[schemars(length(min = 1, max = 1024))]
    prompt_file: Option<String>,
    /// Values of its inputs; templates.
    with: Option<BTreeMap<String, Scalar>>,
    /// What the model is told about its part; a template.
    #[schemars(length(min = 1))]
    system: Option<String>,
    /// JSON Schema of the answer; without one it is a text.
    output: Option<Map<String, Value>>,
    /// Most tokens of the answer; 4096 if absent.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_tokens: Option<u32>,
    /// What the model may use in the workspace before it answers; those of the prompt file if absent.
    #[schemars(length(max = 32))]
    tools: Option<Vec<LlmTool>>,
    /// Most calls of the model; 20 if absent.
    #[schemars(range(min = 1, max = 1000))]
    max_turns: Option<u32>,
}

/// A coding agent at work.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["cli"]}, {"required": ["role"]}]))]
struct AgentStep {
    /// Name of one of the workflow's `roles`, or a template of inputs that gives one; instead of a program.
    #[schemars(length(min = 1))]
    role: Option<String>,
    /// What it shall do; a template.
    #[schemars(length(min = 1))]
    prompt: Option<String>,
    /// A prompt file of the repository, instead of `prompt`.
    #[schemars(length(min = 1, max = 1024))]
    prompt_file: Option<String>,
    /// Values of its inputs; templates.
    with: Option<BTreeMap<String, Scalar>>,
    /// Whether it goes on with the step's last conversation in the same workspace; false if absent.
    resume: Option<bool>,
    #[schemars(flatten)]
    agent: AgentFields,
}

/// An agent that steps take by name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("required" = ["cli"]))]
struct RoleSpec {
    /// What it is told before the prompt of the step; a template of inputs.
    prompt: Option<String>,
    #[schemars(flatten)]
    agent: AgentFields,
}

/// What every agent has.
#[derive(JsonSchema)]
struct AgentFields {
    /// The program, or a template that gives one.
    cli: Option<Program>,
    /// Model, by the name that its provider knows; a template. The program's own choice if absent.
    #[schemars(length(min = 1))]
    model: Option<String>,
    /// Most turns: 1 to 10000, or a template that gives such a number.
    max_turns: Option<Turns>,
    /// What it may do without asking; `edit` if absent.
    permissions: Option<Permissions>,
    /// Whether its models are asked through the executor; if the executor has a provider that fits, unless it is set.
    gateway: Option<GatewayUse>,
    /// What the fake agent plays: JSON lines; a template.
    #[schemars(length(min = 1))]
    script: Option<String>,
    /// Program and arguments of a generic agent; templates.
    command: Option<Vec<String>>,
    /// What a generic agent gets beside that to go on with a conversation; `{session}` stands for its id.
    resume_args: Option<Vec<String>>,
    /// JSONPaths to what a generic agent says in a line, by `session`, `turn`, `text`, `tool_name`, `input_tokens` and more.
    map: Option<BTreeMap<String, String>>,
}

/// A program, or a template that gives one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Program {
    Named(AgentCli),
    Template(#[schemars(regex(pattern = r"\$\{\{"))] String),
}

/// A whole number, or a template that gives one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Turns {
    Number(#[schemars(range(min = 1, max = 10_000))] u64),
    Template(#[schemars(length(min = 1))] String),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Needs {
    One(Name),
    Many(#[schemars(length(max = 200))] Vec<Name>),
}

/// A text, or a number or boolean that is taken as it is written.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Scalar {
    Text(String),
    Number(f64),
    Boolean(bool),
}

/// A decimal number of US dollars, as a number or a text.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Amount {
    Number(#[schemars(range(min = 0, max = 1_000_000))] f64),
    Text(#[schemars(regex(pattern = r"^[0-9]{1,7}(\.[0-9]{1,6})?$"))] String),
}

/// The JSON Schema (2020-12) of a definition: what editors check while one is written.
///
/// It describes shapes; names that have to exist, cycles and expressions are checked by [`crate::parse`] only.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Workflow>().to_value();
    without_null(&mut schema);
    schema
}

/// An absent field is left out of a definition, never written as null.
fn without_null(value: &mut Value) {
    let Value::Object(map) = value else {
        if let Value::Array(items) = value {
            items.iter_mut().for_each(without_null);
        }
        return;
    };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Array(options)) = map.get_mut("anyOf") {
        options.retain(|o| o != &serde_json::json!({"type": "null"}));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            map.remove("anyOf");
            // What the field says about itself wins over what its type says.
            for (key, inner) in only {
                map.entry(key).or_insert(inner);
            }
        }
    }
    map.values_mut().for_each(without_null);
}
