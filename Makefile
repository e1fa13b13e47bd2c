# One definition of every check; hooks and CI call these targets and nothing else.
.DEFAULT_GOAL := help
.PHONY: help setup demo align-demo test lint tiny bench wheel clean
BIN := .venv/bin
HOUSEHOLDS ?= 12

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Make .venv: packages, model, data, the Rust extension
	@runs/setup.sh

demo: setup ## From a real log to explained recommendations (FRESH=1 empties the ledger, HOUSEHOLDS=24 for more)
	@$(BIN)/recgpt run runs/demo.toml --households $(HOUSEHOLDS) $(if $(FRESH),--fresh)

align-demo: setup ## Train the demo's adapters anew and measure them: hours on 2 cores, goes on where it was stopped
	@$(BIN)/recgpt align default runs/align.toml --out out/adapters
	@$(BIN)/recgpt align report runs/align.toml --adapters out/adapters

test: setup ## Run every test
	@cargo test --quiet
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: setup ## ruff, mypy, stubtest, import-linter, cargo fmt, clippy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest recgpt._core
	@$(BIN)/lint-imports
	@cargo fmt --check
	@cargo clippy --quiet --all-targets --features python -- -D warnings

tiny: setup ## All eight stages on a generated log, then one household with the real model
	@runs/tiny.sh

bench: setup ## Every bench; each ends with one JSON line
	@for bench in benches/*.py; do $(BIN)/python $$bench || exit 1; done

wheel: setup ## One abi3 wheel in dist/
	@$(BIN)/python -m pip wheel -q --no-deps -w dist .

clean: ## Remove outputs (the user's wheel cache stays)
	@rm -rf out dist target .venv
