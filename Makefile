# stmoe: `make demo` and `make test` are all one needs; both set everything up in .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Stamps: what runs, what also tests it, what also writes its documentation.
READY  := $(VENV)/.ready
TESTER := $(VENV)/.ready-test
DOCS   := $(VENV)/.ready-docs
FPGA   := $(VENV)/.ready-fpga
JOBS   ?= 2

# The products of one token are too small for the threads of a BLAS; on two cores they only wait for each other.
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test test-full lint docs bench-predictors bench-synth wheel clean distclean check-tools
.DEFAULT_GOAL := test

demo: $(READY)
	$(BIN)/stmoe demo

test: lint
	$(BIN)/pytest -q -n $(JOBS) -m "not slow"

test-full: lint
	$(BIN)/pytest -q -n $(JOBS)

# Pyright's configuration is named, or a pyrightconfig.json in a folder above would win.
lint: $(TESTER)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright -p pyproject.toml

docs: $(DOCS)
	$(BIN)/stmoe registers --format markdown --out docs/registers.md
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# What the result file has is not run again; `stmoe bench-predictors --again` runs it.
bench-predictors: $(READY) build/stmoe-12m-hidden.npz
	$(BIN)/stmoe bench-predictors --jobs $(JOBS)

# Every block through synthesis and routing for an ECP5, beside the baseline; hours on two cores, minutes for what is there.
bench-synth: $(FPGA)
	$(BIN)/python -m stmoe.fpga.bench

build/stmoe-12m-hidden.npz: model/traces/stmoe-12m.npz | $(READY)
	@mkdir -p $(@D)
	$(BIN)/stmoe trace record --tokens $< --hidden --out $@

wheel: $(READY)
	$(BIN)/pip wheel -q --no-deps --wheel-dir build/wheel .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# One line for the first thing that is missing, with the Debian package that has it.
need = command -v $(1) >/dev/null || { echo "stmoe: needs $(1): install the Debian package $(2)" >&2; exit 2; }

check-tools:
	@$(call need,$(PYTHON),python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stmoe: needs Python 3.11 or newer: $(PYTHON) is older; name another with make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "stmoe: needs Python's venv: install the Debian package python3-venv" >&2; exit 2; }
	@$(call need,g++,g++)
	@$(call need,perl,perl)

$(READY): pyproject.toml constraints.txt | check-tools
	@echo "stmoe: setting up $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(TESTER): $(READY)
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	@touch $@

$(DOCS): $(READY)
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	@touch $@

$(FPGA): $(READY)
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[fpga]"
	@touch $@
