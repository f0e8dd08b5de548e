# Every recipe is one line; `scripts/bootstrap` says where the servers are that Hopyard starts for itself.
.PHONY: demo dev test check sim chaos crash agents schemathesis bench clean

demo: ## One real run on this checkout, end to end, then everything is gone but its data
	@programs=$$(scripts/bootstrap demo) && set -a && eval "$$programs" && exec cargo run --locked -- demo
dev: ## The same stack, staying up
	@programs=$$(scripts/bootstrap demo) && set -a && eval "$$programs" && exec cargo run --locked -- dev
test: ## All tests, on real servers of our own; four at once, as most of them wait
	@programs=$$(scripts/bootstrap test) && set -a && eval "$$programs" && RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} exec cargo test --workspace --locked
check: ## Format, lints, documentation
	@cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings && RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
agents: ## The real Claude Code and Codex at work against the fake provider, without a network (fetches them by npm, 640 MB)
	@programs=$$(scripts/bootstrap agents) && set -a && eval "$$programs" && cargo test --workspace --locked --features hopyard/agents --test it --no-run && exec "$$HOPYARD_BWRAP" --dev-bind / / --unshare-net --die-with-parent cargo test --workspace --offline --locked --features hopyard/agents --test it real_agents -- --nocapture --test-threads 1

schemathesis: ## Requests made from the OpenAPI document, against a private stack; by hand EXAMPLES=2000 SECONDS_AT_MOST=36000
	@programs=$$(scripts/bootstrap schemathesis) && set -a && eval "$$programs" && exec scripts/schemathesis $(EXAMPLES)
chaos: ## Clients go on while everything fails: make chaos SECONDS=600 SEED=7 STORE=postgres [FAULTS=kill,drain] [CALM=10] [OTHER=git revision] [PROGRAM=hopyard]
	@programs=$$(scripts/bootstrap chaos) && set -a && eval "$$programs" && $(if $(OTHER),HOPYARD_CHAOS_OTHER=$$(scripts/other-version $(OTHER)) && )$(if $(PROGRAM),HOPYARD_PROGRAM=$(abspath $(PROGRAM)) )$(if $(FAULTS),HOPYARD_CHAOS_FAULTS=$(FAULTS) )$(if $(CALM),HOPYARD_CHAOS_CALM=$(CALM) )HOPYARD_CHAOS_SECONDS=$(or $(SECONDS),120) HOPYARD_CHAOS_SEED=$(or $(SEED),7) HOPYARD_CHAOS_STORE=$(or $(STORE),sqlite) exec scripts/with-volumes cargo test --workspace --locked --features hopyard/chaos --test it nothing_promised_is_lost_in_a_storm -- --nocapture
sim: ## Simulated worlds for SECONDS (60), or the one world of SEED
	@cargo test --workspace --locked $(foreach crate,contract runtime scheduler sim store,--config profile.dev.package.hopyard-$(crate).opt-level=3 --config profile.dev.package.hopyard-$(crate).codegen-units=1) --test sim -- --seconds=$(if $(filter command,$(origin SECONDS)),$(SECONDS),60) $(if $(filter command,$(origin SEED)),--seed=$(SEED))
crash: ## Every service crashes at each of its failpoints, on both engines
	@programs=$$(scripts/bootstrap test) && set -a && eval "$$programs" && exec cargo test --workspace --locked --features hopyard/chaos --test it every_service_may_die_at_every_point -- --nocapture
bench: ## What this machine can do, on an optimised build; JSON=file for the figures alone, a line of JSON each
	@programs=$$(scripts/bootstrap test) && set -a && eval "$$programs" && cargo build --release --locked --bin hopyard && exec scripts/bench target/release/hopyard $(JSON)
clean: ## Build output and the data of dev and demo; unpacked tools stay
	@rm -rf target .hopyard .schemathesis
