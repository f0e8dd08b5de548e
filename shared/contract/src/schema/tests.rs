//! The schemas in the repository are those of the types, and they say what the doors do.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

#[test]
fn the_files_in_the_repository_are_fresh() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap());
    }
    let fresh: BTreeMap<String, String> = all().iter().map(|(name, schema)| ((*name).to_owned(), file(schema))).collect();
    let stale: Vec<&String> = fresh.iter().filter(|(name, text)| found.get(*name) != Some(text)).map(|(name, _)| name).collect();
    let dead: Vec<&String> = found.keys().filter(|name| !fresh.contains_key(*name)).collect();
    assert!(
        stale.is_empty() && dead.is_empty(),
        "stale {stale:?}, dead {dead:?}: run `cargo run -p hopyard-contract --example write_schemas` and commit the files"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, root: &Value, name: &str) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{name}: {target}");
                }
                map.values().for_each(|inner| walk(inner, root, name));
            }
            Value::Array(items) => items.iter().for_each(|inner| walk(inner, root, name)),
            _ => {}
        }
    }
    for (name, schema) in all() {
        walk(&schema, &schema, name);
    }
}

#[test]
fn one_name_means_one_type_in_all_schemas() {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for (name, schema) in all() {
        for (key, definition) in schema["$defs"].as_object().into_iter().flatten() {
            let first = seen.entry(key.clone()).or_insert_with(|| definition.clone());
            // A list of requests holds the patched form of a request; both are the same by now.
            assert_eq!(first, definition, "{name}: {key}");
        }
    }
}

#[test]
fn requests_are_described_as_doors_take_them() {
    let schemas: BTreeMap<_, _> = all().into_iter().collect();
    let request = &schemas["run-request"];
    assert_eq!(request["additionalProperties"], false);
    assert!(request["properties"]["budget"]["properties"]["cost_usd"].is_object());
    assert_eq!(request["properties"]["priority"]["maximum"], 3);
    let many = &schemas["run-requests"];
    assert_eq!(many["properties"]["runs"]["maxItems"], 500);
    assert!(many["$defs"]["RunRequest"]["properties"]["budget"]["properties"]["cost_usd"].is_object());
}
