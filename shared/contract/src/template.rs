//! Texts with `${{ … }}` in them, parsed once and rendered in a scope.

use serde_json::Value;

use crate::condition::{self, Expr, Scope};

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as it stands.
    Text(String),
    /// An expression whose value takes its place.
    Expr(Expr),
}

/// Splits a text into its parts.
///
/// # Errors
/// One sentence: an expression that is not closed or not valid.
pub fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        let end = rest[start..].find("}}").ok_or_else(|| "`${{` has no closing `}}`".to_owned())?;
        parts.push(Part::Expr(condition::parse(&rest[start + 3..start + end])?));
        rest = &rest[start + end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Renders a text in a scope; a text that does not parse is kept as it is, since definitions are checked when they are stored.
pub fn render(text: &str, scope: &dyn Scope) -> String {
    let Ok(parts) = parse(text) else { return text.to_owned() };
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Expr(expr) => match expr.eval(scope) {
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string(),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run;
    impl Scope for Run {
        fn path(&self, path: &[String]) -> Option<Value> {
            (path == ["run", "id"]).then(|| Value::from("r1"))
        }
        fn call(&self, _: condition::Call) -> bool {
            false
        }
    }

    #[test]
    fn values_take_the_place_of_expressions() {
        assert_eq!(render("a/${{ run.id }}/${{inputs.x}}b", &Run), "a/r1/b");
        assert_eq!(render("no expression $x ${y}", &Run), "no expression $x ${y}");
        assert!(parse("${{ run.id").is_err());
        assert!(parse("${{ nope }}").is_err());
    }
}
