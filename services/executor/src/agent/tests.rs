//! Real transcripts of every program, and what they add up to.

use chrono::Utc;
use hopyard_contract::Usage;
use hopyard_contract::plan::AgentCli;
use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::adapter::Parser;
use super::event::{AgentEnd, AgentEvent};
use super::tally::Tally;
use crate::prices::Prices;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(cli: AgentCli, text: &str) -> Vec<AgentEvent> {
    let mut parser = Parser::of(cli, &Default::default());
    lines(text).iter().flat_map(|line| parser.parse(line)).collect()
}

fn tally(events: &[AgentEvent]) -> Tally {
    let mut tally = Tally::default();
    events.iter().for_each(|event| tally.note(event, Utc::now()));
    tally
}

fn usage(tally: &Tally) -> Usage {
    tally.usage(&Prices::open(None).unwrap(), None, Utc::now())
}

fn tokens(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Tokens {
    Tokens { input, output, cache_read, cache_write }
}

/// A transcript, and what has to come of it: end, turns, names of tools, tokens, price.
type Golden = (AgentCli, &'static str, Option<AgentEnd>, u64, &'static [&'static str], Tokens, Option<u64>);

#[test]
fn every_transcript_adds_up_to_what_its_provider_served() {
    let golden: [Golden; 8] = [
        (
            AgentCli::Claude,
            include_str!("fixtures/claude-2.1.197-write-file.jsonl"),
            Some(AgentEnd::Completed),
            2,
            &["Write"],
            tokens(2400, 120, 1600, 600),
            Some(11_730),
        ),
        (
            AgentCli::Claude,
            include_str!("fixtures/claude-2.1.197-bare-partial-429-retry.jsonl"),
            Some(AgentEnd::Completed),
            2,
            &["Write"],
            tokens(2400, 120, 1600, 600),
            Some(11_730),
        ),
        (
            AgentCli::Claude,
            include_str!("fixtures/claude-2.1.197-max-budget.jsonl"),
            Some(AgentEnd::Budget),
            1,
            &["Write"],
            tokens(1200, 60, 800, 300),
            Some(5865),
        ),
        (
            AgentCli::Claude,
            include_str!("fixtures/claude-2.1.197-max-turns.jsonl"),
            Some(AgentEnd::MaxTurns),
            1,
            &["Write"],
            tokens(1200, 60, 800, 300),
            Some(5865),
        ),
        (
            AgentCli::Claude,
            include_str!("fixtures/claude-2.1.197-permission-denied.jsonl"),
            Some(AgentEnd::Completed),
            2,
            &["Write"],
            tokens(2400, 120, 1600, 600),
            Some(11_730),
        ),
        (AgentCli::Claude, include_str!("fixtures/claude-2.1.197-provider-down-sigterm.jsonl"), None, 0, &[], tokens(0, 0, 0, 0), Some(0)),
        (
            AgentCli::Codex,
            include_str!("fixtures/codex-0.169.0-write-file.jsonl"),
            Some(AgentEnd::Completed),
            0,
            &["shell"],
            tokens(3000, 120, 1600, 0),
            None,
        ),
        (
            AgentCli::Opencode,
            include_str!("fixtures/opencode-1.18.33-write-file.jsonl"),
            None,
            2,
            &["write"],
            tokens(3000, 120, 1600, 0),
            Some(11_280),
        ),
    ];
    for (cli, text, end, turns, tools, tokens, cost) in golden {
        let events = events(cli, text);
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::Unknown { .. })), "{cli:?}: {events:#?}");
        let tally = tally(&events);
        let usage = usage(&tally);
        assert_eq!((tally.ended().cloned(), usage.turns, usage.tokens, usage.cost_microusd), (end, turns, tokens, cost), "{cli:?}");
        assert_eq!(tally.tools().iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), tools, "{cli:?}");
    }
}

#[test]
fn a_transcript_that_is_told_twice_adds_up_to_the_same() {
    for (cli, text) in [
        (AgentCli::Claude, include_str!("fixtures/claude-2.1.197-bare-partial-429-retry.jsonl")),
        (AgentCli::Opencode, include_str!("fixtures/opencode-1.18.33-write-file.jsonl")),
    ] {
        let once = events(cli, text);
        let twice: Vec<AgentEvent> = once.iter().chain(&once).cloned().collect();
        assert_eq!(usage(&tally(&once)), usage(&tally(&twice)));
    }
}

#[test]
fn a_denied_tool_is_seen_though_the_agent_calls_it_a_success() {
    let tally = tally(&events(AgentCli::Claude, include_str!("fixtures/claude-2.1.197-permission-denied.jsonl")));
    assert_eq!(tally.tools().iter().map(|tool| (tool.denied, tool.failed)).collect::<Vec<_>>(), [(true, true)]);
}

#[test]
fn tokens_are_true_before_the_end_and_without_one() {
    let text = include_str!("fixtures/claude-2.1.197-bare-partial-429-retry.jsonl");
    let all = events(AgentCli::Claude, text);
    let cut: Vec<AgentEvent> =
        all.into_iter().filter(|event| !matches!(event, AgentEvent::Totals { .. } | AgentEvent::Ended { .. })).collect();
    let usage = usage(&tally(&cut));
    assert_eq!((usage.tokens, usage.cost_microusd), (tokens(2400, 120, 1600, 600), Some(11_730)), "priced by the table");
}

#[test]
fn a_resumed_thread_counts_only_what_came_after() {
    let first = tally(&events(AgentCli::Codex, include_str!("fixtures/codex-0.169.0-write-file.jsonl")));
    let mut second = Tally::default();
    second.begin_after(first.told().unwrap().tokens);
    let resumed = events(AgentCli::Codex, include_str!("fixtures/codex-0.169.0-resume.jsonl"));
    resumed.iter().for_each(|event| second.note(event, Utc::now()));
    assert_eq!((usage(&second).tokens, second.told().unwrap().tokens), (tokens(1500, 60, 800, 0), tokens(4500, 180, 2400, 0)));
}

#[test]
fn a_rollout_tells_each_reply_of_codex() {
    let lines = lines(include_str!("fixtures/codex-0.169.0-rollout-token-count.jsonl"));
    let events: Vec<AgentEvent> = lines.iter().flat_map(|line| super::codex::parse_rollout(line, 0)).collect();
    let usage = usage(&tally(&events));
    assert_eq!((usage.turns, usage.tokens), (2, tokens(3000, 120, 1600, 0)));
}

#[test]
fn nothing_that_a_program_says_is_fatal() {
    let odd = [
        "null",
        "7",
        "[]",
        "\"text\"",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"result"}"#,
        r#"{"type":"assistant","message":{"content":[{}]}}"#,
        r#"{"type":"result","subtype":"success","usage":{"input_tokens":-5,"output_tokens":1e300},"total_cost_usd":-1}"#,
        r#"{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":9}}"#,
        r#"{"type":"step_finish","part":{"tokens":"many"}}"#,
        r#"{"type":"item.completed"}"#,
        r#"{"type":"stream_event"}"#,
    ];
    for cli in AgentCli::ALL.iter().copied() {
        let mut parser = Parser::of(cli, &Default::default());
        for line in odd {
            for event in parser.parse(&serde_json::from_str(line).unwrap()) {
                let mut tally = Tally::default();
                tally.note(&event, Utc::now());
                usage(&tally);
            }
        }
    }
}

#[test]
fn what_a_program_makes_up_itself_is_no_turn() {
    let line = r#"{"type":"assistant","message":{"id":"x","model":"<synthetic>","content":[{"type":"text","text":"API Error: 403"}],"usage":{"input_tokens":0,"output_tokens":0}}}"#;
    assert_eq!(events(AgentCli::Claude, line), [AgentEvent::Notice { text: "API Error: 403".to_owned() }]);
}
