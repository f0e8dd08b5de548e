//! `hopyard bench logs`: how fast a step may write, how many lines a second reach somebody who follows it, and how late.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use hopyard_contract::RunId;
use hopyard_contract::log::Chunk;
use hopyard_contract::view::RunView;
use reqwest::header::HeaderMap;
use serde_json::json;

use super::figures::{line, median, percentile};
use super::on_private_stack;
use crate::client::follow::{Item, Want, follow};
use crate::client::lines::content;
use crate::client::{Api, output};

/// How to measure logs.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Lines of 100 bytes that a step writes
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    pub lines: u32,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// Bytes of a line, its end included.
const LINE: u32 = 100;
/// Lines that a paced step writes at once, and its pause after them in seconds: somewhat below 100,000 a second.
const BURST: (u32, &str) = (2000, "0.02");

/// What somebody who followed a step saw.
struct Followed {
    /// MB a second that the step wrote.
    written: f64,
    /// Lines a second, from the first to the last that came.
    lines: f64,
    /// For each line, the ms from its being read off the step to its being here; sorted.
    late: Vec<f64>,
}

/// Measures on a private stack that keeps all of a log.
///
/// # Errors
/// When it does not start, a run does not complete, or a byte of a log does not come.
pub(super) async fn run(args: &LogsArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let (lines, place) = (args.lines, dir.path().to_owned());
    let limit = tokio::task::spawn_blocking(move || piped_mb_per_s(&place, lines)).await??;
    let keep_all = [("HOPYARD_LOG_CAP", (u64::from(args.lines) * u64::from(LINE) + (1 << 20)).to_string())];
    on_private_stack(dir.path(), &[], &keep_all, async |stack| {
        let api = Api::new(&stack.at.url, None, None)?;
        let at_once = format!("{} | head -n {}", yes(), args.lines);
        let paced =
            format!("for i in $(seq {}); do {} | head -n {}; sleep {}; done", args.lines.div_ceil(BURST.0), yes(), BURST.0, BURST.1);
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            fast.push(followed(&api, &at_once).await?);
            slow.push(followed(&api, &paced).await?);
        }
        report(limit, &fast, &slow);
        Ok(())
    })
    .await
}

fn yes() -> String {
    format!("yes {}", "x".repeat(LINE as usize - 1))
}

/// MB a second that go from a program through a pipe into a file.
fn piped_mb_per_s(dir: &Path, lines: u32) -> Result<f64> {
    let start = Instant::now();
    #[expect(clippy::disallowed_methods, reason = "what is measured is the bare program")]
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("{} | head -n {lines}", yes())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("sh")?;
    let mut file = std::fs::File::create(dir.join("piped"))?;
    let mut pipe = BufReader::with_capacity(64 << 10, child.stdout.take().context("the program has no output")?);
    let mut bytes = 0;
    loop {
        let piece = pipe.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        file.write_all(piece)?;
        let read = piece.len();
        bytes += read;
        pipe.consume(read);
    }
    child.wait()?;
    ensure!(bytes == lines as usize * LINE as usize, "the program wrote {bytes} bytes");
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Lets a step write, and follows it to its end.
async fn followed(api: &Api, shell: &str) -> Result<Followed> {
    let definition =
        json!({"version": 1, "name": "bench-logs", "workspace": {"mode": "none"}, "steps": [{"id": "writes", "shell": shell}]});
    let answer = api.post("/runs", &json!({"v": 1, "definition": definition}), HeaderMap::new()).await?;
    let run: RunId = output::field(&answer, "/run_id").parse().context("the server's answer names no run")?;
    let (mut late, mut bytes, mut span) = (Vec::new(), 0, None);
    let view = follow(api, run, Want { logs: true }, |item| {
        if let Item::Chunk(_, _, chunk) = item {
            let (now, came) = (Utc::now(), Instant::now());
            bytes += note(chunk, now, &mut late);
            span = Some((span.map_or(came, |(first, _)| first), came));
        }
    })
    .await?;
    let written = written(&view).with_context(|| format!("run {run} did not say what its step wrote"))?;
    ensure!(bytes == written.0, "of {} bytes that run {run} wrote {bytes} came", written.0);
    let (first, last) = span.context("nothing came")?;
    let lines = late.len() as f64 / (last - first).as_secs_f64().max(0.001);
    late.sort_by(f64::total_cmp);
    Ok(Followed { written: written.0 as f64 / 1e6 / written.1, lines, late })
}

/// Notes for each line of a chunk how late it is; returns the bytes.
fn note(chunk: &Chunk, now: DateTime<Utc>, late: &mut Vec<f64>) -> u64 {
    let bytes = content(chunk);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let lateness = (now - chunk.at).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0;
    late.extend(std::iter::repeat_n(lateness, lines));
    bytes.len() as u64
}

/// Bytes of the one attempt's log, and its seconds; its times are told to the millisecond.
fn written(run: &RunView) -> Option<(u64, f64)> {
    let attempt = run.steps.iter().flatten().flat_map(|step| &step.attempts).next()?;
    let took = attempt.finished_at? - attempt.started_at?;
    Some((attempt.log_bytes, (took.num_microseconds()? as f64 / 1e6).max(0.001)))
}

fn report(limit: f64, fast: &[Followed], slow: &[Followed]) {
    let of = |rounds: &[Followed], what: fn(&Followed) -> f64| median(rounds.iter().map(what).collect());
    let (spool, lines) = (of(fast, |f| f.written), of(fast, |f| f.lines));
    let paced = of(slow, |f| f.lines);
    let [p50, p99]: [f64; 2] = [of(slow, |f| percentile(&f.late, 50)), of(slow, |f| percentile(&f.late, 99))];
    for (metric, value, unit, limit) in [
        ("pipe_mb_per_s", limit, "MB/s", None),
        ("spool_mb_per_s", spool, "MB/s", Some(limit)),
        ("follower_lines_per_s", lines, "lines/s", None),
        ("paced_lines_per_s", paced, "lines/s", None),
        ("paced_late_p50_ms", p50, "ms", None),
        ("paced_late_p99_ms", p99, "ms", None),
    ] {
        output::data(&line("logs", metric, value, unit, limit).to_string());
    }
    let rows = [
        ["logs", "figure"].map(str::to_owned),
        ["a step writes".to_owned(), format!("{spool:.0} MB/s, {:.2} of a pipe into a file ({limit:.0})", spool / limit)],
        ["a follower gets".to_owned(), format!("{lines:.0} lines/s of such a step")],
        ["of a steady step".to_owned(), format!("{paced:.0} lines/s, late by {p50:.1} ms (p50) and {p99:.1} ms (p99)")],
    ];
    output::progress(output::align(&rows.map(|row| row.to_vec())).trim_end());
}
