//! Looking for files and lines in a workspace. What git ignores is not looked at.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use regex::RegexBuilder;
use serde::Deserialize;

use super::Refusal;

/// Most files that are listed.
const MAX_FILES: usize = 1000;
/// Most lines that are found.
const MAX_LINES: usize = 200;
/// Longest part of a line that is shown, in characters.
const MAX_LINE: usize = 300;
/// Largest file that is looked into, in bytes.
const MAX_SIZE: u64 = 8 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct Glob {
    pattern: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Grep {
    pattern: String,
    glob: Option<String>,
    #[serde(default)]
    ignore_case: bool,
}

pub(super) fn glob(root: &Path, asked: &Glob) -> Result<String, Refusal> {
    let fits = matcher(&asked.pattern)?;
    let mut found = files(root).filter(|path| fits.is_match(path));
    let mut list = String::new();
    for path in found.by_ref().take(MAX_FILES) {
        let _ = writeln!(list, "{}", path.display());
    }
    match (list.is_empty(), found.next()) {
        (true, _) => list.push_str("no file fits"),
        (false, Some(_)) => list.push_str("[there are more]"),
        (false, None) => {}
    }
    Ok(list)
}

pub(super) fn grep(root: &Path, asked: &Grep) -> Result<String, Refusal> {
    let regex = RegexBuilder::new(&asked.pattern).case_insensitive(asked.ignore_case).build();
    let regex = regex.map_err(|error| Refusal::Failed(format!("{:?} is no regular expression: {error}", asked.pattern)))?;
    let only = asked.glob.as_deref().map(matcher).transpose()?;
    let (mut list, mut lines) = (String::new(), 0);
    for path in files(root).filter(|path| only.as_ref().is_none_or(|only| only.is_match(path))) {
        let file = root.join(&path);
        if file.metadata().is_ok_and(|meta| meta.len() > MAX_SIZE) {
            continue;
        }
        let text = fs::read(&file).unwrap_or_default();
        if text.contains(&0) {
            continue;
        }
        for (at, line) in String::from_utf8_lossy(&text).lines().enumerate().filter(|(_, line)| regex.is_match(line)) {
            if lines == MAX_LINES {
                list.push_str("[there are more]");
                return Ok(list);
            }
            lines += 1;
            let _ = writeln!(list, "{}:{}:{}", path.display(), at + 1, line.chars().take(MAX_LINE).collect::<String>());
        }
    }
    if list.is_empty() {
        list.push_str("no line fits");
    }
    Ok(list)
}

fn matcher(pattern: &str) -> Result<GlobMatcher, Refusal> {
    let anywhere = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
    let glob = GlobBuilder::new(anywhere.trim_start_matches("./")).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| Refusal::Failed(format!("{pattern:?} is no pattern: {error}")))
}

/// Every file that git would take, by its path from the root, in order; links are not followed.
fn files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false).parents(false).git_global(false).require_git(false).sort_by_file_path(Path::cmp);
    walk.filter_entry(|entry| entry.file_name() != ".git");
    let root = root.to_owned();
    let file = move |entry: ignore::DirEntry| Some(entry.path().strip_prefix(&root).ok()?.to_owned());
    let entries = walk.build().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())).filter_map(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("src/a.rs", "fn one() {}\nfn two() {}\n"),
            ("src/deep/b.rs", "fn Three() {}\n"),
            ("target/c.rs", "fn four() {}\n"),
            (".gitignore", "target\n"),
            (".git/d.rs", "fn five() {}\n"),
            ("bin", "fn \0\n"),
        ] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        dir
    }

    fn globbed(dir: &Path, pattern: &str) -> String {
        glob(dir, &Glob { pattern: pattern.to_owned() }).unwrap()
    }

    fn grepped(dir: &Path, pattern: &str, glob: Option<&str>, ignore_case: bool) -> Result<String, Refusal> {
        grep(dir, &Grep { pattern: pattern.to_owned(), glob: glob.map(str::to_owned), ignore_case })
    }

    #[test]
    fn files_are_found_by_pattern_and_never_those_that_git_ignores() {
        let dir = workspace();
        assert_eq!(globbed(dir.path(), "*.rs"), "src/a.rs\nsrc/deep/b.rs\n");
        assert_eq!(globbed(dir.path(), "src/*.rs"), "src/a.rs\n");
        assert_eq!(globbed(dir.path(), "**/*"), ".gitignore\nbin\nsrc/a.rs\nsrc/deep/b.rs\n");
        assert_eq!(globbed(dir.path(), "*.py"), "no file fits");
        assert!(glob(dir.path(), &Glob { pattern: "[".to_owned() }).is_err());
    }

    #[test]
    fn lines_are_found_with_their_places() {
        let dir = workspace();
        assert_eq!(grepped(dir.path(), r"fn t\w+", None, false).as_deref(), Ok("src/a.rs:2:fn two() {}\n"));
        let both = "src/a.rs:2:fn two() {}\nsrc/deep/b.rs:1:fn Three() {}\n";
        assert_eq!(grepped(dir.path(), r"fn t\w+", None, true).as_deref(), Ok(both));
        assert_eq!(grepped(dir.path(), "fn", Some("src/*.rs"), false).unwrap().lines().count(), 2);
        assert_eq!(grepped(dir.path(), "six", None, false).as_deref(), Ok("no line fits"));
        assert!(grepped(dir.path(), "(", None, false).is_err());
        fs::write(dir.path().join("many"), "x\n".repeat(500)).unwrap();
        assert!(grepped(dir.path(), "^x$", None, false).unwrap().ends_with("many:200:x\n[there are more]"));
    }
}
