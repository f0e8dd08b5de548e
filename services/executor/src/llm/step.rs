//! The process of a question: it asks, checks the answer against its schema, and has it mended where it does not fit.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::ask::{Reply, ask};
use super::request::Role;
use super::{Answer, Order};

/// How often the model is asked to mend an answer.
const REPAIRS: u32 = 2;
/// Problems of an answer that are named.
const NAMED: usize = 10;

/// Carries out the order on the standard input; what the model says goes to the standard output. Whether there is an answer that
/// fits.
///
/// # Errors
/// When there is no order, or the answer cannot be kept.
pub async fn llm_main() -> Result<bool> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let order: Order = serde_json::from_str(&text).context("the standard input is no order: executors start this command")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let answer = carry_out(&http, &order).await?;
    keep(&order.answer, &answer)?;
    Ok(matches!(answer, Answer::Fits { .. }))
}

async fn carry_out(http: &reqwest::Client, order: &Order) -> Result<Answer> {
    let mut said = vec![(Role::User, order.prompt.clone())];
    for repairs in 0.. {
        let text = match ask(http, order, &said, tell, remark).await? {
            Reply::Text(text) => text,
            Reply::Refused(words) => {
                remark(&words);
                return Ok(Answer::Refused { words });
            }
        };
        tell("\n")?;
        let Some(schema) = &order.output else { return Ok(Answer::Fits { text, value: None, repairs }) };
        let errors = match check(schema, &text) {
            Ok(value) => return Ok(Answer::Fits { text, value: Some(value), repairs }),
            Err(errors) => errors,
        };
        let words = errors.join("\n");
        remark(&format!("the answer does not fit its schema:\n{words}"));
        if repairs == REPAIRS {
            return Ok(Answer::Misfits { text, errors, repairs });
        }
        // A model that said nothing has nothing to mend, and no wire takes an empty message.
        let said_before = if text.trim().is_empty() { "(nothing)".to_owned() } else { text };
        said.push((Role::Model, said_before));
        said.push((Role::User, format!("This does not fit the schema:\n{words}\nGive the whole answer again, mended, as JSON alone.")));
    }
    unreachable!("the last repair returns")
}

/// The answer as JSON that fits, or everything that is wrong with it.
fn check(schema: &Value, text: &str) -> Result<Value, Vec<String>> {
    let value: Value = serde_json::from_str(unfenced(text)).map_err(|error| vec![format!("it is no JSON: {error}")])?;
    let validator = jsonschema::validator_for(schema).map_err(|error| vec![format!("the schema cannot be used: {error}")])?;
    let errors: Vec<String> =
        validator.iter_errors(&value).take(NAMED).map(|error| format!("at `{}`: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

/// Models like to put a fence around JSON, whatever they are told.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else { return text };
    inner.split_once('\n').map_or(inner, |(_, rest)| rest).trim()
}

fn tell(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn remark(words: &str) {
    // Standard error may be closed; the answer counts all the same.
    writeln!(std::io::stderr().lock(), "{words}").unwrap_or_default();
}

/// Puts the answer where the executor looks for it, whole or not at all.
fn keep(file: &Path, answer: &Answer) -> Result<()> {
    let aside = file.with_extension("part");
    std::fs::write(&aside, serde_json::to_vec(answer)?).with_context(|| format!("{} cannot be written", aside.display()))?;
    std::fs::rename(&aside, file).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_fits_its_schema_or_everything_wrong_is_named() {
        let schema =
            json!({"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}, "n": {"type": "integer"}}});
        assert_eq!(check(&schema, "```json\n{\"title\": \"x\"}\n```"), Ok(json!({"title": "x"})));
        let wrong = check(&schema, "{\"n\": \"many\"}").unwrap_err();
        assert!(wrong.len() == 2 && wrong.iter().any(|error| error.contains("/n")), "{wrong:?}");
        assert!(check(&schema, "Sure! {").unwrap_err()[0].starts_with("it is no JSON"));
    }
}
