# What people type. `make run` and `make test` need Rust, a C compiler and make; the rest says what it needs.

CARGO ?= cargo

.PHONY: run demo test check bench clients torture fuzz fuzz-check deny conformance conformance-page help

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: ## A trust domain on the embedded store, with an X.509-SVID for you that rotates by itself
	@echo "Building Spindle (a first build takes some minutes, later ones seconds) ..."
	@$(CARGO) build --bins
	@target/debug/spindle quickstart --dir .run

demo: ## Two workloads do mutual TLS while their SVIDs rotate; ends by itself after about a minute
	@echo "Building Spindle ..."
	@$(CARGO) build --bins
	@target/debug/spindle demo

test: ## Every test this machine's toolchains and rights allow; lists what it leaves out
	@tests/run $(ARGS)

check: ## Formatting, lints and documentation, as CI checks them
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet

bench: ## What Spindle costs: the release binaries, measured as processes of their own; half a minute once built
	@echo "Building Spindle for release (a first build takes some minutes) ..."
	@$(CARGO) build --release -p spindle-cli --bins
	@$(CARGO) run --release -p spindle-e2e --bin spindle-bench

clients: ## Only the suites of stock client libraries
	@$(CARGO) build --bins
	@tests/clients/run

conformance: ## The compatibility table, row by row, against the built server (Go); ROW=RPC-ENTRY-LIST for one
	@$(CARGO) build --bins
	@tests/conformance/run $(if $(ROW),-run 'TestRows/^$(ROW)$$')

conformance-page: ## docs/conformance.md anew: requirements, the tests that name them, how they ended in the last `make test`
	@$(CARGO) run --quiet -p spindle-e2e --bin spindle-conformance-page

torture: ## SIGKILL 200 rounds and power cut 20 rounds, for each embedded store
	SPINDLE_TORTURE_ROUNDS=200 SPINDLE_POWERCUT_ROUNDS=20 $(CARGO) test -p spindle-store -- --nocapture

fuzz: ## The parsers under cargo-fuzz, one minute each (nightly toolchain)
	for target in $$(cargo fuzz list --fuzz-dir tests/fuzz); do \
	    cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=60 || exit 1; \
	done

fuzz-check: ## That the fuzz targets compile, which needs no nightly toolchain but a C++ compiler
	$(CARGO) check --manifest-path tests/fuzz/Cargo.toml --target-dir target

deny: ## Licences, bans and sources of the dependencies
	cargo deny check bans licenses sources
