# The only command interface: people and CI run these and nothing else.

.PHONY: help demo test check chaos bench advisories
.DEFAULT_GOAL := help

BUILT := $(or $(CARGO_TARGET_DIR),target)
# The sandbox's binary, and where Python puts what it installs.
SDK := $(abspath $(BUILT))/debug/nutgate-sandbox $(abspath $(BUILT))/sdk
# Both binaries, and the same place.
DEPLOYED := $(abspath $(BUILT))/debug/nutgate $(SDK)

# What the dependencies' build scripts run.
BUILD_TOOLS := cmake protoc curl

DENY := cargo deny --locked check bans licenses sources

section = @printf '\n== %s\n' '$(1)'

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Start a real mint, a scripted upstream and the gateway on this machine
	@tests/scripts/need $(BUILD_TOOLS)
	cargo build --locked -p nutgate -p nutgate-sandbox
	@exec $(BUILT)/debug/nutgate-sandbox

test: ## Install what is missing and run every test
	@tests/scripts/need $(BUILD_TOOLS) clippy rustfmt nextest deny redis-server postgres \
		python3 node chromium haproxy prometheus socat systemd-analyze
	$(call section,Format)
	cargo fmt --all --check
	$(call section,Lints)
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(call section,Dependencies)
	$(DENY)
	$(call section,Documentation)
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' \
		cargo doc --workspace --no-deps --document-private-items --locked
	$(call section,Build)
	cargo build --workspace --all-targets --locked
	$(call section,Tests)
	cargo nextest run --workspace --locked
	$(call section,Examples in the documentation)
	cargo test --workspace --doc --locked
	$(call section,The SDKs for Python)
	tests/sdk/run python $(SDK)
	$(call section,The wallet Nutshell)
	tests/sdk/run nutshell $(SDK)
	$(call section,The SDKs for Node)
	tests/sdk/run node $(SDK)
	$(call section,The document of the API)
	tests/sdk/run contract $(SDK)
	$(call section,What deploy/ brings up)
	tests/deploy/run $(DEPLOYED)
	$(call section,Everything passed)

check: ## Format, lints, layering and dependency rules: the quick half of a review
	@tests/scripts/need $(BUILD_TOOLS) clippy rustfmt deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked -p nutgate --test tidy
	$(DENY)

chaos: ## Kill gateways and Redis, drop, abort and stream at length, and count the money
	@tests/scripts/need $(BUILD_TOOLS) nextest redis-server postgres
	NUTGATE_CHAOS=full cargo nextest run --locked --profile chaos -p nutgate --test it \
		--no-capture chaos:: capture:: repetition:: long_stream:: fleet::a_ledger_that_pauses

bench: ## Measure against a plain Pingora proxy (release build; minutes)
	@tests/scripts/need $(BUILD_TOOLS)
	cargo build --release --locked -p nutgate -p nutgate-bench
	@$(BUILT)/release/nutgate-bench

advisories: ## Look for known vulnerabilities in what is linked (asks the RustSec database)
	@tests/scripts/need deny
	cargo deny --locked check advisories
