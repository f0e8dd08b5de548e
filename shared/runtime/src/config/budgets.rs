//! Budgets that runs share, `[budgets]` of the settings file: what may be spent in a day, by namespace, workflow and repository.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;

/// Most dollars of one budget.
const MOST: f64 = 1_000_000.0;

/// Shared budgets. The name `*` stands for everything that is not named.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// What happens to new runs that would ask models on a day whose money is spent.
    pub on_spent: OnSpent,
    /// By namespace.
    pub namespaces: BTreeMap<String, Dollars>,
    /// By name of the workflow, in each namespace.
    pub workflows: BTreeMap<String, Dollars>,
    /// By URL of the repository, in each namespace.
    pub repositories: BTreeMap<String, Dollars>,
}

/// What happens to new runs when a day's money is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSpent {
    /// They are taken, and wait for the next day.
    #[default]
    Wait,
    /// They are refused.
    Reject,
}

/// US dollars a day, as millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Dollars(pub u64);

impl TryFrom<f64> for Dollars {
    type Error = String;

    fn try_from(dollars: f64) -> Result<Self, String> {
        if (0.0..=MOST).contains(&dollars) {
            return Ok(Self((dollars * 1e6).round() as u64));
        }
        Err(format!("a budget lies between 0 and {MOST} dollars a day"))
    }
}

/// Reads the table of budgets.
pub(super) fn read(value: toml::Value) -> anyhow::Result<BudgetSettings> {
    whole_numbers(value).try_into().context("it has `on_spent`, and tables of `namespaces`, `workflows` and `repositories`")
}

/// TOML tells 5 from 5.0, people do not.
fn whole_numbers(value: toml::Value) -> toml::Value {
    match value {
        toml::Value::Integer(number) => toml::Value::Float(number as f64),
        toml::Value::Table(table) => toml::Value::Table(table.into_iter().map(|(key, value)| (key, whole_numbers(value))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_in_dollars_and_what_is_none_is_refused() {
        let read = |text: &str| read(toml::Value::Table(text.parse().unwrap()));
        let budgets = read("on_spent = \"reject\"\n[namespaces]\ndefault = 50\n[workflows]\n\"*\" = 2.5\n").unwrap();
        assert_eq!(
            (budgets.on_spent, budgets.namespaces["default"], budgets.workflows["*"]),
            (OnSpent::Reject, Dollars(50_000_000), Dollars(2_500_000))
        );
        for wrong in ["on_spent = \"sometimes\"", "[workflows]\nw = -1", "[repositories]\nr = \"much\"", "[workflow]\nw = 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
