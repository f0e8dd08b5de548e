//! Texts made to cost time, memory or stack: each ends in a short answer.

use std::time::{Duration, Instant};

use super::{problems, step, top};
use crate::{MAX_PROBLEMS, MAX_SOURCE};

#[test]
fn size_depth_and_number_have_limits() {
    assert_eq!(problems(&" ".repeat(MAX_SOURCE + 1)), ["length  0:0"]);
    assert_eq!(problems(&format!("inputs: {}1{}", "[".repeat(64), "]".repeat(64))), ["too_deep  1:72"]);
    assert_eq!(problems(&format!("{{\"inputs\": {}1{}}}", "[".repeat(64), "]".repeat(64))), ["too_deep  1:75"]);
    assert_eq!(problems(&format!("{{\"inputs\": {}1{}}}", "[".repeat(100), "]".repeat(100))), ["too_deep  1:75"]);
    let deep = format!("inputs: {}1{}", "[".repeat(63), "]".repeat(63));
    assert!(!problems(&deep).iter().any(|p| p.starts_with("too_deep")), "64 levels are allowed");
    let steps =
        |n: usize| format!("version: 1\nname: w\nsteps:\n{}", (0..n).map(|i| format!("  - {{id: s{i}, shell: x}}\n")).collect::<String>());
    assert!(crate::parse(&steps(200), None).is_ok());
    assert_eq!(problems(&steps(201)), ["length /steps 4:3"]);
    let needs: String = (0..201).map(|i| format!("s{i},")).collect();
    assert_eq!(problems(&step(&format!("shell: x\nneeds: [{needs}]"))), ["length /steps/0/needs 6:12"]);
    let inputs: String = (0..257).map(|i| format!("i{i}: {{}},")).collect();
    assert_eq!(problems(&top(&format!("inputs: {{{inputs}}}"))), ["length /inputs 3:9"]);
}

#[test]
fn long_lists_of_problems_are_cut() {
    let fields: String = (0..5000).map(|i| format!("f{i}: 1\n")).collect();
    let found = problems(&top(&fields));
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
    assert_eq!((found[0].as_str(), found[100].as_str()), ("unknown_field /f0 3:1", "too_many  0:0"));
}

#[test]
fn no_text_takes_long() {
    let fill = |unit: &str| unit.repeat(MAX_SOURCE / unit.len());
    let long_key = "k".repeat(100_000);
    let bombs = [
        "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]".to_owned(),
        "a: &a [*a]".to_owned(),
        fill("["),
        fill("{"),
        fill("{a: "),
        fill("- "),
        fill("? "),
        fill("&a "),
        fill("!a "),
        fill("a: "),
        fill("a,"),
        fill("\""),
        fill("'"),
        fill("- a\n"),
        fill("---\n"),
        fill("%YAML 1.2\n"),
        fill("#"),
        fill("x"),
        fill("[]: "),
        fill("{\"a\":"),
        fill("\\"),
        fill("|\n"),
        fill("\n"),
        format!("a: [{}]", fill("&a b,").split_off(100)),
        format!("a: {{{}}}", fill("b: 1,").split_off(100)),
        format!("{{\"{long_key}\": [{}1]}}", "\"\\u0000\",".repeat(10_000)),
        format!("{{\"{long_key}\": {{{}\"z\": 1}}}}", "\"b\": 1,".repeat(10_000)),
        top(&format!("env: {{{}}}", (0..12_000).map(|i| format!("{i}A: 1,")).collect::<String>())),
        top(&format!("env: {{A: '{}'}}", "${{ inputs.x }}".repeat(10_000))),
        chain(),
    ];
    for bomb in bombs {
        let started = Instant::now();
        let found = problems(&bomb);
        let head: String = bomb.chars().take(20).collect();
        assert!(!found.is_empty() && found.len() <= MAX_PROBLEMS + 1, "{head}");
        assert!(found.iter().all(|p| p.len() < 101_000), "{head}");
        assert!(started.elapsed() < Duration::from_secs(5), "{head}: {:?}", started.elapsed());
    }
}

/// As many needs, and in the last step as many expressions about them, as fit into one text; the last field is wrong.
fn chain() -> String {
    let mut text = "version: 1\nname: w\nsteps:\n".to_owned();
    for i in 0..200 {
        let needs: Vec<_> = (0..i).map(|n| format!("s{n}")).collect();
        text.push_str(&format!("- {{id: s{i}, shell: x, needs: [{}]}}\n", needs.join(",")));
    }
    let kept = text.trim_end_matches("}\n").len();
    text.truncate(kept);
    let expression = "${{steps.s0.status}}";
    let expressions = expression.repeat(500);
    format!("{text}, env: {{A: '{expressions}'}}, nope: 1}}\n")
}
