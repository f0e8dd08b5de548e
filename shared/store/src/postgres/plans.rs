//! Plans by hash, kept in memory once read: they never change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hopyard_contract::plan::Plan;
use sqlx::PgConnection;

use super::{failure, rows, select};
use crate::{Error, Result};

/// Most plans in memory; when it is full, it starts anew.
const MOST: usize = 512;

/// Plans that have been read.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: Mutex<HashMap<String, Arc<Plan>>>,
}

impl Plans {
    /// Plans by hash; unknown ones are absent.
    pub(super) async fn get(&self, connection: &mut PgConnection, hashes: &[&str]) -> Result<HashMap<String, Arc<Plan>>> {
        let (mut found, missing) = self.look(hashes);
        if missing.is_empty() {
            return Ok(found);
        }
        let read: Vec<(String, String)> = select("SELECT hash, plan::text FROM hopyard_runs.plans WHERE hash = ANY($1)")
            .bind(missing)
            .fetch_all(connection)
            .await
            .map_err(failure)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (hash, text) in read {
            let plan = Plan::from_stored(rows::json(&text, "plan", &hash)?).map_err(|why| Error::Refused(format!("plan {hash}: {why}")))?;
            let plan = Arc::new(plan);
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(hash.clone(), Arc::clone(&plan));
            found.insert(hash, plan);
        }
        Ok(found)
    }

    fn look(&self, hashes: &[&str]) -> (HashMap<String, Arc<Plan>>, Vec<String>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for hash in hashes {
            if found.contains_key(*hash) {
                continue;
            }
            match known.get(*hash) {
                Some(plan) => {
                    found.insert((*hash).to_owned(), Arc::clone(plan));
                }
                None => missing.push((*hash).to_owned()),
            }
        }
        (found, missing)
    }
}
