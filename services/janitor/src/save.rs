//! Keeps what a lost attempt left: its processes are ended, its work becomes a commit and a bundle, its log a blob.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hopyard_blobs::Blobs;
use hopyard_contract::calls::{self, CALLS_FILE};
use hopyard_contract::log::frame::{HEAD_BYTES, Head, MAX_PAYLOAD};
use hopyard_contract::message::WorkspaceSaved;
use hopyard_contract::run::BlobRef;
use hopyard_contract::{AttemptId, Usage};
use hopyard_worktree::{Mirror, Snapshot};

use crate::disk::{self, Record};
use crate::leftovers;

/// Compression level of stored logs: fast.
const LEVEL: i32 = 3;
/// File of a spool that holds the log.
const LOG_FILE: &str = "log.spool";

/// Where and with what is saved.
pub(crate) struct Saver {
    /// For files that exist only until they are stored.
    pub(crate) scratch: PathBuf,
    pub(crate) blobs: Blobs,
}

/// A workspace whose work is to be kept.
pub(crate) struct Work<'a> {
    /// `<run>-g<k>`.
    pub(crate) id: &'a str,
    pub(crate) path: &'a Path,
    /// Where its commits live; none for a directory without a repository.
    pub(crate) mirror: Option<&'a Mirror>,
}

impl Saver {
    /// Keeps the work and the log of an attempt. Repeating it is harmless.
    ///
    /// # Errors
    /// When a process of the attempt cannot be ended, or anything cannot be stored: then the workspace has to stay.
    pub(crate) async fn save(&self, attempt: &AttemptId, work: Option<&Work<'_>>, spool: Option<&Path>) -> anyhow::Result<WorkspaceSaved> {
        let name = attempt.to_string();
        let alive =
            tokio::task::spawn_blocking(move || leftovers::kill_marked(&name)).await.context("the search for leftovers ended early")??;
        if !alive.is_empty() {
            bail!("processes of attempt {attempt} cannot be ended: {alive:?}");
        }
        let mut saved =
            WorkspaceSaved { attempt: attempt.clone(), snapshot: None, bundle: None, log: None, log_bytes: 0, usage: Usage::default() };
        if let Some(work) = work {
            (saved.snapshot, saved.bundle) = self.work(attempt, work).await?;
        }
        if let Some(spool) = spool {
            (saved.log, saved.log_bytes) = self.log(attempt, &spool.join(LOG_FILE)).await?;
            saved.usage = usage(spool)?;
        }
        Ok(saved)
    }

    async fn work(&self, attempt: &AttemptId, work: &Work<'_>) -> anyhow::Result<(Option<String>, Option<BlobRef>)> {
        let record = disk::read_record(&disk::record_file(work.path));
        let (mirror, record) = match (work.mirror, record) {
            (Some(mirror), Some(record)) => (mirror, record),
            // The executor died before it wrote the record: the workspace still stands at its first commit.
            (Some(mirror), None) => (mirror, first_commit(mirror, work.id).await?),
            (None, Some(_)) => bail!("workspace {} has no entry in a mirror, so its work cannot become a commit", work.id),
            (None, None) => return Ok((None, None)),
        };
        let workspace = mirror.workspace(work.path, work.id)?.with_context(|| format!("workspace {} cannot be opened", work.id))?;
        let refname = format!("refs/hopyard/{}/{}/{}", attempt.run, attempt.step, attempt.n);
        let message = format!(
            "{step}: work of run {run}, kept after its executor was lost\n\nHopyard-Run: {run}\nHopyard-Step: {step}\nHopyard-Attempt: {n}\n",
            step = attempt.step,
            run = attempt.run,
            n = attempt.n
        );
        let snapshot = Snapshot { message: &message, refname: &refname, parent: &record.head, author: "Hopyard <hopyard@localhost>" };
        let taken = workspace.snapshot(snapshot).await.with_context(|| format!("the work of attempt {attempt} cannot become a commit"))?;
        if !taken.skipped.is_empty() {
            tracing::warn!(%attempt, skipped = ?taken.skipped, "some paths cannot be kept by git");
        }
        let file = self.scratch.join(format!("{attempt}.bundle"));
        let branch = format!("hopyard/{}/{}-{}", attempt.run, attempt.step, attempt.n);
        let made = mirror
            .bundle(&record.base, &taken.commit, &branch, &file)
            .await
            .with_context(|| format!("the bundle of attempt {attempt} cannot be made"))?;
        let bundle = if made { Some(self.put(&file).await?) } else { None };
        Ok((Some(taken.commit), bundle))
    }

    async fn log(&self, attempt: &AttemptId, spool: &Path) -> anyhow::Result<(Option<BlobRef>, u64)> {
        let packed = self.scratch.join(format!("{attempt}.log.zst"));
        let (from, to) = (spool.to_owned(), packed.clone());
        let pack = move || pack(&from, &to);
        let bytes = tokio::task::spawn_blocking(pack)
            .await
            .context("the packing of a log ended early")?
            .with_context(|| format!("the log of attempt {attempt} cannot be packed"))?;
        if bytes == 0 {
            return Ok((None, 0));
        }
        Ok((Some(self.put(&packed).await?), bytes))
    }

    async fn put(&self, file: &Path) -> anyhow::Result<BlobRef> {
        let blob = self.blobs.put_file(file).await.with_context(|| format!("{} cannot be stored", file.display()))?;
        tokio::fs::remove_file(file).await.with_context(|| format!("{} cannot be deleted", file.display()))?;
        Ok(BlobRef { digest: blob.digest.to_string(), size: blob.size })
    }
}

/// What the calls of models in a spool add up to: money that nobody else knows of any more. What of them was a turn of its agent
/// only that agent told.
fn usage(spool: &Path) -> anyhow::Result<Usage> {
    match std::fs::read_to_string(spool.join(CALLS_FILE)) {
        Ok(text) => Ok(Usage { turns: 0, ..calls::sum(&calls::read(&text)) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Usage::default()),
        Err(error) => Err(error).with_context(|| format!("the ledger in {} cannot be read", spool.display())),
    }
}

/// The commit that the mirror's entry of a workspace stands at.
async fn first_commit(mirror: &Mirror, id: &str) -> anyhow::Result<Record> {
    let head = mirror.dir().join("worktrees").join(id).join("HEAD");
    let text = tokio::fs::read_to_string(&head).await.with_context(|| format!("{} cannot be read", head.display()))?;
    let commit = text.trim().to_owned();
    Ok(Record { base: commit.clone(), head: commit, owner: id.to_owned() })
}

/// Compresses the whole records of a spool; a last one that was torn by a crash is left out. Returns the bytes of the log.
fn pack(spool: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut input = match std::fs::File::open(spool) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut output = zstd::Encoder::new(std::fs::File::create(to)?, LEVEL)?;
    let mut total = 0;
    let mut record = vec![0; HEAD_BYTES + MAX_PAYLOAD];
    while fill(&mut input, &mut record[..HEAD_BYTES])? {
        let len = match Head::decode(&record, total) {
            Ok(Some(head)) => head.len,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(spool = %spool.display(), %error, "the spool is damaged; the log is kept up to here");
                break;
            }
        };
        if !fill(&mut input, &mut record[HEAD_BYTES..HEAD_BYTES + len])? {
            break;
        }
        output.write_all(&record[..HEAD_BYTES + len])?;
        total += len as u64;
    }
    output.finish()?.sync_all()?;
    if total == 0 {
        std::fs::remove_file(to)?;
    }
    Ok(total)
}

/// Fills `buffer`; false if the input ends before.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::log::Stream;
    use hopyard_contract::log::frame::{Decoder, encode};

    #[test]
    fn a_torn_spool_becomes_a_whole_log() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, packed) = (dir.path().join("log.spool"), dir.path().join("log.zst"));
        assert_eq!(pack(&spool, &packed).unwrap(), 0);
        let mut bytes = Vec::new();
        encode(Stream::Stdout, chrono::Utc::now(), &vec![b'x'; 100_000], &mut bytes);
        encode(Stream::Stderr, chrono::Utc::now(), b"last words", &mut bytes);
        for torn in [0, 1, 9, 10, 15, 22] {
            std::fs::write(&spool, &bytes[..bytes.len() - torn]).unwrap();
            let expected = if torn == 0 { 100_010 } else { 100_000 };
            assert_eq!(pack(&spool, &packed).unwrap(), expected, "{torn} bytes missing");
            let mut decoder = Decoder::default();
            decoder.push(&zstd::decode_all(std::fs::File::open(&packed).unwrap()).unwrap());
            while decoder.next_piece().unwrap().is_some() {}
            assert_eq!(decoder.finish(), Ok(expected));
        }
    }
}
