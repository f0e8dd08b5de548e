//! From a prompt and values to a text.

use std::borrow::Cow;
use std::sync::Arc;

use hopyard_contract::json::escape;
use hopyard_contract::problem::FieldError;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use super::{Parts, Prompt};

/// Gives the text of a file that a prompt includes or extends, by its path; `None` when there is none.
pub type Loader = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Steps that a template may take: more than any prompt needs, and an end to every loop.
const FUEL: u64 = 1_000_000;
/// Name under which a template finds the schema of the answer, as a text.
const OUTPUT_SCHEMA: &str = "output_schema";

impl Prompt {
    /// The values of texts as they come from a workflow: what its type says is no text is read as JSON.
    pub fn values_of<'t>(&self, texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Map<String, Value> {
        let typed = |name: &str, text: &str| match self.inputs["properties"][name]["type"].as_str() {
            Some("string") => Value::from(text),
            _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        texts.into_iter().map(|(name, text)| (name.to_owned(), typed(name, text))).collect()
    }

    /// Whether it knows an input of this name.
    pub fn has_input(&self, name: &str) -> bool {
        self.inputs["properties"].get(name).is_some()
    }

    /// The text for these values. An input that may be left out is undefined where it is, which `is defined` tells.
    ///
    /// # Errors
    /// Values that do not fit their types (`invalid_input`, by pointers), and whatever is wrong in a template, with file and line.
    pub fn render(&self, values: &Map<String, Value>, load: Loader) -> Result<String, Vec<FieldError>> {
        let all = Value::Object(values.clone());
        let validator = jsonschema::validator_for(&self.inputs).expect("the schema is made here");
        let wrong = |error: jsonschema::ValidationError<'_>| {
            let pointer = match error.instance_path().to_string() {
                at if at.is_empty() => String::new(),
                at => at.split('/').map(escape).collect::<Vec<_>>().join("/"),
            };
            let mut told = FieldError::new("invalid_input", pointer, error.to_string());
            told.file = Some(self.file.clone());
            told
        };
        let errors: Vec<FieldError> = validator.iter_errors(&all).map(wrong).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let environment = self.environment(load);
        let mut context = values.clone();
        if let Some(outputs) = &self.outputs {
            context.insert(OUTPUT_SCHEMA.to_owned(), format!("{outputs:#}").into());
        }
        let undefined = self.inputs["properties"].as_object().into_iter().flatten().filter(|(name, _)| !values.contains_key(*name));
        let missing: Vec<String> = undefined.map(|(name, _)| name.clone()).collect();
        let known = context.iter().map(|(name, value)| (name.clone(), minijinja::Value::from(Serde(value))));
        let known = minijinja::Value::from_pairs(known.chain(missing.into_iter().map(|name| (name, minijinja::Value::UNDEFINED))));
        let rendered = environment.render_named_str(&self.file, &self.source, known);
        rendered.map_err(|error| vec![self.told(&error)])
    }

    /// What can be found out without values: whether the template is one.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        let environment = self.environment(Arc::new(|_| None));
        environment.template_from_named_str(&self.file, &self.source).map(drop).map_err(|error| self.told(&error))
    }

    fn environment(&self, load: Loader) -> Environment<'static> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // It is a text for a model, whatever its file is called.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_path_join_callback(|name, parent| Cow::Owned(beside(parent, name)));
        environment.set_loader(move |path| match load(path) {
            None => Ok(None),
            Some(text) => {
                let parts = Parts::of(&text).map_err(|error| Error::new(ErrorKind::SyntaxError, error.detail))?;
                Ok(Some(parts.template()))
            }
        });
        environment
    }

    /// The innermost problem: that of the file where it is, and not of those that include it.
    fn told(&self, error: &Error) -> FieldError {
        let mut inner = error;
        let mut source = std::error::Error::source(error);
        while let Some(next) = source {
            if let Some(next) = next.downcast_ref::<Error>() {
                inner = next;
            }
            source = next.source();
        }
        let detail = inner.detail().map_or_else(|| inner.kind().to_string(), |detail| format!("{}: {detail}", inner.kind()));
        let mut told = FieldError::new("template", "", detail);
        told.file = Some(inner.name().unwrap_or(&self.file).to_owned());
        told.line = inner.line().and_then(|line| u32::try_from(line).ok());
        told
    }
}

/// The path of a file beside another one; it may lead out of any folder, which its loader has to forbid.
fn beside(parent: &str, name: &str) -> String {
    let mut parts: Vec<&str> = parent.split('/').collect();
    parts.pop();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
