//! `hopyard workflows`: stored definitions, and files that may become some.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use hopyard_definition::Definition;
use serde_json::json;

use super::output::{self, Column, Format, field};
use super::{Api, repository};
use crate::exit::{Exit, Failure};

/// What to do with workflows.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkflowsCommand {
    /// Lists the stored workflows
    #[command(after_help = "Example:\n  hopyard workflows list -o json")]
    List,
    /// Shows one: its definition, or all of it with -o json
    #[command(after_help = "Example:\n  hopyard workflows get fix-bug > fix-bug.yaml")]
    Get {
        /// Name
        name: String,
    },
    /// Checks files without a server; prints every problem with file, line and column
    #[command(after_help = "Example:\n  hopyard workflows validate workflows/*.yaml")]
    Validate {
        /// Definitions
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Stores a definition under the name it carries
    #[command(after_help = "Example:\n  hopyard workflows apply -f fix-bug.yaml")]
    Apply {
        /// Definition; may be repeated
        #[arg(short, long = "file", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Compares a file with the stored definition; exit code 1 if they differ
    #[command(after_help = "Example:\n  hopyard workflows diff -f fix-bug.yaml")]
    Diff {
        /// Definition
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

const COLUMNS: [Column; 4] = [
    ("NAME", |v| field(v, "/name")),
    ("VERSION", |v| field(v, "/version")),
    ("STORED", |v| field(v, "/created_at")),
    ("HASH", |v| field(v, "/hash").chars().take(12).collect()),
];

/// Reads a definition; `file` is the name that problems carry.
///
/// # Errors
/// [`Failure::Usage`] with every problem.
pub fn parse(text: &str, file: &Path) -> Result<Definition> {
    hopyard_definition::parse(text, Some(&file.display().to_string())).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failure::usage(format!("the definition is not valid\n{}", lines.join("\n")))
    })
}

fn read(file: &Path) -> Result<(String, Definition)> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("the definition {} cannot be read: {e}", file.display())))?;
    let definition = parse(&text, file)?;
    Ok((text, definition))
}

/// Carries out a command.
///
/// # Errors
/// As the API's, and [`Failure::Usage`] for files that are no definitions.
pub async fn run(api: &Api, format: Format, command: &WorkflowsCommand) -> Result<Exit> {
    match command {
        WorkflowsCommand::List => {
            let page = api.get("/workflows", &[]).await?;
            output::bytes(output::page(format, &page, &COLUMNS).as_bytes());
        }
        WorkflowsCommand::Get { name } => {
            let view = api.get(&format!("/workflows/{name}"), &[]).await?;
            let text = output::document(format, &view).unwrap_or_else(|| field(&view, "/definition"));
            output::bytes(text.as_bytes());
        }
        WorkflowsCommand::Validate { files } => return Ok(validate(format, files)),
        WorkflowsCommand::Apply { files } => {
            // All are read before the first is stored: a broken one shall not leave half of them.
            let definitions = files.iter().map(|file| read(file).map(|read| (file, read))).collect::<Result<Vec<_>>>()?;
            for (file, (text, definition)) in definitions {
                let kind = if file.extension().is_some_and(|e| e == "json") { "application/json" } else { "application/yaml" };
                let view = api.put(&format!("/workflows/{}", definition.plan.name), kind, text).await?;
                let line = format!("{} version {} ({})\n", field(&view, "/name"), field(&view, "/version"), field(&view, "/hash"));
                output::bytes(output::document(format, &view).unwrap_or(line).as_bytes());
            }
        }
        WorkflowsCommand::Diff { file } => return diff(api, file).await,
    }
    Ok(Exit::Done)
}

fn validate(format: Format, files: &[PathBuf]) -> Exit {
    let mut exit = Exit::Done;
    for file in files {
        let (problems, name) = match std::fs::read_to_string(file) {
            Err(error) => (vec![json!({"file": file, "code": "unreadable", "detail": error.to_string()})], None),
            Ok(text) => match hopyard_definition::parse(&text, Some(&file.display().to_string())) {
                Ok(definition) => (Vec::new(), Some(definition.plan.name)),
                Err(errors) => (errors.iter().map(|e| json!({"error": e, "line": e.to_string()})).collect(), None),
            },
        };
        if !problems.is_empty() {
            exit = Exit::Usage;
        }
        let errors: Vec<_> = problems.iter().map(|p| p.get("error").unwrap_or(p).clone()).collect();
        let value = json!({"file": file, "valid": errors.is_empty(), "name": name, "errors": errors});
        let text = output::document(format, &value).unwrap_or_else(|| match &name {
            Some(name) => format!("{}: valid, workflow {name}\n", file.display()),
            None => problems
                .iter()
                .map(|p| {
                    p.get("line")
                        .and_then(|l| l.as_str())
                        .map_or_else(|| format!("{}: {}\n", file.display(), field(p, "/detail")), |l| format!("{l}\n"))
                })
                .collect(),
        });
        output::bytes(text.as_bytes());
    }
    exit
}

async fn diff(api: &Api, file: &Path) -> Result<Exit> {
    let (_, definition) = read(file)?;
    let stored = api.get(&format!("/workflows/{}", definition.plan.name), &[]).await?;
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let at = format!("version-{}", field(&stored, "/version"));
    std::fs::write(dir.path().join(&at), field(&stored, "/definition"))?;
    std::fs::write(dir.path().join("file"), &definition.source)?;
    let answer =
        repository::git_answer(dir.path(), &["diff", "--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--", &at, "file"])
            .await?;
    match answer.code {
        Some(0) => Ok(Exit::Done),
        Some(1) => {
            output::bytes(&answer.out);
            Ok(Exit::Failed)
        }
        _ => anyhow::bail!("git cannot compare the definitions: {}", answer.err),
    }
}
