//! Agents by name: the presets that are there from the start, and the roles of a workflow.

use serde_json::json;

use crate::harness::{Harness, Setup};

/// Covers C17 and C18: the presets run on a fresh install, and the one that only looks changes nothing.
#[tokio::test]
async fn the_presets_run_on_a_fresh_install() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    for (name, inputs, files) in [
        ("builder", json!({ "task": "a page about hops" }), 1),
        ("surgeon", json!({ "task": "the page is empty", "cli": "fake" }), 1),
        ("guardian", json!({}), 0),
    ] {
        let run = harness.submit(json!({ "workflow": name, "inputs": inputs, "repo": { "url": repo.display().to_string() } })).await;
        let state = harness.wait_completed(&run).await;
        assert_eq!((&state["workflow"], state["result"]["files"].as_array().map(Vec::len)), (&json!(name), Some(files)), "{state:#}");
    }
    let refused = harness.http("POST", "/api/v1/runs", json!({ "workflow": "builder", "inputs": { "task": "x", "cli": "gpt" } })).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/inputs/cli")));
    let stored = "version: 1\nname: builder\nsteps: [{id: mine, shell: 'true'}]\n";
    assert_eq!(harness.put_workflow("builder", stored).await.status, 201);
    let state = harness.finish(json!({ "workflow": "builder" })).await;
    assert_eq!(state["steps"][0]["id"], "mine", "a stored workflow stands above the preset");
    harness.close().await;
}

/// Covers C15: a role is chosen by an input, brings the agent and what it may do, and one that there is not is refused at the door.
#[tokio::test]
async fn an_input_chooses_the_role_of_an_agent() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let write = json!({ "use": [{ "name": "Write", "input": { "file_path": "made.txt", "content": "x" } }] }).to_string();
    let workflow = json!({
        "version": 1, "name": "sabine", "inputs": { "role": { "type": "string" } },
        "roles": {
            "SABINE_ARCHITECT": { "cli": "fake", "permissions": "read", "prompt": "You plan.", "script": "{\"say\": \"a plan\"}" },
            "SABINE_BUILDER": { "cli": "fake", "script": write },
        },
        "steps": [{ "id": "work", "agent": { "role": "${{ inputs.role }}", "prompt": "The task." } }],
    });
    assert_eq!(harness.put_workflow("sabine", &workflow.to_string()).await.status, 201);
    let request = |role: &str| json!({ "workflow": "sabine", "inputs": { "role": role }, "repo": { "url": repo.display().to_string() } });
    for (role, files) in [("SABINE_ARCHITECT", 0), ("SABINE_BUILDER", 1)] {
        let state = harness.finish(request(role)).await;
        assert_eq!((&state["status"], state["result"]["files"].as_array().map(Vec::len)), (&json!("completed"), Some(files)), "{state:#}");
    }
    let refused = harness.http("POST", "/api/v1/runs", request("SABINE_COOK")).await;
    let error = &refused.json()["errors"][0];
    assert_eq!((refused.status, &error["code"], &error["pointer"]), (422, &json!("unknown_role"), &json!("/inputs/role")), "{error:#}");
    harness.close().await;
}
