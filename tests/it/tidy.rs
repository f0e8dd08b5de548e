//! What the source tree has to look like: who names whom, sizes, words, licences, and documents that follow the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hopyard_contract::status::{AttemptStatus, FailureCode, PendingReason, RunStatus, StepStatus};
use hopyard_contract::topology;
use serde_json::Value;

#[cfg(debug_assertions)]
mod failpoints;
mod licence;
mod migrations;
pub mod tree;

use tree::{files, metadata, project, read, root, shown};

/// Which project crates each may name. The executable may name all of them.
const ARROWS: [(&str, &[&str]); 12] = [
    ("contract", &[]),
    ("definition", &["contract"]),
    ("worktree", &["contract"]),
    ("blobs", &["contract"]),
    ("runtime", &["contract"]),
    ("store", &["contract"]),
    ("ingest", &["contract", "definition", "runtime", "store", "blobs"]),
    ("scheduler", &["contract", "runtime", "store"]),
    ("executor", &["contract", "definition", "runtime", "blobs", "worktree"]),
    ("metrics", &["contract", "runtime", "store"]),
    ("janitor", &["contract", "runtime", "blobs", "worktree"]),
    ("sim", &["contract", "store", "scheduler"]),
];

/// Crates that only one project crate may name.
const OWNED: [(&str, &str); 4] = [("sqlx", "store"), ("rusqlite", "store"), ("async-nats", "runtime"), ("git2", "worktree")];

/// Crates that do input, output or waiting: the pure crates name none of them.
const IMPURE: [&str; 9] = ["tokio", "async-trait", "futures", "reqwest", "axum", "hyper", "tracing", "nix", "tempfile"];

#[test]
fn crates_name_only_whom_they_may() {
    let crates = project(metadata());
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    for (name, dependencies) in &crates {
        let Some(allowed) = allowed.get(name.as_str()) else {
            assert_eq!(name, "hopyard", "the crate {name} is not in the table of arrows");
            continue;
        };
        for other in dependencies.iter().filter_map(|d| d.strip_prefix("hopyard-")) {
            assert!(allowed.contains(&other) || other == name, "{name} may not name {other}");
        }
    }
    for (foreign, owner) in OWNED {
        for (name, dependencies) in &crates {
            assert!(name == owner || !dependencies.contains(foreign), "only {owner} names {foreign}, but {name} does too");
        }
    }
    for pure in ["contract", "definition"] {
        let found: Vec<_> = IMPURE.iter().filter(|i| crates[pure].contains(**i)).collect();
        assert!(found.is_empty(), "{pure} is pure, but names {found:?}");
    }
}

#[test]
fn executors_and_janitors_never_reach_the_store() {
    let crates = project(metadata());
    for service in ["executor", "janitor"] {
        let mut reached = BTreeSet::new();
        let mut open = vec![service.to_owned()];
        while let Some(name) = open.pop() {
            for other in crates[&name].iter().filter_map(|d| d.strip_prefix("hopyard-")) {
                if reached.insert(other.to_owned()) {
                    open.push(other.to_owned());
                }
            }
        }
        assert!(!reached.contains("store") && !reached.contains("scheduler"), "{service} reaches {reached:?}");
    }
}

#[test]
fn dependencies_are_declared_once_in_the_root() {
    // The fuzz targets are a workspace of their own.
    let own = |f: &Path| f.parent() != Some(root()) && !f.starts_with(root().join("fuzz"));
    for file in files(&["toml"]).into_iter().filter(|f| f.ends_with("Cargo.toml") && own(f)) {
        let text = read(&file);
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]") && !line.trim().is_empty() && !line.starts_with('#') {
                assert!(line.contains("workspace = true"), "{}: `{line}` does not come from the workspace", shown(&file));
            }
        }
    }
}

#[test]
fn files_stay_small() {
    for file in files(&["rs", "sql", "py", "sh"]) {
        let lines = read(&file).lines().count();
        assert!(lines <= 500, "{} has {lines} lines", shown(&file));
    }
}

#[test]
fn every_module_says_what_it_is() {
    for file in files(&["rs"]) {
        let text = read(&file);
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 12, "{} does not open with a sentence", shown(&file));
        assert!(!first.contains("Placeholder"), "{} has not been written", shown(&file));
    }
    for library in files(&["rs"]).into_iter().filter(|f| f.ends_with("src/lib.rs")) {
        let text = read(&library);
        let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
        assert!(head.contains("never"), "{} does not say what the crate never does", shown(&library));
    }
}

#[test]
fn modules_have_names_that_mean_something() {
    let vague = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "mod", "base"];
    for file in files(&["rs"]) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(!vague.contains(&stem.as_str()), "{}", shown(&file));
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        assert!(!vague.contains(&folder.as_str()), "{}", shown(&file));
    }
}

#[test]
fn words_that_do_not_belong_here_are_not_here() {
    // Put together from parts, so that this list does not find itself.
    let everywhere = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["unimplemented!", "("],
        ["todo!", "("],
        ["dbg!", "("],
        ["#[ig", "nore"],
        ["job", "_id"],
        ["task", "_id"],
        ["worker", "_id"],
        ["/wo", "rk/"],
        ["/tmp/", "hop/"],
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["design", ".md"],
        ["acceptance", ".md"],
        ["contract", ".md"],
        ["lorem ", "ipsum"],
    ];
    for file in files(&["rs", "sql", "py", "sh", "md", "yaml", "yml", "toml", "json", "run", "bootstrap", "Makefile"]) {
        let text = read(&file);
        for word in everywhere.iter().map(|parts| parts.concat()) {
            let line = text.lines().position(|l| l.contains(&word));
            assert!(line.is_none(), "{}:{}: `{word}`", shown(&file), line.unwrap_or_default() + 1);
        }
    }
}

#[test]
fn every_dependency_has_a_licence_that_may_be_used() {
    let refused: Vec<String> = tree::packages(metadata())
        .filter_map(|package| {
            let expression = package["license"].as_str().unwrap_or("none");
            (!licence::allowed(expression)).then(|| format!("{} {}: {expression}", package["name"], package["version"]))
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn one_tls_and_one_version_of_what_is_big() {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in tree::packages(metadata()) {
        let (Some(name), Some(version)) = (package["name"].as_str(), package["version"].as_str()) else { continue };
        versions.entry(name).or_default().insert(version);
    }
    for banned in ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"] {
        assert!(!versions.contains_key(banned), "{banned} is in the graph: TLS is rustls on ring");
    }
    for big in [
        "tokio",
        "axum",
        "hyper",
        "http",
        "h2",
        "rustls",
        "ring",
        "reqwest",
        "serde",
        "serde_json",
        "sqlx",
        "async-nats",
        "git2",
        "chrono",
        "uuid",
        "clap",
    ] {
        assert!(versions.get(big).is_none_or(|v| v.len() == 1), "{big}: {:?}", versions[big]);
    }
}

#[test]
fn published_schemas_are_those_of_the_code() {
    let folder = root().join("shared/contract/schemas");
    let wanted: BTreeMap<String, Value> =
        hopyard_contract::schema::all().into_iter().map(|(name, schema)| (format!("{name}.json"), schema)).collect();
    let kept: BTreeSet<String> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(kept, wanted.keys().cloned().collect(), "files in {}", shown(&folder));
    for (name, schema) in wanted {
        let text = hopyard_contract::schema::file(&schema);
        assert!(
            read(&folder.join(&name)) == text,
            "{name} is not what the code says (cargo run -p hopyard-contract --example write_schemas writes it)"
        );
    }
}

#[test]
fn the_page_of_settings_is_that_of_the_code() {
    let page = read(&root().join("docs/configuration.md"));
    let (_, rest) = page.split_once("<!-- settings -->\n").expect("the page has a place for the table");
    let (table, _) = rest.split_once("<!-- /settings -->").expect("the table ends");
    let wanted = hopyard_runtime::config::settings_page();
    assert!(table == wanted, "the table in docs/configuration.md should be:\n{wanted}");
}

/// Who reads each subject of a stream: a file, and what in it does.
const READERS: [(&str, &str, &str); 11] = [
    ("hopyard.cmd.submit.*", "services/ingest/src", "topology::ingest()"),
    ("hopyard.cmd.accept.*", "services/ingest/src", "topology::ingest()"),
    ("hopyard.cmd.cancel.*", "services/ingest/src", "topology::ingest()"),
    ("hopyard.work.*", "services/executor/src", "topology::executors("),
    ("hopyard.result.*", "services/scheduler/src", "topology::scheduler()"),
    ("hopyard.event.*.*", "services/metrics/src", "topology::metrics()"),
    // The door answers `GET /receipts/{id}` from the store; the tail is for the submitter.
    ("hopyard.receipt.*.*", "services/ingest/src", ".receipt("),
    ("hopyard.log.*.*", "services/ingest/src", "subject::log("),
    ("hopyard.gc.*", "services/janitor/src", "topology::janitor("),
    ("hopyard.dlq.*", "services/ingest/src", "topology::DLQ"),
    ("hopyard.api.submit.*", "services/ingest/src", "subject::API_SUBMIT"),
];

#[test]
fn every_subject_has_a_reader() {
    let stored: BTreeSet<&str> = topology::STREAMS.iter().flat_map(|s| s.subjects.iter().copied()).collect();
    for (subject, folder, words) in READERS {
        assert!(stored.contains(subject) || subject == hopyard_contract::subject::API_SUBMIT, "{subject} is in no stream");
        let found = files(&["rs"]).into_iter().filter(|f| f.starts_with(root().join(folder))).any(|f| read(&f).contains(words));
        assert!(found, "nothing below {folder} reads {subject}: no `{words}`");
    }
    let read: BTreeSet<&str> = READERS.iter().map(|(subject, ..)| *subject).collect();
    assert!(stored.is_subset(&read), "nobody reads {:?}", stored.difference(&read).collect::<Vec<_>>());
}

#[test]
fn both_stores_know_exactly_the_words_of_the_code() {
    let words = |all: Vec<&'static str>| format!("({})", all.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", "));
    let lists = [
        words(RunStatus::ALL.iter().map(|s| s.as_str()).collect()),
        words(StepStatus::ALL.iter().map(|s| s.as_str()).collect()),
        words(AttemptStatus::ALL.iter().map(|s| s.as_str()).collect()),
        words(PendingReason::ALL.iter().map(|s| s.as_str()).collect()),
        words(FailureCode::ALL.iter().map(|s| s.as_str()).collect()),
    ];
    for engine in ["sqlite", "postgres"] {
        let folder = root().join("migrations").join(engine).join("runs");
        let text: String = files(&["sql"]).iter().filter(|f| f.starts_with(&folder)).map(|f| read(f)).collect();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( '", "('").replace("' )", "')");
        for list in &lists {
            assert!(text.contains(list.as_str()), "no check of {engine} reads {list}");
        }
    }
}

/// Every query of a dashboard asks for something that a service serves.
#[test]
fn every_metric_on_a_dashboard_exists() {
    let code: String = files(&["rs"]).iter().filter(|file| !file.starts_with(root().join("tests"))).map(|file| read(file)).collect();
    let dashboards: Vec<_> = files(&["json"]).into_iter().filter(|file| file.starts_with(root().join("observability"))).collect();
    assert!(!dashboards.is_empty(), "the dashboards were found");
    for file in dashboards {
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let queries: Vec<&str> = panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()).collect();
            let words = queries.iter().flat_map(|query| query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
            let names: BTreeSet<&str> = words.filter(|word| word.starts_with("hopyard_")).collect();
            assert!(!names.is_empty(), "{}: {} asks for nothing", shown(&file), panel["title"]);
            for name in names {
                let served = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
                assert!(code.contains(&format!("\"{served}\"")), "{}: no service serves {name}", shown(&file));
            }
        }
    }
}
