//! The small, total language of `if:` and `${{ … }}`: paths, literals, `==`, `!=`, `&&`, `||`, `!` and three calls.

use serde_json::Value;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A string, number, boolean or null.
    Literal(Value),
    /// `inputs.x`, `run.id`, `workflow.name`, `repo.url`, `steps.a.status`, `steps.a.outputs.k`.
    Path(Vec<String>),
    /// `completed()`, `failed()` or `always()`.
    Call(Call),
    /// `!e`.
    Not(Box<Expr>),
    /// `a == b`.
    Eq(Box<Expr>, Box<Expr>),
    /// `a != b`.
    Ne(Box<Expr>, Box<Expr>),
    /// `a && b`.
    And(Box<Expr>, Box<Expr>),
    /// `a || b`.
    Or(Box<Expr>, Box<Expr>),
}

/// The calls about the steps that a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// All needed steps completed; also the condition of a step without one.
    Completed,
    /// At least one needed step failed.
    Failed,
    /// In any case, once all needed steps have ended.
    Always,
}

/// What an expression may look at.
pub trait Scope {
    /// The value of a path; `None` means null.
    fn path(&self, path: &[String]) -> Option<Value>;
    /// The value of a call.
    fn call(&self, call: Call) -> bool;
}

/// Longest expression text.
pub const MAX_LENGTH: usize = 2000;

/// Parses an expression.
///
/// # Errors
/// One sentence saying what is wrong and where.
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("an expression has at most {MAX_LENGTH} characters"));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expr = parser.or()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some(token) => Err(format!("`{}` is not expected here", token.text())),
    }
}

impl Expr {
    /// The value in a scope; total: what is absent is null.
    pub fn eval(&self, scope: &dyn Scope) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Path(path) => scope.path(path).unwrap_or(Value::Null),
            Self::Call(call) => Value::Bool(scope.call(*call)),
            Self::Not(e) => Value::Bool(!truthy(&e.eval(scope))),
            Self::Eq(a, b) => Value::Bool(equal(&a.eval(scope), &b.eval(scope))),
            Self::Ne(a, b) => Value::Bool(!equal(&a.eval(scope), &b.eval(scope))),
            Self::And(a, b) => Value::Bool(truthy(&a.eval(scope)) && truthy(&b.eval(scope))),
            Self::Or(a, b) => Value::Bool(truthy(&a.eval(scope)) || truthy(&b.eval(scope))),
        }
    }

    /// Whether the value counts as true: not null, false, 0 or the empty string.
    pub fn holds(&self, scope: &dyn Scope) -> bool {
        truthy(&self.eval(scope))
    }

    /// Every path in the expression.
    pub fn paths(&self) -> Vec<&[String]> {
        match self {
            Self::Path(path) => vec![path],
            Self::Literal(_) | Self::Call(_) => Vec::new(),
            Self::Not(e) => e.paths(),
            Self::Eq(a, b) | Self::Ne(a, b) | Self::And(a, b) | Self::Or(a, b) => [a.paths(), b.paths()].concat(),
        }
    }

    /// Whether one of the three calls stands in it.
    pub fn has_call(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Literal(_) | Self::Path(_) => false,
            Self::Not(e) => e.has_call(),
            Self::Eq(a, b) | Self::Ne(a, b) | Self::And(a, b) | Self::Or(a, b) => a.has_call() || b.has_call(),
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// Outputs are texts, so `steps.a.outputs.n == 3` compares the text with the number's text.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text)) => *text == number.to_string(),
        (Value::String(text), Value::Bool(value)) | (Value::Bool(value), Value::String(text)) => *text == value.to_string(),
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Literal(Value),
    Op(&'static str),
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Literal(value) => value.to_string(),
            Self::Op(op) => (*op).to_owned(),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    'next: while let Some(c) = rest.chars().next() {
        if c.is_ascii_whitespace() {
            rest = &rest[1..];
            continue;
        }
        for op in ["==", "!=", "&&", "||", "!", "(", ")"] {
            if let Some(after) = rest.strip_prefix(op) {
                tokens.push(Token::Op(op));
                rest = after;
                continue 'next;
            }
        }
        if c == '\'' || c == '"' {
            let end = rest[1..].find(c).ok_or_else(|| "a text has no closing quote".to_owned())?;
            tokens.push(Token::Literal(Value::String(rest[1..=end].to_owned())));
            rest = &rest[end + 2..];
            continue;
        }
        if c.is_ascii_digit() || c == '-' {
            let end = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |i| i + 1);
            let number = serde_json::from_str(&rest[..end]).map_err(|_| format!("`{}` is no number", &rest[..end]))?;
            tokens.push(Token::Literal(number));
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.')).unwrap_or(rest.len());
        if end == 0 {
            return Err(format!("`{c}` is not part of the expression language"));
        }
        tokens.push(match &rest[..end] {
            "true" => Token::Literal(Value::Bool(true)),
            "false" => Token::Literal(Value::Bool(false)),
            "null" => Token::Literal(Value::Null),
            word => Token::Word(word.to_owned()),
        });
        rest = &rest[end..];
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn take(&mut self, op: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Op(o)) if *o == op);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Expr, String> {
        let mut left = self.and()?;
        while self.take("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut left = self.equality()?;
        while self.take("&&") {
            left = Expr::And(Box::new(left), Box::new(self.equality()?));
        }
        Ok(left)
    }

    fn equality(&mut self) -> Result<Expr, String> {
        let left = self.unary()?;
        if self.take("==") {
            return Ok(Expr::Eq(Box::new(left), Box::new(self.unary()?)));
        }
        if self.take("!=") {
            return Ok(Expr::Ne(Box::new(left), Box::new(self.unary()?)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > 64 {
            return Err("the expression nests too deep".to_owned());
        }
        let expr = if self.take("!") {
            Expr::Not(Box::new(self.unary()?))
        } else if self.take("(") {
            let inner = self.or()?;
            if !self.take(")") {
                return Err("a closing parenthesis is missing".to_owned());
            }
            inner
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let token = self.tokens.get(self.at).cloned().ok_or_else(|| "the expression ends too early".to_owned())?;
        self.at += 1;
        match token {
            Token::Literal(value) => Ok(Expr::Literal(value)),
            Token::Word(word) if self.take("(") => {
                let call = match word.as_str() {
                    "completed" => Call::Completed,
                    "failed" => Call::Failed,
                    "always" => Call::Always,
                    _ => return Err(format!("`{word}()` is no call; there are completed(), failed() and always()")),
                };
                if self.take(")") { Ok(Expr::Call(call)) } else { Err(format!("`{word}()` takes no arguments")) }
            }
            Token::Word(word) => path(&word).map(Expr::Path),
            Token::Op(op) => Err(format!("`{op}` is not expected here")),
        }
    }
}

fn path(word: &str) -> Result<Vec<String>, String> {
    let parts: Vec<String> = word.split('.').map(str::to_owned).collect();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    let known = match names.as_slice() {
        ["inputs", name] => !name.is_empty(),
        ["run", "id"] | ["workflow", "name"] | ["repo", "url" | "ref" | "commit"] => true,
        ["steps", step, "status"] => !step.is_empty(),
        ["steps", step, "outputs", key] => !step.is_empty() && !key.is_empty(),
        _ => false,
    };
    if known {
        Ok(parts)
    } else {
        Err(format!(
            "`{word}` is no known path; there are inputs.NAME, run.id, workflow.name, repo.url, repo.ref, repo.commit, steps.ID.status and steps.ID.outputs.NAME"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;
    impl Scope for Fixed {
        fn path(&self, path: &[String]) -> Option<Value> {
            match path.join(".").as_str() {
                "inputs.n" => Some(json!(3)),
                "inputs.on" => Some(json!(true)),
                "steps.a.outputs.n" => Some(json!("3")),
                "steps.a.status" => Some(json!("completed")),
                _ => None,
            }
        }
        fn call(&self, call: Call) -> bool {
            call != Call::Failed
        }
    }

    #[test]
    fn expressions_have_one_value() {
        for (text, value) in [
            ("inputs.n == 3", true),
            ("inputs.n != 3", false),
            ("steps.a.outputs.n == 3 && inputs.on", true),
            ("steps.a.status == 'completed'", true),
            ("inputs.missing == null", true),
            ("!failed() && (completed() || false)", true),
            ("failed() || inputs.missing", false),
            ("always()", true),
            ("inputs.on == true", true),
            ("'' || 0", false),
        ] {
            assert_eq!(parse(text).unwrap().holds(&Fixed), value, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "a",
            "env.X",
            "inputs",
            "steps.a",
            "system('x')",
            "completed(1)",
            "1 +",
            "inputs.a ==",
            "(always()",
            "'open",
            "a;b",
            "inputs.x == 1 == 2",
            &"(".repeat(100),
            &"x".repeat(3000),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
