//! `hopyard bench workspaces`: how long a workspace takes from a commit to its files, and to be given back, beside what git
//! itself takes for a worktree of the same repository; with its files made ahead (`warm`) and without (`plain`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use futures::future::try_join_all;
use hopyard_worktree::{Mirror, Mirrors, Settings, Warm, Workspace};

use super::figures::{line, median};
use super::repository;
use crate::client::output;
use crate::client::repository::git;

/// How to measure workspaces.
#[derive(Clone, Debug, Args)]
pub struct WorkspacesArgs {
    /// Sizes of the repository
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [100, 5000])]
    pub files: Vec<u32>,
    /// Workspaces of each size, one at a time; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Workspaces that are made at once, of the smallest size
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub at_once: u32,
}

/// A mirror and its newest commit.
struct Source {
    mirror: Mirror,
    commit: String,
    dir: PathBuf,
}

/// Measures in a temporary folder, without any service.
///
/// # Errors
/// When git fails, or there is no room.
pub(super) async fn run(args: &WorkspacesArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("hopyard-bench-").tempdir().context("cannot make a temporary folder")?;
    let mut rows = vec![["workspaces", "git worktree add", "plain", "warm", "given back"].map(str::to_owned).to_vec()];
    for (n, files) in args.files.iter().enumerate() {
        let dir = dir.path().join(format!("{files}-files"));
        let repo = repository::sample(&dir.join("repository"), *files).await?;
        let settings = Settings { allow: vec![repo.url.clone()], ..Settings::default() };
        let mirror = Mirrors::open(dir.join("data"), settings)?.mirror(&repo.url).await?;
        let commit = mirror.resolve(None).await?;
        let source = Source { mirror, commit, dir };
        if n == 0 {
            let took = at_once(&source, args.at_once).await?;
            output::data(&line("workspaces", &format!("at_once_{}_ms", args.at_once), took, "ms", None).to_string());
            let what = format!("{} at once of {files} files", args.at_once);
            rows.push(vec![what, String::new(), format!("{took:.0} ms"), String::new(), String::new()]);
        }
        let (mut bare, mut plain, mut warm, mut released) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..args.rounds {
            bare.push(timed(worktree(Path::new(&repo.url), &source.dir.join(format!("bare-{round}")))).await?);
            let (id, path) = (format!("plain-{round}"), source.dir.join(format!("plain-{round}")));
            plain.push(timed(source.open(&path, &id)).await?);
            released.push(timed(source.mirror.release(&path, &id)).await?);
            warm.extend(source.warm(&format!("warm-{round}")).await?);
        }
        let (bare, plain, released) = (median(bare), median(plain), median(released));
        // Of a small repository nothing is made ahead.
        let warm = (!warm.is_empty()).then(|| median(warm));
        let figures = [
            ("git_worktree_add", Some(bare), None),
            ("plain", Some(plain), Some(bare)),
            ("warm", warm, Some(bare)),
            ("release", Some(released), None),
        ];
        for (name, value, limit) in figures.into_iter().filter_map(|(name, value, limit)| Some((name, value?, limit))) {
            output::data(&line("workspaces", &format!("{name}_{files}_p50_ms"), value, "ms", limit).to_string());
        }
        rows.push(vec![
            format!("{files} files"),
            format!("{bare:.1} ms"),
            format!("{plain:.1} ms, {:.2} of it", plain / bare),
            warm.map(|warm| format!("{warm:.1} ms, {:.2} of it", warm / bare)).unwrap_or_default(),
            format!("{released:.1} ms"),
        ]);
    }
    output::progress(output::align(&rows).trim_end());
    Ok(())
}

/// Milliseconds until all of them are there.
async fn at_once(source: &Source, count: u32) -> Result<f64> {
    let names: Vec<(String, PathBuf)> = (0..count).map(|n| (format!("at-once-{n}"), source.dir.join(format!("at-once-{n}")))).collect();
    let took = timed(try_join_all(names.iter().map(|(id, path)| source.open(path, id)))).await?;
    for (id, path) in &names {
        source.mirror.release(path, id).await?;
    }
    Ok(took)
}

impl Source {
    async fn open(&self, path: &Path, id: &str) -> hopyard_worktree::Result<Workspace> {
        self.mirror.open_workspace(path, id, &self.commit, id).await
    }

    /// Milliseconds until a workspace is there whose files were made ahead; none when they were not.
    async fn warm(&self, id: &str) -> Result<Option<f64>> {
        let places = [format!("{id}-before"), id.to_owned()].map(|id| (self.dir.join(&id), id));
        let [(before, first), (path, second)] = &places;
        let made = self.open(before, first).await?.warm_next(&self.commit, Warm { trees: 1, bytes: u64::MAX }).await?;
        let mut took = None;
        if made {
            took = Some(timed(self.open(path, second)).await?);
        }
        for (path, id) in &places {
            self.mirror.release(path, id).await?;
        }
        Ok(took)
    }
}

/// What git itself does for the same.
async fn worktree(repository: &Path, path: &Path) -> Result<()> {
    git(repository, &["worktree", "add", "--quiet", "--detach", &path.display().to_string()]).await.map(drop)
}

/// Milliseconds that something takes.
async fn timed<T, E: Into<anyhow::Error>>(work: impl Future<Output = std::result::Result<T, E>>) -> Result<f64> {
    let start = Instant::now();
    work.await.map_err(Into::into)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}
