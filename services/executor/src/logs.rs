//! The log of an attempt: chunks to the live tail while it runs, the whole spool to the blobs at its end.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use hopyard_blobs::Blobs;
use hopyard_contract::log::{BusChunk, Chunk, Stream};
use hopyard_contract::run::BlobRef;
use hopyard_contract::{AttemptId, Name, subject};
use hopyard_runtime::Bus;

use crate::instruments;
use crate::process::{self, SpoolReader, StepProcess};

/// Compression level of stored logs: fast.
const LEVEL: i32 = 3;

/// Publishes the log until the process has ended; the last message says how long it is.
pub(crate) async fn ship(bus: Bus, namespace: Name, attempt: AttemptId, process: StepProcess) -> anyhow::Result<()> {
    let subject = subject::log(&namespace, attempt.run);
    let mut tail = process.output(0)?;
    while let Some(chunk) = tail.next().await? {
        let stream = chunk.stream;
        let label = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::System => "system",
        };
        instruments::log_bytes().with_label_values(&[label]).inc_by(chunk.bytes.len() as u64);
        let (text, b64) = match String::from_utf8(chunk.bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(base64::engine::general_purpose::STANDARD.encode(error.as_bytes()))),
        };
        let chunk = Chunk { offset: chunk.offset, stream, at: chunk.at, text, b64 };
        bus.tell(&subject, &BusChunk { v: 1, run_id: attempt.run, step: attempt.step.clone(), attempt: attempt.n, chunk, end: None }).await;
    }
    let end = Chunk { offset: tail.offset(), stream: Stream::System, at: chrono::Utc::now(), text: Some(String::new()), b64: None };
    bus.tell(
        &subject,
        &BusChunk { v: 1, run_id: attempt.run, step: attempt.step.clone(), attempt: attempt.n, chunk: end, end: Some(tail.offset()) },
    )
    .await;
    Ok(())
}

/// Stores the whole log: the spool's records, compressed. `None` when there is nothing in it.
pub(crate) async fn store(blobs: &Blobs, dir: &Path) -> anyhow::Result<Option<BlobRef>> {
    let spool = dir.join(process::SPOOL_FILE);
    // Most steps that say nothing are short; for them another thread would be much.
    if std::fs::metadata(&spool).map_or(0, |meta| meta.len()) == 0 {
        return Ok(None);
    }
    let packed = dir.join("log.zst");
    let target = packed.clone();
    let size = tokio::task::spawn_blocking(move || -> anyhow::Result<u64> {
        let whole = SpoolReader::open(&spool)?.whole()?;
        if whole == 0 {
            return Ok(0);
        }
        // Readers of the stored log take a torn record for damage.
        let mut input = std::fs::File::open(&spool)?.take(whole);
        let output = std::fs::File::create(&target)?;
        zstd::stream::copy_encode(&mut input, &output, LEVEL)?;
        Ok(output.metadata()?.len())
    })
    .await
    .context("the log could not be packed")?
    .context("the log could not be packed")?;
    if size == 0 {
        return Ok(None);
    }
    let blob = blobs.put_file(&packed).await.context("the log could not be stored")?;
    tokio::fs::remove_file(&packed).await?;
    Ok(Some(BlobRef { digest: blob.digest.to_string(), size: blob.size }))
}
