//! The `approval` of a step: what a person is asked before the run goes on.

use hopyard_contract::plan::ApprovalSpec;

use crate::document::Node;
use crate::reader::{Fields, Reader};

pub(crate) const FIELDS: [&str; 1] = ["prompt"];

/// Fields of a step that say something about a process, of which an approval has none.
const OF_PROCESSES: [&str; 5] = ["pool", "env", "idle_timeout", "grace", "retry"];

/// Reads an approval; `None` without a prompt. `step` are the fields beside it.
pub(crate) fn read(reader: &mut Reader, step: &Fields<'_>, node: &Node, pointer: &str) -> Option<ApprovalSpec> {
    for name in OF_PROCESSES {
        if let Some(entry) = step.entry(name) {
            let detail = format!("an approval has no process, so that `{name}` says nothing about it");
            reader.error("approval_field", &format!("{pointer}/{name}"), detail, entry.key_at);
        }
    }
    let pointer = format!("{pointer}/approval");
    let fields = reader.fields(node, &pointer, &FIELDS)?;
    if fields.get("prompt").is_none() {
        reader.missing(&fields, &pointer, "prompt");
    }
    let prompt = fields.get("prompt").and_then(|node| reader.text(node, &format!("{pointer}/prompt")).map(str::to_owned));
    Some(ApprovalSpec { prompt: prompt? })
}
