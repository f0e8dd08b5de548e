//! Verdicts on submissions that meet others on their way.

use serde_json::json;

use super::*;
use crate::decide::decide;
use crate::round::tests::{Bench, id};

#[tokio::test]
async fn a_submission_that_meets_itself_is_no_duplicate() {
    let bench = Bench::new().await;
    let desk = bench.desk(&decide);
    let mut round = Round::open(&desk).await.unwrap();
    let namespace = Name::default_namespace();
    let [ours, another] = [1, 2].map(|n| id(n, 0));
    let new = bench.new_run(ours, "queue", json!({"inputs": {"to": "x"}, "idempotency_key": "k"}));
    for (run, verdict) in [(ours, Verdict::accepted(ours)), (another, Verdict::duplicate(another))] {
        // The run was committed after this transaction had looked for it, and before it had the key.
        let row = KeyRow { run, request_hash: new.request_hash.clone() };
        let mut known = Known {
            keys: HashMap::from([((namespace.clone(), "k".to_owned()), row)]),
            plans: HashMap::new(),
            parents: HashMap::new(),
            tombstones: HashMap::new(),
        };
        assert_eq!(round.one_run(&mut known, &namespace, &new, &mut Vec::new()), verdict);
    }
}
