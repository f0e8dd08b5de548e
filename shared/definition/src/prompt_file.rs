//! The prompt of a step: a text, or a file of the repository with what it gets.

use hopyard_contract::plan::PromptFile;

use crate::reader::{Fields, Reader};

/// A text, or nothing and a file.
pub(crate) type Prompt = (String, Option<PromptFile>);

/// Reads `prompt`, or `prompt_file` and `with`; `None` without either, which is complained about.
pub(crate) fn read(reader: &mut Reader, fields: &Fields<'_>, pointer: &str) -> Option<Prompt> {
    let path = fields.get("prompt_file").map(|node| reader.text(node, &format!("{pointer}/prompt_file")).unwrap_or_default().to_owned());
    let with = fields.entry("with");
    if let Some(entry) = with.filter(|_| path.is_none()) {
        reader.error("exclusive", &format!("{pointer}/with"), "`with` belongs to a `prompt_file`", entry.key_at);
    }
    if path.is_none() && fields.get("prompt").is_none() {
        reader.missing(fields, pointer, "prompt");
        return None;
    }
    let prompt = fields.get("prompt").map(|node| reader.text(node, &format!("{pointer}/prompt")).map(str::to_owned));
    let with = reader.env(with.map(|entry| &entry.value), &format!("{pointer}/with"));
    let file = path.map(|path| PromptFile { path, with, inputs: Default::default() });
    match prompt {
        Some(text) => Some((text?, file)),
        None => Some((String::new(), file)),
    }
}
