//! Evidence of a run: one archive that says what was asked, what was done, by whom and for how much, and that can be checked
//! years later without a server.
//!
//! It is a tar file under zstd. `manifest.json` comes first: it names every other file with size and SHA-256, and holds the head of
//! the chain of events, in which each line contains the hash of all lines before it. A key, if there is one, signs the manifest.

mod collect;
mod verify;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use ed25519_dalek::{Signer as _, SigningKey};
use hopyard_contract::event::Event;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::client::output::{self, Format};
use crate::exit::{Exit, Failure};

pub use collect::{EvidenceArgs, collect};

/// Version of the archive's shape.
const VERSION: u32 = 1;
/// The file that names all others.
const MANIFEST: &str = "manifest.json";
/// The signature of the manifest, if there is one; it is the only file that the manifest does not name.
const SIGNATURE: &str = "signature.json";
/// The chain of events.
const EVENTS: &str = "events.jsonl";
/// Most bytes of an archive when it is unpacked: a decompressed one is held in memory.
const MOST: u64 = 4 << 30;

/// What can be done with archives.
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Checks archives without a server; exit code 1 when anything in one was changed
    #[command(after_help = "Examples:\n  hopyard evidence verify run.evidence\n  hopyard evidence verify run.evidence --key 3f…c2")]
    Verify {
        /// Archives
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Public key that has to have signed them, in hex
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
    },
    /// Makes a key to sign with; prints its public half
    #[command(after_help = "Example:\n  hopyard evidence keygen evidence.key")]
    Keygen {
        /// File for the secret half; it may not be there yet
        file: PathBuf,
    },
}

/// Carries out a command.
///
/// # Errors
/// [`Failure::Usage`] for files that cannot be read or written.
pub fn run(format: Format, command: &EvidenceCommand) -> Result<Exit> {
    match command {
        EvidenceCommand::Verify { files, key } => verify::run(format, files, key.as_deref()),
        EvidenceCommand::Keygen { file } => keygen(format, file),
    }
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    v: u32,
    run: hopyard_contract::RunId,
    namespace: String,
    /// When it was put together.
    made_at: String,
    /// Version of the program that did.
    program: String,
    /// Events in the chain, and the hash of the last line.
    events: u64,
    chain: String,
    /// Every other file by its path.
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    sha256: String,
}

/// A line of the chain of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Link {
    /// SHA-256 over the hash of the line before (64 zeros for the first) and the canonical JSON of the event.
    hash: String,
    event: Event,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Signature {
    algorithm: String,
    public_key: String,
    signature: String,
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The hash of an event in its chain.
fn link(before: &str, event: &Event) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(hopyard_contract::json::canonical(&serde_json::to_value(event)?));
    Ok(hex::encode(hash.finalize()))
}

/// What the chain begins with.
fn origin() -> String {
    "0".repeat(64)
}

fn keygen(format: Format, file: &Path) -> Result<Exit> {
    let mut seed = [0u8; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed)).context("no randomness can be had")?;
    let key = SigningKey::from_bytes(&seed);
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let made = options.open(file).and_then(|mut open| std::io::Write::write_all(&mut open, format!("{}\n", hex::encode(seed)).as_bytes()));
    made.map_err(|error| Failure::usage(format!("{} cannot be made: {error}", file.display())))?;
    let public = hex::encode(key.verifying_key().as_bytes());
    output::bytes(output::document(format, &json!({ "public_key": public })).unwrap_or(format!("{public}\n")).as_bytes());
    Ok(Exit::Done)
}

/// The key of a file that `keygen` made.
fn key_of(file: &Path) -> Result<SigningKey> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    let seed = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let seed = seed.ok_or_else(|| Failure::usage(format!("{} holds no key; `hopyard evidence keygen` makes one", file.display())))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Packs files, the manifest before all others.
fn pack(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>, key: Option<&SigningKey>) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(manifest)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0)?);
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes)
    };
    add(MANIFEST, &text)?;
    if let Some(key) = key {
        let signature = Signature {
            algorithm: "ed25519".to_owned(),
            public_key: hex::encode(key.verifying_key().as_bytes()),
            signature: hex::encode(key.sign(&text).to_bytes()),
        };
        add(SIGNATURE, &serde_json::to_vec_pretty(&signature)?)?;
    }
    for (path, bytes) in files {
        add(path, bytes)?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Unpacks an archive into memory: no path of it touches the disk.
fn unpack(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(bytes)?.take(MOST));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).context("a path in it is no text")?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        ensure!(files.insert(path.clone(), bytes).is_none(), "the file {path} is in it twice");
    }
    Ok(files)
}
