//! Best of N: a step that several agents try at once, each in a workspace of its own; a check judges, and the best one's work goes on.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentSpec, Plan, Step, Work};
use crate::id::Name;
use crate::message::Restore;
use crate::problem::FieldError;
use crate::run::{RunState, StepState};
use crate::status::StepStatus;
use crate::usage::Usage;

/// Fewest and most variants of a step.
pub const VARIANTS: std::ops::RangeInclusive<usize> = 2..=8;

/// What several agents try at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BestOfSpec {
    /// Who tries it; of two that are as good, the one that stands first wins.
    pub variants: Vec<VariantSpec>,
    /// A script that runs in the workspace of each variant when its agent has completed; a variant passes if it ends with 0.
    pub check: String,
    /// Output of the check whose number decides between variants that pass: the highest wins, then the cheapest. Without it the
    /// cheapest does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The one that has won; it is not written in definitions, an executor gets it with its grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantSpec {
    /// Name among the variants of its step.
    pub name: Name,
    /// The agent.
    pub agent: AgentSpec,
}

/// The variant whose work a run goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chosen {
    /// Its name.
    pub name: Name,
    /// Its work.
    pub work: Restore,
    /// Its score, as its check wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
}

/// How a variant stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its name.
    pub name: &'a Name,
    /// The step of its agent.
    pub agent: &'a StepState,
    /// The step of its check.
    pub check: &'a StepState,
    /// What its check wrote as its score.
    pub score: Option<&'a str>,
    /// What both steps used, or what is played of them had.
    pub usage: Usage,
}

impl Standing<'_> {
    /// Whether its agent completed and its check holds.
    pub fn passes(&self) -> bool {
        [self.agent, self.check].iter().all(|step| step.status == StepStatus::Completed)
    }
}

impl BestOfSpec {
    /// How its variants stand in a run, in the order in which they were written.
    pub fn standings<'a>(&'a self, of: &Name, state: &'a RunState) -> Vec<Standing<'a>> {
        let standing = |variant: &'a VariantSpec| {
            let id = agent_id(of, &variant.name);
            let (agent, check) = (state.step(&id)?, state.step(&check_id(&id))?);
            let score = self.score.as_ref().and_then(|key| check.outputs.get(key)).map(String::as_str);
            let played = state.run.recordings.get(&agent.id).into_iter().flatten().map(|recording| recording.usage);
            let usage = played.fold(agent.usage.plus(&check.usage), |sum, usage| sum.plus(&usage));
            Some(Standing { name: &variant.name, agent, check, score, usage })
        };
        self.variants.iter().filter_map(standing).collect()
    }

    /// The best of those that pass: the highest score, a missing one being the lowest; then the lowest cost, an unknown one being
    /// the highest; then the first.
    pub fn winner<'s, 'a>(&self, standings: &'s [Standing<'a>]) -> Option<&'s Standing<'a>> {
        let score = |standing: &Standing<'_>| standing.score.and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| n.is_finite());
        let scored = |standing: &Standing<'_>| score(standing).unwrap_or(f64::NEG_INFINITY);
        let cost = |standing: &Standing<'_>| standing.usage.cost_microusd.unwrap_or(u64::MAX);
        let passing = standings.iter().filter(|standing| standing.passes());
        passing.min_by(|a, b| scored(b).total_cmp(&scored(a)).then(cost(a).cmp(&cost(b))))
    }

    /// Every template of it, with the field it stands in: the prompt is the same for all variants and stands beside them.
    pub(super) fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        self.variants
            .iter()
            .enumerate()
            .flat_map(|(index, variant)| variant.agent.templates().filter_map(move |(field, text)| Some((place(index, &field)?, text))))
    }

    /// What is wrong beyond templates, by pointers below `at`; `of` is its step.
    pub(super) fn check(&self, plan: &Plan, of: &Step, at: &str, errors: &mut Vec<FieldError>) {
        if !VARIANTS.contains(&self.variants.len()) {
            let detail = format!("a step has {} to {} variants", VARIANTS.start(), VARIANTS.end());
            errors.push(FieldError::new("length", format!("{at}/variants"), detail));
        }
        let written: BTreeSet<&str> = plan.steps.iter().filter(|step| step.variant.is_none()).map(|step| step.id.as_str()).collect();
        let mut names = BTreeSet::new();
        for (index, variant) in self.variants.iter().enumerate() {
            let mut of_agent = Vec::new();
            variant.agent.check("", &mut of_agent);
            errors.extend(of_agent.into_iter().filter_map(|error| {
                let pointer = format!("{at}/{}", place(index, error.pointer.trim_start_matches('/'))?);
                Some(FieldError { pointer, ..error })
            }));
            let at = format!("{at}/variants/{index}");
            let id = agent_id(&of.id, &variant.name);
            if !names.insert(&variant.name) {
                errors.push(FieldError::new(
                    "duplicate_variant",
                    format!("{at}/name"),
                    format!("the variant `{}` stands twice", variant.name),
                ));
            }
            for id in [check_id(&id), id] {
                if id.parse::<Name>().is_err() {
                    let detail = format!("its step would be called `{id}`, and a name has 1 to 64 characters");
                    errors.push(FieldError::new("length", format!("{at}/name"), detail));
                    break;
                } else if written.contains(id.as_str()) {
                    let detail = format!("its step would be called `{id}`, and there is one of that name");
                    errors.push(FieldError::new("duplicate_step", format!("{at}/name"), detail));
                }
            }
        }
        if self.check.trim().is_empty() || self.check.contains('\0') {
            errors.push(FieldError::new("length", format!("{at}/check"), "a script has text and no NUL characters"));
        }
    }
}

impl Plan {
    /// Adds the steps of all variants, each before the step that chooses among them; a plan that has them stays as it is.
    pub fn add_variants(&mut self) {
        let mut steps = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let there = |id: &Name| steps.iter().any(|earlier: &Step| earlier.variant.as_ref() == Some(id));
            match &step.work {
                Work::BestOf(spec) if !spec.variants.iter().any(|v| there(&name(agent_id(&step.id, &v.name)))) => {
                    let tries: Vec<Step> = spec.variants.iter().flat_map(|variant| tries(&step, spec, variant)).collect();
                    let needs = tries.iter().filter(|one| matches!(one.work, Work::Shell(_))).map(|one| one.id.clone());
                    let needs = step.needs.iter().cloned().chain(needs).collect();
                    steps.extend(tries);
                    // Time and tries are those of the variants; it chooses when all of them have ended.
                    steps.push(Step { needs, condition: None, timeout: None, idle_timeout: None, retry: None, ..step });
                }
                _ => steps.push(step),
            }
        }
        self.steps = steps;
    }
}

/// The agent of a variant, and its check.
fn tries(of: &Step, spec: &BestOfSpec, variant: &VariantSpec) -> [Step; 2] {
    let id = name(agent_id(&of.id, &variant.name));
    let agent = Step { id: id.clone(), variant: Some(id.clone()), work: Work::Agent(variant.agent.clone()), ..of.clone() };
    let check =
        Step { id: name(check_id(id.as_str())), needs: vec![id], condition: None, work: Work::Shell(spec.check.clone()), ..agent.clone() };
    [agent, check]
}

/// Where a field of the agent of a variant is written; `None` for what the first one has told of already.
fn place(index: usize, field: &str) -> Option<String> {
    let shared = ["prompt", "prompt_file", "with"].contains(&field) || field.starts_with("with/");
    match (shared, index) {
        (true, 0) => Some(field.to_owned()),
        (true, _) => None,
        (false, _) => Some(format!("variants/{index}/{field}")),
    }
}

/// Id of the step that a variant's agent works in; also the name of its workspace.
fn agent_id(of: &Name, variant: &Name) -> String {
    format!("{of}-{variant}")
}

fn check_id(agent: &str) -> String {
    format!("{agent}-check")
}

fn name(id: String) -> Name {
    id.parse().expect("the plan was checked: the names of its variants make names")
}
