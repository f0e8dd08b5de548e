//! An audit sees everything, page by page, as it is stored.

use chrono::TimeDelta;
use hopyard_contract::RunId;
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::submit::{Receipt, Verdict};
use uuid::Uuid;

use super::{Bench, samples};
use crate::audit::{CrowdedSlot, Overdue, Touch};
use crate::runs::{KeyRow, RunWrite, Writes};

pub(super) async fn histories_are_whole_and_of_one_moment(bench: Bench) {
    let full = samples::full_run(&bench.namespace, &bench.pool, &bench.plan_hash);
    let steps = [samples::full_step("a", &bench.pool), samples::claimable(bench.step("b"), samples::at(9))];
    let attempts = vec![samples::full_attempt("a", 1), samples::leased("b", 1, Uuid::now_v7())];
    let events = vec![samples::event(&full, 1, samples::at(0)), samples::event(&full, 2, samples::at(0))];
    let timer = Some(Some(samples::at(60_000)));
    bench.put(RunWrite { attempts, events: events.clone(), timer, ..samples::new_run(&full, &steps) }).await.unwrap();
    let plain = bench.run();
    bench.accept(&plain, &[]).await;

    let loaded = bench.load(&[full.id, plain.id]).await;
    let found = bench.audit().histories(&[plain.id, RunId::mint(), full.id]).await.unwrap();
    let mut expected: Vec<_> =
        loaded.into_iter().map(|s| if s.run.id == full.id { (s, events.clone()) } else { (s, Vec::new()) }).collect();
    expected.sort_by_key(|(state, _)| state.run.id);
    assert_eq!(found.runs, expected);
    assert_eq!(found.differing, [], "columns say what the documents say");
    assert!(found.now > plain.created_at - TimeDelta::minutes(1), "{}", found.now);
}

pub(super) async fn runs_are_found_by_id_and_by_time(bench: Bench) {
    // Nobody else's runs are of this time.
    let base = samples::at(-1_000_000_000_000);
    let at = |ms: i64| base + TimeDelta::milliseconds(ms);
    let mut ids = Vec::new();
    for ms in 0..4 {
        let mut run = samples::created(bench.run(), at(ms));
        if ms == 1 {
            run = samples::completed(&run);
        }
        let events = vec![samples::event(&run, 1, at(100 - ms))];
        bench.put(RunWrite { events, ..samples::new_run(&run, &[]) }).await.unwrap();
        ids.push(run.id);
    }
    let ours = |found: Vec<RunId>| found.into_iter().filter(|id| ids.contains(id)).collect::<Vec<_>>();
    assert_eq!(ours(bench.audit().runs_from(ids[1], 2).await.unwrap()), ids[1..3], "from an id on, a page");
    let open = bench.audit().open_runs(ids[0], ids[3], 10).await.unwrap();
    assert_eq!(ours(open), [ids[0], ids[2]], "what has ended is not open, and the end is not included");

    let start = Touch { at: at(97), run: ids[3], first_seq: 1 };
    let touched = bench.audit().touched(&start, 2).await.unwrap();
    let page = |run: usize, ms| Touch { at: at(ms), run: ids[run], first_seq: 1 };
    assert_eq!(touched, [page(2, 98), page(1, 99)], "behind a place, in order of time");
    assert_eq!(bench.audit().touched(&touched[1], 1).await.unwrap(), [page(0, 100)]);
}

pub(super) async fn keys_and_receipts_are_paged(bench: Bench) {
    let run = bench.run();
    let key = |name: &str, run: RunId| (bench.namespace.clone(), name.to_owned(), KeyRow { run, request_hash: "h".to_owned() });
    let ghost = RunId::mint();
    // Sequences are everybody's: take some that no earlier pass over the same store has used.
    let seq = u64::try_from(RunId::mint().unix_millis()).unwrap() * 4;
    let receipt = |seq: u64| Receipt {
        v: 1,
        id: seq.to_string(),
        seq: Some(seq),
        namespace: bench.namespace.clone(),
        received_at: samples::at(0),
        items: vec![Verdict::accepted(run.id)],
        cancel: false,
    };
    let receipts = vec![(receipt(seq), 5), (receipt(seq + 2), 5), (receipt(seq + 2), 9), (receipt(seq + 3), 4)];
    let keys = vec![key("a", run.id), key("b", ghost)];
    bench.write(Writes { runs: vec![samples::new_run(&run, &[])], keys, receipts: receipts.clone(), ..Writes::default() }).await.unwrap();

    let page = bench.audit().keys(Some((&bench.namespace, "")), 2).await.unwrap();
    let found: Vec<_> = page.iter().map(|k| (k.key.as_str(), k.run, k.known)).collect();
    assert_eq!(found, [("a", run.id, true), ("b", ghost, false)], "a key without its run shows");
    assert_eq!(bench.audit().keys(Some((&bench.namespace, "a")), 1).await.unwrap(), page[1..]);

    assert_eq!(bench.audit().receipts((seq, 4), 3).await.unwrap(), receipts[..3]);
    assert_eq!(bench.audit().receipts((seq + 2, 5), 1).await.unwrap(), receipts[2..3]);
    assert_eq!(bench.audit().receipt_numbers(seq, seq + 3, 5).await.unwrap(), [seq, seq + 2], "each once, none of an earlier stream");
    assert_eq!(bench.audit().receipt_numbers(seq, seq + 3, 6).await.unwrap(), [seq + 2]);
    assert_eq!(bench.audit().first_receipt(i64::MAX).await.unwrap(), None);
}

pub(super) async fn what_is_late_or_crowded_shows(bench: Bench) {
    let key = format!("{}/k", bench.namespace);
    let mut holders = Vec::new();
    for limit in [1, 2, 1] {
        let mut run = bench.run();
        run.slots = vec![samples::slot(&key, limit, true)];
        bench.accept(&run, &[]).await;
        holders.push(run.id);
    }
    let crowded = bench.audit().crowded_slots(1000).await.unwrap();
    let ours: Vec<_> = crowded.into_iter().filter(|s| s.key == key).collect();
    assert_eq!(ours, [CrowdedSlot { key, holders: 3, limit: 2 }]);

    let long_ago = samples::at(-2_000_000_000_000);
    let run = bench.run();
    bench.put(RunWrite { timer: Some(Some(long_ago)), ..samples::new_run(&run, &[]) }).await.unwrap();
    let late = bench.audit().overdue(long_ago + TimeDelta::milliseconds(1), 10).await.unwrap();
    assert_eq!(late, [Overdue { run: run.id, kind: "timer".to_owned(), at: long_ago }]);
    assert_eq!(bench.audit().overdue(long_ago, 10).await.unwrap(), [], "only what is before");
    bench.put(RunWrite { timer: Some(None), ..samples::change(&run) }).await.unwrap();
}

pub(super) async fn the_inventory_is_paged(bench: Bench) {
    let run = bench.run();
    let row = |generation, status| samples::workspace(&run, generation, status, samples::at(1));
    let rows = [row(1, WorkspaceStatus::Active), row(2, WorkspaceStatus::Removed), row(3, WorkspaceStatus::Reclaimable)];
    bench.write(Writes { workspaces: rows.to_vec(), ..Writes::default() }).await.unwrap();
    assert_eq!(bench.audit().inventory(&format!("{}-g", run.id), 2).await.unwrap(), [rows[0].clone(), rows[2].clone()]);
    assert_eq!(bench.audit().inventory(&rows[0].id, 1).await.unwrap(), rows[2..]);
    let ids = [rows[1].id.clone(), "none".to_owned()];
    assert_eq!(bench.audit().inventory_of(&ids).await.unwrap(), rows[1..2], "by id, removed ones as well");
}
