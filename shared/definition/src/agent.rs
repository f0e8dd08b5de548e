//! The `agent` of a step: which program works, what it is told, and what it may do by itself.

use std::collections::BTreeMap;

use hopyard_contract::plan::{AGENT_MAP, AgentSpec, GatewayUse, Permissions};
use serde_json_path::JsonPath;

use crate::document::Node;
use crate::prompt_file::{self, Prompt};
use crate::reader::{Fields, Reader};
use crate::suggest::short;

pub(crate) const FIELDS: [&str; 14] = [
    "cli",
    "role",
    "prompt",
    "prompt_file",
    "with",
    "model",
    "max_turns",
    "permissions",
    "resume",
    "gateway",
    "script",
    "command",
    "resume_args",
    "map",
];

/// What an agent is and may do, which a step with a role leaves to it.
const OF_THE_ROLE: [&str; 4] = ["permissions", "command", "resume_args", "map"];

/// Reads an agent; `None` without a program or a prompt, which no other field can stand in for.
pub(crate) fn read(reader: &mut Reader, node: &Node, pointer: &str) -> Option<AgentSpec> {
    let fields = reader.fields(node, pointer, &FIELDS)?;
    let prompt = prompt_file::read(reader, &fields, pointer);
    of(reader, &fields, pointer, prompt)
}

/// Reads what an agent has beside its prompt.
pub(crate) fn of(reader: &mut Reader, fields: &Fields<'_>, pointer: &str, prompt: Option<Prompt>) -> Option<AgentSpec> {
    let at = |name: &str| format!("{pointer}/{name}");
    let role = fields.get("role").map(|node| reader.text(node, &at("role")).unwrap_or_default().to_owned());
    if fields.get("cli").is_none() && role.is_none() {
        reader.missing(fields, pointer, "cli");
    }
    for entry in OF_THE_ROLE.iter().filter_map(|name| fields.entry(name)).filter(|_| role.is_some()) {
        let detail = format!("`{}` is the role's to say", entry.key);
        reader.error("exclusive", &at(&entry.key), detail, entry.key_at);
    }
    let permitted: Vec<&str> = Permissions::ALL.iter().map(|word| word.as_str()).collect();
    let uses: Vec<&str> = GatewayUse::ALL.iter().map(|word| word.as_str()).collect();
    let cli = fields.get("cli").and_then(|node| reader.text(node, &at("cli")).map(str::to_owned));
    let model = fields.get("model").and_then(|node| reader.text(node, &at("model")).map(str::to_owned));
    let max_turns = fields.get("max_turns").and_then(|node| reader.scalar(node, &at("max_turns")));
    let permissions = fields.get("permissions").and_then(|node| reader.word::<Permissions>(node, &at("permissions"), &permitted));
    let resume = fields.get("resume").and_then(|node| reader.boolean(node, &at("resume"))).unwrap_or(false);
    let gateway = fields.get("gateway").and_then(|node| reader.word::<GatewayUse>(node, &at("gateway"), &uses));
    let script = fields.get("script").and_then(|node| reader.text(node, &at("script")).map(str::to_owned));
    let command = fields.get("command").map(|node| reader.texts(node, &at("command"))).unwrap_or_default();
    let resume_args = fields.get("resume_args").map(|node| reader.texts(node, &at("resume_args"))).unwrap_or_default();
    let map = fields.get("map").map(|node| paths(reader, node, &at("map"))).unwrap_or_default();
    let (prompt, prompt_file) = prompt?;
    let cli = if role.is_some() && fields.get("cli").is_none() { String::new() } else { cli? };
    Some(AgentSpec {
        cli,
        role,
        prompt,
        prompt_file,
        model,
        max_turns,
        permissions: permissions.unwrap_or_default(),
        resume,
        gateway,
        script,
        command,
        resume_args,
        map,
    })
}

/// JSONPaths by what they lead to.
fn paths(reader: &mut Reader, node: &Node, pointer: &str) -> BTreeMap<String, String> {
    let Some(fields) = reader.fields(node, pointer, &AGENT_MAP) else { return BTreeMap::new() };
    let mut paths = BTreeMap::new();
    for name in AGENT_MAP {
        let Some(node) = fields.get(name) else { continue };
        let pointer = format!("{pointer}/{name}");
        let Some(text) = reader.text(node, &pointer) else { continue };
        if let Err(error) = JsonPath::parse(text) {
            reader.error("jsonpath", &pointer, format!("`{}` is no JSONPath: {error}", short(text)), node.at);
        }
        paths.insert(name.to_owned(), text.to_owned());
    }
    paths
}
