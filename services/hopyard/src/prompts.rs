//! `hopyard prompts`: prompt files, read, rendered and tested without a server or a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Subcommand;
use hopyard_contract::FieldError;
use hopyard_definition::{Loader, Prompt, PromptTest, parse_prompt};
use serde_json::{Value, json};

use crate::client::inputs;
use crate::client::output::{self, Format};
use crate::exit::{Exit, Failure};

/// What can be done with prompt files.
#[derive(Debug, Subcommand)]
pub enum PromptsCommand {
    /// Says what a prompt takes and gives; prints every problem with file and line
    #[command(after_help = "Example:\n  hopyard prompts parse prompts/*.prompt.md --json")]
    Parse {
        /// Prompt files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prints the text that a model would get
    #[command(after_help = "Example:\n  hopyard prompts render prompts/fix.prompt.md -i task='off by one' -i files='[\"a.rs\"]'")]
    Render {
        /// Prompt file
        file: PathBuf,
        /// A value, or a file of values
        #[arg(short, long = "input", value_name = "K=V|@FILE")]
        inputs: Vec<String>,
    },
    /// Carries out the `tests` of prompts; exit code 1 if one fails
    #[command(after_help = "Example:\n  hopyard prompts test prompts/*.prompt.md")]
    Test {
        /// Prompt files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Carries out a command.
///
/// # Errors
/// [`Failure::Usage`] for files that cannot be read, or are no prompts where one is wanted.
pub fn run(format: Format, command: &PromptsCommand) -> Result<Exit> {
    match command {
        PromptsCommand::Parse { files } => files.iter().try_fold(Exit::Done, |exit, file| Ok(worse(exit, parse(format, file)?))),
        PromptsCommand::Render { file, inputs } => render(file, inputs),
        PromptsCommand::Test { files } => files.iter().try_fold(Exit::Done, |exit, file| Ok(worse(exit, test(format, file)?))),
    }
}

fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}

fn read(file: &Path) -> Result<std::result::Result<Prompt, Vec<FieldError>>> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(parse_prompt(&text, &file.display().to_string()))
}

fn sound(file: &Path) -> Result<Prompt> {
    read(file)?.map_err(|errors| Failure::usage(sentences(&errors)))
}

fn sentences(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Includes come from beside the prompt, as an executor takes them from the workspace.
fn loader() -> Loader {
    Arc::new(|path| std::fs::read_to_string(path).ok())
}

fn parse(format: Format, file: &Path) -> Result<Exit> {
    let (value, text, exit) = match read(file)? {
        Ok(prompt) => {
            let names = |schema: &Value| {
                schema["properties"].as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default()
            };
            let value = json!({
                "file": file, "valid": true, "name": prompt.name, "description": prompt.description, "type": prompt.kind, "model": prompt.model,
                "max_turns": prompt.max_turns, "tools": prompt.tools, "inputs": prompt.inputs, "outputs": prompt.outputs,
                "tests": prompt.tests.len(), "errors": [],
            });
            let given = prompt.outputs.as_ref().map_or_else(|| "a text".to_owned(), names);
            (value, format!("{}: valid; takes {}; gives {given}\n", file.display(), names(&prompt.inputs)), Exit::Done)
        }
        Err(errors) => (json!({ "file": file, "valid": false, "errors": errors }), format!("{}\n", sentences(&errors)), Exit::Usage),
    };
    output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
    Ok(exit)
}

fn render(file: &Path, given: &[String]) -> Result<Exit> {
    let prompt = sound(file)?;
    let types = prompt.inputs["properties"].as_object();
    let values = inputs::inputs(given, types)?;
    let text = prompt.render(&values, loader()).map_err(|errors| Failure::usage(sentences(&errors)))?;
    output::bytes(text.as_bytes());
    Ok(Exit::Done)
}

fn test(format: Format, file: &Path) -> Result<Exit> {
    let prompt = sound(file)?;
    let results: Vec<(&PromptTest, Option<String>)> = prompt.tests.iter().map(|test| (test, fault(&prompt, test))).collect();
    let failed = results.iter().filter(|(_, fault)| fault.is_some()).count();
    let tests: Vec<Value> =
        results.iter().map(|(test, fault)| json!({ "name": test.name, "passed": fault.is_none(), "fault": fault })).collect();
    let value = json!({ "file": file, "passed": results.len() - failed, "failed": failed, "tests": tests });
    let line = |(test, fault): &(&PromptTest, Option<String>)| match fault {
        None => format!("{}: {}: passed\n", file.display(), test.name),
        Some(fault) => format!("{}: {}: failed: {fault}\n", file.display(), test.name),
    };
    let text = if results.is_empty() { format!("{}: it has no tests\n", file.display()) } else { results.iter().map(line).collect() };
    output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

/// What is wrong with a test, if it fails.
fn fault(prompt: &Prompt, test: &PromptTest) -> Option<String> {
    match (prompt.render(&test.inputs, loader()), test.fails) {
        (Ok(_), true) => Some("it has to be refused, and was rendered".to_owned()),
        (Ok(text), false) => {
            let missing = test.contains.iter().find(|wanted| !text.contains(wanted.as_str()));
            missing.map(|wanted| format!("the text does not contain `{wanted}`"))
        }
        (Err(_), true) => None,
        (Err(errors), false) => Some(sentences(&errors)),
    }
}
