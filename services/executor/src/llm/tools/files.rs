//! Files of a workspace: read and written by paths that stay inside of it.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{MAX_RESULT, Refusal};

#[derive(Debug, Deserialize)]
pub(super) struct Read {
    path: String,
    from: Option<usize>,
    lines: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Write {
    path: String,
    text: String,
}

pub(super) fn read(root: &Path, asked: &Read) -> Result<String, Refusal> {
    let told = |error: io::Error| Refusal::Failed(format!("{} cannot be read: {error}", asked.path));
    let file = inside(root, &asked.path)?;
    if !file.metadata().map_err(told)?.is_file() {
        return Err(Refusal::Failed(format!("{} is no file", asked.path)));
    }
    let mut input = BufReader::new(fs::File::open(&file).map_err(told)?);
    let (first, most) = (asked.from.unwrap_or(1).max(1), asked.lines.unwrap_or(usize::MAX));
    let (mut text, mut line, mut number) = (String::new(), Vec::new(), 0);
    while number < first.saturating_add(most) - 1 {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(told)? == 0 {
            break;
        }
        number += 1;
        if line.contains(&0) {
            return Err(Refusal::Failed(format!("{} is no text", asked.path)));
        }
        if number < first {
            continue;
        }
        if text.len() + line.len() > MAX_RESULT && !text.is_empty() {
            text.push_str(&format!("[the file goes on at line {number}]\n"));
            return Ok(text);
        }
        text.push_str(&String::from_utf8_lossy(&line));
    }
    if number < first && first > 1 {
        return Err(Refusal::Failed(format!("{} has {number} lines", asked.path)));
    }
    Ok(text)
}

pub(super) fn write(root: &Path, asked: &Write) -> Result<String, Refusal> {
    let told = |error: io::Error| Refusal::Failed(format!("{} cannot be written: {error}", asked.path));
    let path = below(root, &asked.path)?;
    let name = path.file_name().ok_or_else(|| Refusal::Failed(format!("{:?} names no file", asked.path)))?;
    let mut folder = root.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder = resolved(root, &folder, &asked.path)?,
            Err(error) => return Err(told(error)),
        }
    }
    let mut file = folder.join(name);
    // Through a link, if where it leads is inside.
    if file.symlink_metadata().is_ok() {
        file = resolved(root, &file, &asked.path)?;
    }
    fs::write(&file, &asked.text).map_err(told)?;
    Ok(format!("{} bytes are written to {}", asked.text.len(), asked.path))
}

/// The file that a path leads to, which is there and inside.
fn inside(root: &Path, path: &str) -> Result<PathBuf, Refusal> {
    let file = root.join(below(root, path)?);
    resolved(root, &file, path)
}

/// A path from the root; an absolute one may begin with it, as models like to write them.
fn below(root: &Path, path: &str) -> Result<PathBuf, Refusal> {
    let given = Path::new(path);
    let relative = given.strip_prefix(root).unwrap_or(given);
    let plain: PathBuf = relative.components().filter(|part| *part != Component::CurDir).collect();
    let fits = plain.components().all(|part| matches!(part, Component::Normal(name) if !name.eq_ignore_ascii_case(".git")));
    if fits && !path.contains('\0') { Ok(plain) } else { Err(outside(path)) }
}

/// Where a path that exists leads to, links and all.
fn resolved(root: &Path, file: &Path, path: &str) -> Result<PathBuf, Refusal> {
    let real = file.canonicalize().map_err(|error| Refusal::Failed(format!("{path} cannot be found: {error}")))?;
    let relative = real.strip_prefix(root).map_err(|_| outside(path))?;
    if relative.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git")) { Err(outside(path)) } else { Ok(real) }
}

fn outside(path: &str) -> Refusal {
    Refusal::Denied(format!("{path} is not in the workspace, or belongs to git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(root: &Path, path: &str) -> Result<String, Refusal> {
        read(root, &Read { path: path.to_owned(), from: None, lines: None })
    }

    fn put(root: &Path, path: &str) -> Result<String, Refusal> {
        write(root, &Write { path: path.to_owned(), text: "new\n".to_owned() })
    }

    #[test]
    fn a_file_is_read_in_parts_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("a"), "1\n2\n3\n4").unwrap();
        let part = |from, lines| read(&root, &Read { path: "a".to_owned(), from, lines });
        assert_eq!(part(None, None).as_deref(), Ok("1\n2\n3\n4"));
        assert_eq!(part(Some(2), Some(2)).as_deref(), Ok("2\n3\n"));
        assert_eq!(part(Some(9), None), Err(Refusal::Failed("a has 4 lines".to_owned())));
        assert_eq!(read_all(&root, &root.join("a").display().to_string()).as_deref(), Ok("1\n2\n3\n4"));
        fs::write(root.join("long"), "0123456789\n".repeat(10_000)).unwrap();
        assert!(read_all(&root, "long").unwrap().ends_with("\n[the file goes on at line 5958]\n"));
        fs::write(root.join("bin"), [1, 0, 2]).unwrap();
        assert_eq!(read_all(&root, "bin"), Err(Refusal::Failed("bin is no text".to_owned())));
    }

    #[test]
    fn no_path_leads_out_of_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().canonicalize().unwrap();
        let root = outer.join("work");
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(outer.join("secret"), "s").unwrap();
        fs::write(root.join(".git/config"), "c").unwrap();
        for (link, to) in [("up", ".."), ("file", "../secret"), ("config", ".git/config"), ("gone", "../new")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        for path in ["../secret", "/etc/passwd", "up/secret", "file", ".git/config", "config", "a/../../secret", "", "."] {
            assert!(read_all(&root, path).is_err(), "{path}");
        }
        for path in ["../secret", "/tmp/x", "up/secret", "up/deep/er", "file", ".git/hooks/x", "config", "gone", "a/../b", ""] {
            assert!(put(&root, path).is_err(), "{path}");
        }
        assert_eq!((fs::read(outer.join("secret")).unwrap(), fs::read(root.join(".git/config")).unwrap()), (b"s".to_vec(), b"c".to_vec()));
        assert!(!outer.join("new").exists() && !outer.join("deep").exists());
        put(&root, "deep/er/file").unwrap();
        std::os::unix::fs::symlink("deep", root.join("short")).unwrap();
        put(&root, "short/er/file").unwrap();
        assert_eq!(read_all(&root, "./short/er/file").as_deref(), Ok("new\n"));
    }
}
