//! Migrations: released files stay as they are, both engines go together, and nothing is taken away outside of a contract step.

use std::collections::BTreeMap;

use super::tree::{files, read, root, shown};

/// What takes something away from the build before, in lower case, and how it is called.
const TAKES_AWAY: [(&str, &str); 8] = [
    ("drop table", "drops a table"),
    ("drop column", "drops a column"),
    ("drop view", "drops a view"),
    ("drop schema", "drops a schema"),
    ("drop type", "drops a type"),
    ("rename", "renames"),
    ("set not null", "refuses rows that the build before writes"),
    ("alter type", "changes a type"),
];

/// The first line of a migration that may take something away; the release that stopped to use it follows.
const CONTRACT: &str = "-- contract: ";

/// What a migration takes away, if anything.
fn taken(sql: &str) -> Vec<&'static str> {
    let code: String = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let code = code.to_ascii_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found: Vec<_> = TAKES_AWAY.into_iter().filter(|(words, _)| code.contains(words)).map(|(_, what)| what).collect();
    // `alter table … alter [column] … type …` in any of its forms.
    let alters = code.split(';').any(|statement| {
        let statement = statement.trim();
        statement.starts_with("alter table") && statement.contains(" alter ") && statement.contains(" type ")
    });
    if alters {
        found.push("changes a type");
    }
    found
}

/// Covers I7: a build and the one before it work on one schema while a deployment rolls.
#[test]
fn only_a_contract_step_takes_something_away() {
    for file in migrations() {
        let sql = read(&file);
        let first = sql.lines().next().unwrap_or_default();
        let taken = taken(&sql);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let named = name.split_once('_').is_some_and(|(_, words)| words.starts_with("contract_"));
        assert_eq!(named, first.starts_with(CONTRACT), "{}: a contract step is called so, and nothing else is", shown(&file));
        match first.strip_prefix(CONTRACT) {
            None => assert!(
                taken.is_empty(),
                "{} {}: that is a contract step, whose first line is `{CONTRACT}unused since <version>`, one release after the code that \
                 stopped using it (migrations/README.md)",
                shown(&file),
                taken.join(" and ")
            ),
            Some(reason) => {
                assert!(!taken.is_empty(), "{} is marked as a contract step and takes nothing away", shown(&file));
                let version = reason.strip_prefix("unused since ").unwrap_or_default();
                let released = version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok());
                assert!(released, "{}: the first line is `{CONTRACT}unused since <version>`", shown(&file));
                assert_ne!(version, env!("CARGO_PKG_VERSION"), "{}: a contract step comes one release later", shown(&file));
            }
        }
    }
}

#[test]
fn what_takes_something_away_is_seen() {
    for sql in [
        "ALTER TABLE runs\n  DROP  COLUMN old;",
        "drop table runs;",
        "alter table runs rename column a to b;",
        "alter table runs rename to jobs;",
        "alter table runs alter column a set not null;",
        "alter table runs alter a type bigint;",
        "alter table runs alter column a set data type bigint;",
        "alter type status add value 'x';",
    ] {
        assert!(!taken(sql).is_empty(), "{sql}");
    }
    for sql in
        ["alter table runs add column a text;", "-- drop table runs\nselect 1;", "create table t (type text not null);", "drop index old;"]
    {
        assert_eq!(taken(sql), Vec::<&str>::new(), "{sql}");
    }
}

/// Covers I7: the same steps in the same order on both engines.
#[test]
fn both_engines_have_the_same_migrations() {
    let mut by_owner: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for file in migrations() {
        let inside = file.strip_prefix(root().join("migrations")).unwrap().to_owned();
        let mut parts = inside.iter().map(|part| part.to_string_lossy().into_owned());
        let (engine, owner, name) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        by_owner.entry(owner).or_default().entry(engine).or_default().push(name);
    }
    assert!(by_owner.contains_key("runs"), "{by_owner:?}");
    for (owner, engines) in by_owner {
        assert_eq!(engines.len(), 2, "{owner} on {:?}", engines.keys());
        let mut lists = engines.into_values().map(|mut names| {
            names.sort();
            names
        });
        let (first, second) = (lists.next().unwrap(), lists.next().unwrap());
        assert_eq!(first, second, "{owner}");
        for (i, name) in first.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", i + 1)), "{owner}: {name} is not number {}", i + 1);
        }
    }
}

fn migrations() -> Vec<std::path::PathBuf> {
    files(&["sql"]).into_iter().filter(|file| file.starts_with(root().join("migrations"))).collect()
}
