//! The top level of a definition.

use hopyard_contract::money;
use hopyard_contract::plan::{
    Budget, Concurrency, ConcurrencyPolicy, MAX_STEPS, PLAN_VERSION, Plan, ResultSpec, WorkspaceMode, WorkspaceSpec,
};
use hopyard_contract::template::{self, Part};
use hopyard_contract::{Name, repository};

use crate::document::{Kind, Node};
use crate::inputs;
use crate::reader::{Fields, Reader};
use crate::retry::{self, Limits};
use crate::roles;
use crate::step;

pub(crate) const FIELDS: [&str; 12] =
    ["version", "name", "inputs", "workspace", "budget", "concurrency", "timeout", "defaults", "env", "roles", "steps", "result"];
pub(crate) const WORKSPACE_FIELDS: [&str; 1] = ["mode"];
pub(crate) const BUDGET_FIELDS: [&str; 3] = ["cost_usd", "turns", "time"];
pub(crate) const CONCURRENCY_FIELDS: [&str; 3] = ["key", "limit", "policy"];
pub(crate) const DEFAULTS_FIELDS: [&str; 5] = ["timeout", "idle_timeout", "retry", "pool", "grace"];
pub(crate) const RESULT_FIELDS: [&str; 3] = ["branch", "push", "merge"];

/// The version of the language.
const VERSION: u64 = 1;
/// Most agent turns of a budget.
const MAX_TURNS: u64 = 1_000_000;
/// Longest template of a branch or a concurrency key, in bytes.
const MAX_TEMPLATE: usize = 1024;

/// Reads a definition; what could not be read is left out or replaced so that the rest can still be checked.
///
/// `None` when the text is no map at all, or has more steps than a plan may have.
pub(crate) fn read(reader: &mut Reader, root: &Node) -> Option<Plan> {
    let fields = reader.fields(root, "", &FIELDS)?;
    match fields.get("version") {
        Some(node) => version(reader, node),
        None => reader.missing(&fields, "", "version"),
    }
    let name = match fields.get("name") {
        Some(node) => reader.name(node, "/name"),
        None => {
            reader.missing(&fields, "", "name");
            None
        }
    };
    let inputs = fields.get("inputs").map(|n| inputs::read(reader, n)).unwrap_or_default();
    let workspace = fields.get("workspace").map(|n| workspace(reader, n)).unwrap_or_default();
    let budget = fields.get("budget").and_then(|n| budget(reader, n));
    let concurrency = fields.get("concurrency").and_then(|n| concurrency(reader, n));
    let timeout = fields.get("timeout").and_then(|n| reader.span(n, "/timeout"));
    let defaults = fields.get("defaults").map(|n| defaults(reader, n)).unwrap_or_default();
    let env = reader.env(fields.get("env"), "/env");
    let roles = fields.get("roles").map(|n| roles::read(reader, n)).unwrap_or_default();
    let result = fields.get("result").map(|n| result(reader, n)).unwrap_or_default();
    let steps = steps(reader, &fields, &defaults)?;
    let name = name.unwrap_or_else(|| Name::literal("unreadable"));
    Some(Plan { v: PLAN_VERSION, name, inputs, workspace, budget, concurrency, timeout, env, roles, steps, result })
}

fn version(reader: &mut Reader, node: &Node) {
    if reader.integer(node, "/version", 0, u64::MAX).is_some_and(|v| v != VERSION) {
        reader.error("unsupported_version", "/version", format!("this version reads definitions of version {VERSION}"), node.at);
    }
}

fn steps(reader: &mut Reader, fields: &Fields<'_>, defaults: &Limits) -> Option<Vec<hopyard_contract::plan::Step>> {
    let Some(node) = fields.get("steps") else {
        reader.missing(fields, "", "steps");
        return Some(Vec::new());
    };
    let Some(items) = reader.list(node, "/steps") else {
        // A complaint about the same field keeps the plan's own check of its length silent.
        return (node.kind != Kind::Broken).then(Vec::new);
    };
    if items.len() > MAX_STEPS {
        reader.error("length", "/steps", format!("a workflow has 1 to {MAX_STEPS} steps, not {}", items.len()), node.at);
        return None;
    }
    Some(items.iter().enumerate().map(|(i, item)| step::read(reader, item, i, defaults)).collect())
}

fn workspace(reader: &mut Reader, node: &Node) -> WorkspaceSpec {
    let Some(fields) = reader.fields(node, "/workspace", &WORKSPACE_FIELDS) else {
        return WorkspaceSpec::default();
    };
    let mode = fields.get("mode").and_then(|n| reader.word::<ModeWord>(n, "/workspace/mode", &ModeWord::ALL));
    WorkspaceSpec { mode: mode.map(|w| w.0).unwrap_or_default() }
}

struct ModeWord(WorkspaceMode);

impl ModeWord {
    const ALL: [&'static str; 3] = ["temporary", "persistent", "none"];
}

impl std::str::FromStr for ModeWord {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "temporary" => Ok(Self(WorkspaceMode::Temporary)),
            "persistent" => Ok(Self(WorkspaceMode::Persistent)),
            "none" => Ok(Self(WorkspaceMode::None)),
            _ => Err(()),
        }
    }
}

fn budget(reader: &mut Reader, node: &Node) -> Option<Budget> {
    let fields = reader.fields(node, "/budget", &BUDGET_FIELDS)?;
    let cost_microusd = fields.get("cost_usd").and_then(|node| {
        let text = reader.decimal(node, "/budget/cost_usd")?;
        money::parse_microusd(&text).map_err(|e| reader.error("money", "/budget/cost_usd", e.to_string(), node.at)).ok()
    });
    let turns = fields.get("turns").and_then(|n| reader.integer(n, "/budget/turns", 1, MAX_TURNS));
    let time = fields.get("time").and_then(|n| reader.span(n, "/budget/time"));
    Some(Budget { cost_microusd, turns, time })
}

fn concurrency(reader: &mut Reader, node: &Node) -> Option<Concurrency> {
    let fields = reader.fields(node, "/concurrency", &CONCURRENCY_FIELDS)?;
    let key = match fields.get("key") {
        Some(node) => template_text(reader, node, "/concurrency/key"),
        None => {
            reader.missing(&fields, "/concurrency", "key");
            None
        }
    };
    let limit = fields.get("limit").map_or(Some(1), |n| reader.integer(n, "/concurrency/limit", 1, 10_000));
    let policy = fields.get("policy").and_then(|n| reader.word::<PolicyWord>(n, "/concurrency/policy", &PolicyWord::ALL));
    Some(Concurrency { key: key?, limit: u32::try_from(limit?).ok()?, policy: policy.map(|w| w.0).unwrap_or_default() })
}

struct PolicyWord(ConcurrencyPolicy);

impl PolicyWord {
    const ALL: [&'static str; 2] = ["queue", "cancel_older"];
}

impl std::str::FromStr for PolicyWord {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "queue" => Ok(Self(ConcurrencyPolicy::Queue)),
            "cancel_older" => Ok(Self(ConcurrencyPolicy::CancelOlder)),
            _ => Err(()),
        }
    }
}

fn defaults(reader: &mut Reader, node: &Node) -> Limits {
    let fields = reader.fields(node, "/defaults", &DEFAULTS_FIELDS);
    fields.map(|f| retry::limits(reader, &f, "/defaults")).unwrap_or_default()
}

fn result(reader: &mut Reader, node: &Node) -> ResultSpec {
    let absent = ResultSpec::default();
    let Some(fields) = reader.fields(node, "/result", &RESULT_FIELDS) else {
        return absent;
    };
    let branch = fields.get("branch").and_then(|n| branch(reader, n));
    let push = fields.get("push").and_then(|n| reader.boolean(n, "/result/push"));
    let merge = fields.get("merge").and_then(|n| reader.text(n, "/result/merge"));
    ResultSpec {
        branch: branch.unwrap_or(absent.branch),
        push: push.unwrap_or(absent.push),
        merge: merge.map_or(absent.merge, str::to_owned),
    }
}

/// A branch's template; with a plain word in place of each expression it has to be a ref.
fn branch(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = template_text(reader, node, "/result/branch")?;
    if let Ok(parts) = template::parse(&text) {
        let sample: String = parts.iter().map(|p| if let Part::Text(text) = p { text } else { "x" }).collect();
        if let Err(detail) = repository::check_ref(&sample) {
            reader.error("ref", "/result/branch", detail, node.at);
        }
    }
    Some(text)
}

fn template_text(reader: &mut Reader, node: &Node, pointer: &str) -> Option<String> {
    let text = reader.text(node, pointer)?;
    if text.is_empty() || text.len() > MAX_TEMPLATE {
        reader.error("length", pointer, format!("the text has 1 to {MAX_TEMPLATE} bytes"), node.at);
        return None;
    }
    Some(text.to_owned())
}
