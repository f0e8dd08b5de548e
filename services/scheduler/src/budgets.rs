//! Budgets that runs share: which of them a run counts against, and until when.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use hopyard_contract::Name;
use hopyard_contract::message::BudgetScope;
use hopyard_runtime::config::{BudgetSettings, OnSpent};

/// The shared budgets of a deployment.
#[derive(Clone, Debug, Default)]
pub struct Budgets(BudgetSettings);

/// One that a run counts against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Its row: day, namespace, scope and name.
    pub(crate) key: String,
    pub(crate) scope: BudgetScope,
    /// In millionths of a dollar.
    pub(crate) limit: u64,
}

impl Budgets {
    /// Those of the settings.
    pub fn new(settings: BudgetSettings) -> Self {
        Self(settings)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.namespaces.is_empty() && self.0.workflows.is_empty() && self.0.repositories.is_empty()
    }

    /// Whether new runs are refused when the money of their day is spent.
    pub(crate) fn reject(&self) -> bool {
        self.0.on_spent == OnSpent::Reject
    }

    /// Those that a run counts against today.
    pub(crate) fn of(&self, namespace: &Name, workflow: &Name, repository: Option<&str>, now: DateTime<Utc>) -> Vec<Shared> {
        let day = now.format("%Y-%m-%d");
        let tables = [
            (BudgetScope::Namespace, &self.0.namespaces, Some(namespace.as_str())),
            (BudgetScope::Workflow, &self.0.workflows, Some(workflow.as_str())),
            (BudgetScope::Repository, &self.0.repositories, repository),
        ];
        let shared = |(scope, table, name): (BudgetScope, &std::collections::BTreeMap<String, _>, Option<&str>)| {
            let name = name?;
            let limit: &hopyard_runtime::config::Dollars = table.get(name).or_else(|| table.get("*"))?;
            Some(Shared { key: format!("{day} {namespace} {} {name}", scope.as_str()), scope, limit: limit.0 })
        };
        tables.into_iter().filter_map(shared).collect()
    }

    /// When the next day begins.
    pub(crate) fn next_day(now: DateTime<Utc>) -> DateTime<Utc> {
        (now.date_naive() + TimeDelta::days(1)).and_time(NaiveTime::MIN).and_utc()
    }
}
