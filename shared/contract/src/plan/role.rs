//! Roles: agents that a workflow describes once, and that its steps take by name.

use std::collections::BTreeMap;

use super::{AgentSpec, Plan, Work};
use crate::json::escape;
use crate::problem::FieldError;
use crate::template::{self, Part};

/// Most roles of a workflow.
const MAX_ROLES: usize = 100;

/// The roles of a workflow by their names; the prompt of one stands before those of the steps that take it.
pub type Roles = BTreeMap<String, AgentSpec>;

impl Plan {
    /// Every agent that a definition names in its steps, with its pointer.
    pub fn agents(&self) -> impl Iterator<Item = (String, &AgentSpec)> {
        // Steps of variants stand between those that were written.
        let written = self.steps.iter().filter(|step| step.variant.is_none());
        written.enumerate().flat_map(|(index, step)| match &step.work {
            Work::Agent(agent) => vec![(format!("/steps/{index}/agent"), agent)],
            Work::BestOf(best_of) => {
                let at = |variant: usize| format!("/steps/{index}/best_of/variants/{variant}");
                best_of.variants.iter().enumerate().map(|(variant, spec)| (at(variant), &spec.agent)).collect()
            }
            _ => Vec::new(),
        })
    }

    /// The names of its roles, for the end of a sentence.
    pub fn known_roles(&self) -> String {
        let names: Vec<&str> = self.roles.keys().take(10).map(String::as_str).collect();
        let more = if self.roles.len() > names.len() { " and more" } else { "" };
        if names.is_empty() { "; the workflow has no `roles`".to_owned() } else { format!("; there are {}{more}", names.join(", ")) }
    }
}

impl AgentSpec {
    /// The agent that a step gets in this role: what the step says itself counts, but what the agent is and may do is the role's.
    pub fn in_role(&self, role: &Self) -> Self {
        let prompt = if role.prompt.is_empty() { self.prompt.clone() } else { format!("{}\n\n{}", role.prompt, self.prompt) };
        let either = |own: &Option<String>, roles: &Option<String>| own.clone().or_else(|| roles.clone());
        Self {
            prompt,
            role: self.role.clone(),
            prompt_file: self.prompt_file.clone(),
            model: either(&self.model, &role.model),
            max_turns: either(&self.max_turns, &role.max_turns),
            resume: self.resume,
            gateway: self.gateway.or(role.gateway),
            script: either(&self.script, &role.script),
            ..role.clone()
        }
    }
}

/// What is wrong with the roles of a plan, and with the steps that take one.
pub(super) fn check(plan: &Plan, errors: &mut Vec<FieldError>) {
    if plan.roles.len() > MAX_ROLES {
        errors.push(FieldError::new("length", "/roles", format!("a workflow has at most {MAX_ROLES} roles")));
    }
    for (name, role) in &plan.roles {
        let at = format!("/roles/{}", escape(name));
        if !is_name(name) {
            let detail = "a role is named by 1 to 64 letters, digits, `_` and `-`";
            errors.push(FieldError::new("pattern", at.clone(), detail));
        }
        role.check_program(&at, errors);
    }
    for (at, agent) in plan.agents() {
        let Some(role) = &agent.role else { continue };
        let at = format!("{at}/role");
        match template::parse(role).as_deref() {
            Ok([] | [Part::Text(_)]) if !plan.roles.contains_key(role) => {
                errors.push(FieldError::new("unknown_role", at, format!("there is no role `{role}`{}", plan.known_roles())));
            }
            Ok(parts) => {
                let expressions = parts.iter().filter_map(|part| if let Part::Expr(expr) = part { Some(expr) } else { None });
                if expressions.flat_map(|expr| expr.paths()).any(|path| path.first().is_none_or(|first| first != "inputs")) {
                    let detail = "a role is known when a run is submitted, so that only `inputs` can name it";
                    errors.push(FieldError::new("expression", at, detail));
                }
            }
            // Told with the other templates.
            Err(_) => {}
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}
