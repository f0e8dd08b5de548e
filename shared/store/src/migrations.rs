//! Migrations of both engines, embedded in the program: one set per owner, forward only.
//!
//! They are listed here and not found by sqlx's macro, which would have every build compile both drivers once more, and SQLite
//! with them, for the compiler's own use.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// The migrations of an owner.
pub(crate) type Migrations = LazyLock<Migrator>;

/// The sets of an engine by their owners; both engines have files of the same names.
macro_rules! owners {
    ($engine:literal) => {
        /// Runs with all that belongs to them.
        pub(crate) static RUNS: Migrations =
    set!($engine, "runs": "0001_runs", "0002_views", "0003_slot_members", "0004_aliases", "0005_places", "0006_budgets", "0007_plain_checks");
        /// What the metrics service knows of runs.
pub(crate) static METRICS: Migrations = set!($engine, "metrics": "0001_metrics");
        /// What doors keep.
pub(crate) static INGEST: Migrations = set!($engine, "ingest": "0001_ingest");
    };
}

macro_rules! set {
    ($engine:literal, $owner:literal: $($name:literal),+) => {
        std::sync::LazyLock::new(|| {
            super::migrator(&[$(($name, include_str!(concat!("../../../migrations/", $engine, "/", $owner, "/", $name, ".sql")))),+])
        })
    };
}

pub(crate) mod postgres {
    //! Those of PostgreSQL.
    use super::Migrations;
    owners!("postgres");
}

pub(crate) mod sqlite {
    //! Those of the embedded files.
    use super::Migrations;
    owners!("sqlite");
}

/// Files in the order in which they apply. Version and description stand in the name, `VERSION_WORDS`.
fn migrator(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(name, sql): &(&'static str, &'static str)| {
        let (version, words) = name.split_once('_').unwrap_or((name, ""));
        let version = version.parse().expect("the name of a migration begins with its number");
        Migration::new(version, words.replace('_', " ").into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Migrations, postgres, sqlite};

    /// Files of an owner as they are listed here: their versions and words.
    fn listed(set: &Migrations) -> Vec<String> {
        set.iter().map(|migration| format!("{:04}_{}.sql", migration.version, migration.description.replace(' ', "_"))).collect()
    }

    fn on_disk(engine: &str, owner: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(engine).join(owner);
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_is_in_the_program() {
        let sets = [
            ("postgres", "runs", &postgres::RUNS),
            ("postgres", "metrics", &postgres::METRICS),
            ("postgres", "ingest", &postgres::INGEST),
            ("sqlite", "runs", &sqlite::RUNS),
            ("sqlite", "metrics", &sqlite::METRICS),
            ("sqlite", "ingest", &sqlite::INGEST),
        ];
        for (engine, owner, set) in sets {
            assert_eq!(listed(set), on_disk(engine, owner), "{engine} {owner}");
        }
    }
}
