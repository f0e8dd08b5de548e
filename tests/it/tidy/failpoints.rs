//! Failpoints: the table and the code name the same points, each once, and a build without debug assertions has none of them.

use std::collections::BTreeMap;
use std::fs;

use hopyard::servers::process_env;
use hopyard_runtime::failpoint::POINTS;

use super::tree::{files, read, root};
use crate::harness::programs::run;

#[test]
fn the_table_and_the_code_name_the_same_points_once() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in files(&["rs"]).into_iter().filter(|f| !f.starts_with(root().join("tests")) && !f.ends_with("failpoint.rs")) {
        let text = read(&file);
        for part in text.split("failpoint!(").skip(1) {
            let name = part.split('"').nth(1).unwrap_or_default();
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    let wanted: BTreeMap<String, usize> = POINTS.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(found, wanted, "every point stands once in the table and once in the code");
    assert!(POINTS.len() >= 40);
}

/// The compiler is asked: without debug assertions the module holds no table, no code and no name.
#[test]
fn a_build_without_debug_assertions_has_no_failpoint() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("release.rs");
    let module = root().join("shared/runtime/src/failpoint.rs");
    let uses = "pub fn commit() -> std::io::Result<usize> { failpoint!(\"scheduler.commit.before\"); \
                failpoint!(try \"scheduler.commit.after\")?; Ok(crate::failpoint::handed_down().len()) }";
    fs::write(&source, format!("#[path = {module:?}] pub mod failpoint;\n{uses}\n")).unwrap();
    let compile = |assertions: &str| {
        let assertions = format!("-Cdebug-assertions={assertions}");
        let args = ["--edition=2024", "--crate-type=lib", "--emit=obj", "-Copt-level=3", &assertions, "-o", "release.o", "release.rs"];
        let kept: Vec<(&str, String)> =
            ["HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"].into_iter().filter_map(|n| Some((n, process_env(n)?))).collect();
        let env: Vec<(&str, &str)> = kept.iter().map(|(n, v)| (*n, v.as_str())).collect();
        run("rustc", &args, dir.path(), &env)
    };
    // With them the module needs the rest of the crate, which is not here: the code is there.
    assert!(!compile("yes").status.success(), "with debug assertions the points are code");
    let output = compile("no");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(dir.path().join("release.o")).unwrap();
    let holds = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(holds("commit") && !POINTS.iter().any(|name| holds(name)), "a name of a point is in the object file");
}
