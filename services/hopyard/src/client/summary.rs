//! A run in a few lines: status, steps with their times, branch, changes, cost.

use hopyard_contract::view::{RunView, StepView, VariantView};

use super::output::{align, clean, cost, duration};

/// The lines that end `run --follow` and the demo, and make up `runs get`.
pub fn summary(run: &RunView) -> Vec<String> {
    let mut rows = vec![row("run", &run.id.to_string()), row("status", &status(run))];
    if let Some(error) = &run.error {
        rows.push(row("error", &clean(&error.message)));
    }
    for (i, step) in run.steps.iter().flatten().enumerate() {
        rows.push(row(if i == 0 { "steps" } else { "" }, &step_line(run, step)));
    }
    for step in run.steps.iter().flatten() {
        for (i, variant) in step.variants.iter().enumerate() {
            rows.push(row(if i == 0 { "variants" } else { "" }, &variant_line(step, variant)));
        }
    }
    let git = run.result.as_ref().and_then(|result| result.git.as_ref());
    match git {
        Some(git) => {
            rows.push(row("branch", &git.branch));
            let files = git.files.len();
            let noun = if files == 1 { "file" } else { "files" };
            rows.push(row("changes", &format!("{files} {noun} changed, +{} -{}", git.insertions, git.deletions)));
            for file in git.files.iter().take(20) {
                rows.push(row("", &format!("{} (+{} -{})", clean(&file.path), file.insertions, file.deletions)));
            }
            if files > 20 {
                rows.push(row("", &format!("… and {} more", files - 20)));
            }
        }
        None if run.status.is_final() => rows.push(row("branch", "none: the run has no workspace with a repository")),
        None => {}
    }
    rows.push(row("cost", &cost(&run.usage)));
    align(&rows).lines().map(str::to_owned).collect()
}

fn row(name: &str, text: &str) -> Vec<String> {
    vec![name.to_owned(), text.to_owned()]
}

/// The status with what explains it.
pub fn status(run: &RunView) -> String {
    let pending = run.pending_reason.map(|r| r.as_str());
    let reason = pending.or(run.paused_reason.map(|r| r.as_str())).or(run.failure_code.map(|c| c.as_str())).or(run.kill_reason.as_deref());
    let time = run.duration_ms.map(|ms| format!(" after {}", duration(ms))).unwrap_or_default();
    let reason = reason.map(|text| format!(" ({})", clean(text))).unwrap_or_default();
    format!("{}{reason}{time}", run.status)
}

fn step_line(run: &RunView, step: &StepView) -> String {
    let width = run.steps.iter().flatten().map(|s| s.id.as_str().len()).max().unwrap_or(0);
    let time = step.duration_ms.map(duration).unwrap_or_default();
    let reason =
        step.failure_code.map(|c| c.as_str()).or(step.pending_reason.map(|r| r.as_str())).or(step.paused_reason.map(|r| r.as_str()));
    let mut line = format!("{:<width$}  {:<9}  {time:>8}", step.id.as_str(), step.status.as_str());
    if let Some(reason) = reason {
        line.push_str(&format!("  {reason}"));
    }
    if step.attempts.len() > 1 {
        line.push_str(&format!("  {} attempts", step.attempts.len()));
    }
    line.trim_end().to_owned()
}

fn variant_line(step: &StepView, variant: &VariantView) -> String {
    let width = step.variants.iter().map(|v| v.name.as_str().len()).max().unwrap_or(0);
    let stands = match (variant.chosen, variant.passes, step.status.is_final()) {
        (true, _, _) => "chosen",
        (false, true, _) => "passes",
        (false, false, true) => "does not pass",
        (false, false, false) => "open",
    };
    let mut line = format!("{:<width$}  {stands:<13}  {}", variant.name.as_str(), cost(&variant.usage));
    if let Some(score) = &variant.score {
        line.push_str(&format!(", score {}", clean(score)));
    }
    if let Some(git) = &variant.git {
        line.push_str(&format!(", +{} -{} on {}", git.insertions, git.deletions, git.branch));
    }
    line
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn finished_run() -> Value {
        json!({
            "id": "01914f4e-3c3f-7000-8000-000000000001", "namespace": "default", "workflow": "demo", "definition_hash": "h", "plan_hash": "p",
            "status": "failed", "failure_code": "exit_code", "error": {"code": "exit_code", "message": "exit code 1\nof `check`", "step": "check"},
            "labels": {}, "inputs": {}, "priority": 1, "pool": "default", "after": [], "created_at": "2026-05-01T12:00:00.000000Z", "generation": 1,
            "duration_ms": 1234, "usage": {"cost_microusd": 0, "tokens": {}, "turns": 0, "tool_calls": 0},
            "result": {"base": "a", "head": "b", "branch": "hopyard/demo/x", "files": [{"path": "R.md", "status": "added", "insertions": 3, "deletions": 0}],
                       "insertions": 3, "deletions": 0, "outputs": {}},
            "steps": [
                {"id": "survey", "kind": "shell", "status": "completed", "needs": [], "outputs": {}, "attempts": [], "duration_ms": 400,
                 "usage": {"cost_microusd": 0, "tokens": {}, "turns": 0, "tool_calls": 0}},
                {"id": "check", "kind": "shell", "status": "failed", "failure_code": "exit_code", "needs": ["survey"], "outputs": {}, "attempts": [],
                 "usage": {"cost_microusd": 0, "tokens": {}, "turns": 0, "tool_calls": 0}}
            ]
        })
    }

    #[test]
    fn a_run_is_told_in_a_few_lines() {
        let run: RunView = serde_json::from_value(finished_run()).unwrap();
        assert_eq!(
            summary(&run),
            [
                "run      01914f4e-3c3f-7000-8000-000000000001",
                "status   failed (exit_code) after 1.2 s",
                "error    exit code 1 of `check`",
                "steps    survey  completed     0.4 s",
                "         check   failed               exit_code",
                "branch   hopyard/demo/x",
                "changes  1 file changed, +3 -0",
                "         R.md (+3 -0)",
                "cost     $0.00, no model calls",
            ]
        );
    }
}
