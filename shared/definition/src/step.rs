//! One step of a definition.

use hopyard_contract::Name;
use hopyard_contract::plan::{MAX_STEPS, Step, Work};
use hopyard_contract::status::StepKind;

use crate::document::{Kind, Node};
use crate::reader::{Fields, Reader};
use crate::retry::{self, Limits};

pub(crate) const FIELDS: [&str; 15] = [
    "id",
    "needs",
    "if",
    "pool",
    "env",
    "timeout",
    "idle_timeout",
    "grace",
    "retry",
    "shell",
    "llm",
    "agent",
    "best_of",
    "approval",
    "workflow",
];

/// What a step of a definition may do, in the order in which problems name them.
const KINDS: [StepKind; 6] = [StepKind::Shell, StepKind::Llm, StepKind::Agent, StepKind::BestOf, StepKind::Approval, StepKind::Workflow];

/// Stands for a script that could not be read, so that the rest of the graph is still checked.
const PLACEHOLDER: &str = ":";

/// Reads the step at `/steps/<index>`; there is always one, since others may need it.
pub(crate) fn read(reader: &mut Reader, node: &Node, index: usize, defaults: &Limits) -> Step {
    let pointer = format!("/steps/{index}");
    let Some(fields) = reader.fields(node, &pointer, &FIELDS) else {
        return bare(index);
    };
    let id = match fields.get("id") {
        Some(node) => reader.name(node, &format!("{pointer}/id")),
        None => {
            reader.missing(&fields, &pointer, "id");
            None
        }
    };
    let needs = fields.get("needs").map(|n| needs(reader, n, &format!("{pointer}/needs"))).unwrap_or_default();
    let condition = fields.get("if").and_then(|n| reader.scalar(n, &format!("{pointer}/if")));
    let env = reader.env(fields.get("env"), &format!("{pointer}/env"));
    // Defaults are those of processes: an approval is not answered within the time of a compilation.
    let own = retry::limits(reader, &fields, &pointer);
    let limits = if fields.get("approval").is_some() { own } else { own.or(defaults) };
    let Limits { timeout, idle_timeout, grace, retry, pool } = limits;
    let work = work(reader, &fields, &pointer);
    let bare = bare(index);
    Step {
        id: id.unwrap_or(bare.id),
        needs,
        condition,
        pool,
        env,
        timeout,
        idle_timeout,
        grace,
        retry,
        variant: None,
        work: work.unwrap_or(bare.work),
    }
}

fn bare(index: usize) -> Step {
    // Longer than any name in a definition, so it never collides with one that was read.
    let id: Name = format!("__unreadable_{index}_{}", "_".repeat(40)).parse().expect("at most 64 allowed characters");
    let work = Work::Shell(PLACEHOLDER.to_owned());
    Step {
        id,
        needs: Vec::new(),
        condition: None,
        pool: None,
        env: Default::default(),
        timeout: None,
        idle_timeout: None,
        grace: None,
        retry: None,
        variant: None,
        work,
    }
}

/// A list of step ids, or one id as a text.
fn needs(reader: &mut Reader, node: &Node, pointer: &str) -> Vec<Name> {
    if let Kind::Text(_) = node.kind {
        return reader.name(node, pointer).into_iter().collect();
    }
    let Some(items) = reader.list(node, pointer) else {
        return Vec::new();
    };
    if items.len() > MAX_STEPS {
        reader.error("length", pointer, format!("a step needs at most {MAX_STEPS} others"), node.at);
        return Vec::new();
    }
    items.iter().enumerate().filter_map(|(i, item)| reader.name(item, &format!("{pointer}/{i}"))).collect()
}

/// Exactly one of the kinds, and only those that this version carries out.
fn work(reader: &mut Reader, fields: &Fields<'_>, pointer: &str) -> Option<Work> {
    let kinds: Vec<_> = KINDS.iter().filter_map(|k| Some((*k, fields.entry(k.as_str())?))).collect();
    match kinds.as_slice() {
        [(StepKind::Shell, entry)] => {
            let pointer = format!("{pointer}/shell");
            let script = reader.text(&entry.value, &pointer)?;
            if script.trim().is_empty() {
                reader.error("length", &pointer, "a script has text", entry.value.at);
            }
            Some(Work::Shell(script.to_owned()))
        }
        [(StepKind::Agent, entry)] => crate::agent::read(reader, &entry.value, &format!("{pointer}/agent")).map(Work::Agent),
        [(StepKind::BestOf, entry)] => crate::best_of::read(reader, &entry.value, &format!("{pointer}/best_of")).map(Work::BestOf),
        [(StepKind::Llm, entry)] => crate::llm::read(reader, &entry.value, &format!("{pointer}/llm")).map(Work::Llm),
        [(StepKind::Approval, entry)] => crate::approval::read(reader, fields, &entry.value, pointer).map(Work::Approval),
        [(kind, entry)] => {
            let detail = format!(
                "`{kind}` steps are not carried out by this version; it runs `shell`, `agent`, `llm`, `best_of` and `approval` steps"
            );
            reader.error("unsupported_step", &format!("{pointer}/{kind}"), detail, entry.key_at);
            None
        }
        [] => {
            reader.error("step_kind", pointer, format!("a step has exactly one of {}; here is none", words()), fields.at());
            None
        }
        [_, (_, second), ..] => {
            let found: Vec<_> = kinds.iter().map(|(k, _)| k.as_str()).collect();
            let last = kinds.iter().map(|(_, e)| e.key_at).max().unwrap_or(second.key_at);
            reader.error("step_kind", pointer, format!("a step has exactly one of {}; here are {}", words(), found.join(" and ")), last);
            None
        }
    }
}

fn words() -> String {
    KINDS.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ")
}
