//! The `best_of` of a step: one task that several agents try, and how the best of them is found.

use hopyard_contract::plan::{BestOfSpec, VariantSpec};

use crate::agent;
use crate::document::Node;
use crate::prompt_file::{self, Prompt};
use crate::reader::Reader;

pub(crate) const FIELDS: [&str; 6] = ["prompt", "prompt_file", "with", "variants", "check", "score"];

/// Fields of a variant: those of an agent without the prompt, which is the same for all.
pub(crate) const VARIANT_FIELDS: [&str; 12] =
    ["name", "cli", "role", "model", "max_turns", "permissions", "resume", "gateway", "script", "command", "resume_args", "map"];

/// Reads a `best_of`; `None` without a check or a variant.
pub(crate) fn read(reader: &mut Reader, node: &Node, pointer: &str) -> Option<BestOfSpec> {
    let fields = reader.fields(node, pointer, &FIELDS)?;
    for name in ["variants", "check"] {
        if fields.get(name).is_none() {
            reader.missing(&fields, pointer, name);
        }
    }
    let at = |name: &str| format!("{pointer}/{name}");
    let prompt = prompt_file::read(reader, &fields, pointer);
    let items = fields.get("variants").and_then(|node| reader.list(node, &at("variants"))).unwrap_or_default();
    let mut variant = |(index, item): (usize, &Node)| variant(reader, item, &format!("{}/{index}", at("variants")), prompt.clone());
    let variants: Vec<_> = items.iter().enumerate().map(&mut variant).collect();
    let check = fields.get("check").and_then(|node| reader.text(node, &at("check")).map(str::to_owned));
    let score = fields.get("score").and_then(|node| reader.text(node, &at("score")).map(str::to_owned));
    // All or none: what is left of a list would have other positions.
    let variants = variants.into_iter().collect::<Option<Vec<_>>>()?;
    Some(BestOfSpec { variants, check: check?, score, chosen: None }).filter(|_| fields.get("variants").is_some())
}

fn variant(reader: &mut Reader, node: &Node, pointer: &str, prompt: Option<Prompt>) -> Option<VariantSpec> {
    let fields = reader.fields(node, pointer, &VARIANT_FIELDS)?;
    let name = match fields.get("name") {
        Some(node) => reader.name(node, &format!("{pointer}/name")),
        None => {
            reader.missing(&fields, pointer, "name");
            None
        }
    };
    let agent = agent::of(reader, &fields, pointer, prompt);
    Some(VariantSpec { name: name?, agent: agent? })
}
