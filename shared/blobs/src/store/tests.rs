//! Blobs on a real directory.

use tempfile::TempDir;

use super::*;

fn fresh() -> (TempDir, Blobs) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let blobs = Blobs::open(&format!("file://{}/blobs", dir.path().display())).expect("opened");
    (dir, blobs)
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn bytes_come_back_under_their_digest() {
    let (dir, blobs) = fresh();
    let blob = blobs.put_bytes(Bytes::from_static(b"hello world")).await.expect("stored");
    assert_eq!(blob.size, 11);
    assert_eq!(blob.digest, Digest::of(b"hello world"));
    assert_eq!(blobs.get(&blob.digest).await.expect("there"), "hello world");
    assert!(blobs.exists(&blob.digest).await.expect("answer"));
    assert_eq!(blobs.size(&blob.digest).await.expect("there"), 11);
    let hex = blob.digest.hex();
    let place = dir.path().join("blobs").join(&hex[..2]).join(&hex[2..]);
    assert_eq!(std::fs::read(place).expect("the documented place"), b"hello world");

    assert_eq!(blobs.get_range(&blob.digest, 6..8).await.expect("part"), "wo");
    assert_eq!(blobs.get_range(&blob.digest, 6..800).await.expect("cut"), "world");
    assert_eq!(blobs.get_range(&blob.digest, 11..12).await.expect("empty"), "");
    assert_eq!(blobs.put_bytes(Bytes::new()).await.expect("stored").size, 0);
}

#[tokio::test]
async fn the_same_bytes_are_stored_once() {
    let (dir, blobs) = fresh();
    let bytes = Bytes::from(vec![7; 100_000]);
    let first = blobs.put_bytes(bytes.clone()).await.expect("stored");
    let path = dir.path().join("file");
    std::fs::write(&path, &bytes).expect("file");
    let place = files(&dir.path().join("blobs")).remove(0);
    let before = std::fs::metadata(&place).expect("blob").modified().expect("time");
    assert_eq!(blobs.put_file(&path).await.expect("stored"), first);
    assert_eq!(files(&dir.path().join("blobs")).len(), 1);
    assert_eq!(std::fs::metadata(&place).expect("blob").modified().expect("time"), before, "written again");
}

#[tokio::test]
async fn large_files_travel_in_parts_and_come_back_whole() {
    let (dir, blobs) = fresh();
    let bytes: Vec<u8> = (0..PART * 2 + 12_345).map(|n| (n % 251) as u8).collect();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, &bytes).expect("file");
    let blob = blobs.put_file(&from).await.expect("stored");
    assert_eq!(blob.digest, Digest::of(&bytes));
    assert_eq!(blobs.read_to_file(&blob.digest, &to).await.expect("read"), bytes.len() as u64);
    assert!(std::fs::read(&to).expect("file") == bytes, "other bytes came back");
    assert_eq!(files(&dir.path().join("blobs")).len(), 1, "no part is left behind");
}

#[tokio::test]
async fn many_writers_of_one_blob_agree() {
    let (dir, blobs) = fresh();
    let bytes = Bytes::from(vec![3; 300_000]);
    let writes = (0..20).map(|_| blobs.put_bytes(bytes.clone()));
    for blob in futures::future::join_all(writes).await {
        assert_eq!(blob.expect("stored").digest, Digest::of(&bytes));
    }
    assert_eq!(files(&dir.path().join("blobs")).len(), 1);
}

#[tokio::test]
async fn what_is_missing_or_damaged_says_so() {
    let (dir, blobs) = fresh();
    let absent = Digest::of(b"never stored");
    let error = blobs.get(&absent).await.expect_err("absent");
    assert!(error.is_not_found() && !error.is_transient());
    assert_eq!(error.to_string(), format!("blob {absent} not found"));
    assert!(!blobs.exists(&absent).await.expect("answer"));
    let to = dir.path().join("to");
    assert!(blobs.read_to_file(&absent, &to).await.expect_err("absent").is_not_found());
    assert!(!to.exists());

    let blob = blobs.put_bytes(Bytes::from_static(b"sound")).await.expect("stored");
    let place = files(&dir.path().join("blobs")).remove(0);
    std::fs::write(&place, b"rotten").expect("damage");
    assert!(matches!(blobs.get(&blob.digest).await, Err(Error::Damaged { .. })));
    assert!(matches!(blobs.read_to_file(&blob.digest, &to).await, Err(Error::Damaged { .. })));
    assert_eq!(files(dir.path()), [place], "no half file is left");
    blobs.put_bytes(Bytes::from_static(b"sound")).await.expect("stored again");
    assert_eq!(blobs.get(&blob.digest).await.expect("repaired"), "sound");
    assert!(matches!(blobs.put_file(&to).await, Err(Error::File { .. })));
}

#[tokio::test]
async fn an_unreachable_store_is_transient() {
    let (dir, blobs) = fresh();
    let root = dir.path().join("blobs");
    std::fs::remove_dir(&root).expect("empty");
    std::fs::write(&root, "in the way").expect("file");
    let error = blobs.put_bytes(Bytes::from_static(b"x")).await.expect_err("no directory");
    assert!(error.is_transient(), "{error}");
}

#[test]
fn addresses_that_cannot_work_are_refused() {
    for (url, word) in [("s3://bucket/x", "not built in"), ("gs://b", "unknown scheme"), ("", "empty"), ("file://h/x", "file:///")] {
        let error = Blobs::open(url).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let plain = dir.path().join("deep/down");
    Blobs::open(plain.to_str().expect("text")).expect("a plain path");
    assert!(plain.is_dir());
}

#[tokio::test]
async fn a_blob_is_verified_in_place() {
    let (dir, blobs) = fresh();
    let blob = blobs.put_bytes(Bytes::from_static(b"work")).await.expect("stored");
    assert_eq!(blobs.verify(&blob.digest).await.expect("as it was"), 4);
    std::fs::write(files(&dir.path().join("blobs")).remove(0), b"w0rk").expect("written");
    assert!(matches!(blobs.verify(&blob.digest).await, Err(Error::Damaged { .. })));
}
