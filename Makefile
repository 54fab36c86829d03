# A bare `make` greets a newcomer. Each target does all its own set-up, quickly the second time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PURE   := tests/golden tests/laws tests/replay tests/unit
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench contract reference lock clean

help: ## this list
	@echo "Tradewind balances AI inference by what endpoints deliver right now. Start with:  make demo"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(READY) ## the loop, live: real Kafka, real HTTP traffic, an outage (make demo ARGS="--seconds 90 --outage eu-west@45")
	@$(BIN)/tradewind demo $(ARGS)

# tests with brokers and processes mostly wait, those without only compute: side by side they take half as long
test: $(READY) ## all tests, on a real Kafka (make test ARGS="tests/unit -k sketch")
ifneq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest $(ARGS)
else
	@mkdir -p build; echo "in the background: $(PURE)" >&2; \
	$(BIN)/python -m pytest -p no:cacheprovider $(PURE) >build/pure.txt 2>&1 & pure=$$!; \
	$(BIN)/python -m pytest tests/contract tests/integration; real=$$?; \
	wait $$pure; pure=$$?; cat build/pure.txt; exit $$((real | pure))
endif

check: $(READY) ## ruff, mypy --strict, import walls, generated files in step, documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m streams.contract.schema
	@$(BIN)/python -m tradewind.config.schema
	@$(BIN)/python -m tradewind.reference
	@$(MAKE) --no-print-directory docs
	@$(BIN)/python -m pip check

# not --quiet: warnings that nobody prints are not counted by --strict
docs: $(READY) ## the documentation as a site in build/docs; a broken link fails
	@told=$$(NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict 2>&1) || { echo "$$told" >&2; exit 1; }
	@echo "build/docs/index.html"

bench: $(READY) ## the benches that need no data, a JSON line each; minutes, on a quiet machine
	@for name in ingest loop pick many solve policy; do $(BIN)/python -m bench.$$name --json; done

contract: $(READY) ## write docs/reference/contract from the structs
	@$(BIN)/python -m streams.contract.schema --write

reference: $(READY) ## write the other pages of docs/reference from the code
	@$(BIN)/python -m tradewind.config.schema --write
	@$(BIN)/python -m tradewind.reference --write

lock: $(READY) ## pin what pyproject.toml asks for, with hashes and without addresses
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile pyproject.toml --extra embedded --extra forecast --extra kubernetes --extra aws --extra keda --group dev --universal --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock

clean: ## forget the virtual environment, caches and run folders
	rm -rf $(VENV) .tradewind .bench-env .bench-env-litellm .bench-env-forecast .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) is here; say which: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) (once)" >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@
