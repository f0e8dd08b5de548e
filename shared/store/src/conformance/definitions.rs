//! Definitions: names with versions, and texts that only runs name.

use hopyard_contract::Name;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};

use super::{Bench, samples};

async fn put(bench: &Bench, name: &str, source: &str, if_match: Option<&str>) -> PutDefinitionReply {
    let put = samples::put(&bench.namespace, name, source, &samples::plan(), true);
    bench.runs.put_definition(&PutDefinition { if_match: if_match.map(str::to_owned), ..put }).await.unwrap()
}

pub(super) async fn versions_grow(bench: Bench) {
    assert_eq!(put(&bench, "wf", "one", None).await, PutDefinitionReply::Created { version: 1 });
    assert_eq!(put(&bench, "wf", "one", None).await, PutDefinitionReply::Unchanged { version: 1 });
    assert_eq!(put(&bench, "wf", "two", None).await, PutDefinitionReply::Updated { version: 2 });
    assert_eq!(put(&bench, "wf", "one", None).await, PutDefinitionReply::Updated { version: 3 }, "an older text is a new version");
    assert_eq!(put(&bench, "another", "x", None).await, PutDefinitionReply::Created { version: 1 });

    let name = Name::literal("wf");
    let newest = bench.reader.workflow(&bench.namespace, &name, None).await.unwrap().unwrap();
    assert_eq!((newest.version, newest.hash.as_str(), newest.definition.as_deref()), (3, "hash-of-one", Some("one")));
    assert_eq!(newest.plan, Some(serde_json::to_value(samples::plan()).unwrap()));
    let second = bench.reader.workflow(&bench.namespace, &name, Some(2)).await.unwrap().unwrap();
    assert_eq!((second.version, second.definition.as_deref()), (2, Some("two")));
    assert_eq!(bench.reader.workflow(&bench.namespace, &name, Some(4)).await.unwrap(), None);
    let versions = bench.reader.workflow_versions(&bench.namespace, &name).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(versions.iter().all(|v| v.definition.is_none() && v.plan.is_none()), "lists have no texts");

    let names = async |after: Option<&Name>, limit: u32| {
        let listed = bench.reader.workflows(&bench.namespace, after, limit).await.unwrap();
        listed.into_iter().map(|w| (w.name.to_string(), w.version)).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 10).await, [("another".to_owned(), 1), ("wf".to_owned(), 3)]);
    assert_eq!(names(None, 1).await, [("another".to_owned(), 1)]);
    assert_eq!(names(Some(&Name::literal("another")), 10).await, [("wf".to_owned(), 3)]);
    assert_eq!(bench.reader.definition(&bench.namespace, "hash-of-two").await.unwrap().as_deref(), Some("two"));
    assert_eq!(bench.reader.definition(&bench.namespace, "hash-of-none").await.unwrap(), None);
    assert_eq!(bench.reader.definition(&name, "hash-of-two").await.unwrap(), None, "texts belong to their namespace");

    // The same text with another plan is another version: a later build may read it otherwise.
    let mut plan = samples::plan();
    plan.steps.truncate(1);
    let replanned = samples::put(&bench.namespace, "wf", "one", &plan, true);
    assert_eq!(bench.runs.put_definition(&replanned).await.unwrap(), PutDefinitionReply::Updated { version: 4 });
    let plans = within_tx!(bench, plans(&[plan.hash(), samples::plan().hash(), "none".to_owned()]));
    assert_eq!(plans.len(), 2);
    assert_eq!(*plans[&plan.hash()], plan);
}

pub(super) async fn puts_are_conditional(bench: Bench) {
    assert_eq!(put(&bench, "wf", "one", Some("hash-of-one")).await, PutDefinitionReply::Mismatch, "there is nothing to match yet");
    assert_eq!(bench.reader.workflow(&bench.namespace, &Name::literal("wf"), None).await.unwrap(), None);
    assert_eq!(put(&bench, "wf", "one", None).await, PutDefinitionReply::Created { version: 1 });
    assert_eq!(put(&bench, "wf", "two", Some("hash-of-none")).await, PutDefinitionReply::Mismatch);
    assert_eq!(put(&bench, "wf", "two", Some("hash-of-one")).await, PutDefinitionReply::Updated { version: 2 });
    assert_eq!(
        put(&bench, "wf", "two", Some("hash-of-one")).await,
        PutDefinitionReply::Unchanged { version: 2 },
        "a repeat whose answer was lost"
    );
}

pub(super) async fn unregistered_definitions_have_no_version(bench: Bench) {
    let own = samples::put(&bench.namespace, "own", "of a run", &samples::plan(), false);
    for _ in 0..2 {
        assert!(matches!(bench.runs.put_definition(&own).await.unwrap(), PutDefinitionReply::Created { .. }));
    }
    assert_eq!(bench.reader.workflow(&bench.namespace, &Name::literal("own"), None).await.unwrap(), None);
    assert!(bench.reader.workflows(&bench.namespace, None, 10).await.unwrap().is_empty());
    assert_eq!(bench.reader.definition(&bench.namespace, "hash-of-of a run").await.unwrap().as_deref(), Some("of a run"));
    assert_eq!(put(&bench, "own", "of a run", None).await, PutDefinitionReply::Created { version: 1 }, "it may be registered later");
}
