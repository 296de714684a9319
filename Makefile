# Everything a contributor needs. Every target sets itself up: `make test` on a fresh clone is enough.

PYTHON ?= python3
BIN := .venv/bin
# Newer than what decides the environment's content exactly if the environment is up to date.
STAMP := .venv/.installed

.PHONY: setup demo test check chaos bench

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null \
		|| { echo "$(PYTHON) was not found; give a Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1), but Starling needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing torch and everything else into .venv; the first time this takes a few minutes"
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[train,data,rehearse,ssh,plot,dev]" -c constraints.txt
	@touch $@

# The main job in front of your eyes: interrupted, killed, resumed, and equal to the last bit.
demo: $(STAMP)
	$(BIN)/python -m demo

# Everything that can go wrong, at times that SEED decides: `make chaos SEED=7 EVENTS=20 STORE=s3`.
SEED ?= 1
EVENTS ?= 10
STORE ?= folder
chaos: $(STAMP)
	$(BIN)/python -m chaos --seed $(SEED) --events $(EVENTS) --store $(STORE)

# Measures everything beside what one would use instead, and writes docs/performance.md; ONLY="step recovery" for some.
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ONLY)

# Two at a time: more of them starve each other on two cores, and run out of patience. In the order of the folders:
# what takes minutes comes first.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Fast checks: form, types, and the rules of the house.
check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_docs.py
