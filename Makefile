# The two that matter: `make run` and `make test`.
# Budgets are deadlines, in seconds, for a cold build on an idle machine with two cores; a suite that exceeds its own fails.

SHELL := /bin/bash
.DEFAULT_GOAL := help

BUDGET_CHECK := 1200
BUDGET_BUILD := 1200
BUDGET_UNIT := 600
BUDGET_E2E := 900

FUZZ_SECONDS ?= 30

.PHONY: help run build check test test-unit test-e2e conformance-record bench scale fuzz size doc images clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

run: ## Start both planes, a private Postgres, and a demo; print what to paste
	@scripts/run

build: ## Build everything
	@timeout $(BUDGET_BUILD) cargo build --workspace --all-targets --locked

check: ## Formatting and lints, warnings are errors
	@cargo fmt --all --check
	@timeout $(BUDGET_CHECK) cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

test: ## Install what is missing, then check and run every suite
	@scripts/test $(BUDGET_UNIT) $(BUDGET_E2E)

test-unit: ## Tests of single crates, with a real Postgres and a real Redis
	@scripts/ensure-postgres
	@scripts/ensure-redis
	@timeout $(BUDGET_UNIT) cargo test --workspace --lib --bins --locked

test-e2e: build ## Whole gateways, foreign clients and servers, the official suite
	@scripts/ensure-postgres
	@scripts/ensure-strace
	@tests/foreign/install
	@timeout $(BUDGET_E2E) cargo test --workspace --test standalone --test supervise --test children --test e2e --locked

conformance-record: ## Run the official suite directly against the backend and refresh the committed record
	@tests/foreign/install
	@cargo run --locked -p mcpgw-tests --bin mcpgw-conformance-record

bench: ## Measure what a request costs, beside nginx: BENCH="--quick --only on" for less, "--help" for more
	@scripts/ensure-postgres
	@scripts/ensure-nginx
	@cargo build --release --locked -p mcpgw-dataplane --bin mcpgw-dataplane -p mcpgw-tests --bin mcpgw-bench
	@target/release/mcpgw-bench $(BENCH)

scale: ## Measure what configuration distribution costs at scale: SCALE="--streams 50 …" for another size, "--help" for more
	@scripts/ensure-postgres
	@cargo build --release --locked -p mcpgw-controlplane --bin mcpgw-controlplane -p mcpgw-tests --bin mcpgw-scale
	@target/release/mcpgw-scale $(SCALE)

fuzz: ## Fuzz what reads bytes of others, FUZZ_SECONDS each: FUZZ=sse for one target
	@scripts/fuzz $(FUZZ_SECONDS) $(FUZZ)

size: ## Files over 400 lines and functions over the lint's limit
	@git ls-files '*.rs' | grep -vE '(^|/)tests?(/|\.rs)' | xargs wc -l | awk '$$2 != "total" && $$1 > 400 { print; found = 1 } END { exit found }'

doc: ## Write docs/API.md from proto/, and the reference of every crate in target/doc
	@cargo run --locked --quiet -p mcpgw-tests --bin mcpgw-api-reference
	@cargo doc --workspace --no-deps --locked

images: ## Build the container images
	@docker compose build

clean: ## Remove what was built and fetched
	@rm -rf target fuzz/target .cache
