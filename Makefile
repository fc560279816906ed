# Everything a person or CI runs. `make demo` and `make test` need only Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint bench bench-recovery bench-simulate bench-prepare format clean

$(READY): pyproject.toml constraints.txt scripts/install.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/install.sh
	touch $(READY)

demo: $(READY)  ## the main job on the bundled log
	$(BIN)/watchnext demo

test: $(READY)  ## all tests, with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(READY)  ## format, lint, types, import contract
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## mend what can be mended
	$(BIN)/ruff format src tests benchmarks scripts
	$(BIN)/ruff check --fix src tests benchmarks scripts

bench: $(READY)  ## speed and quality on the bundled log, one JSON line at the end of each
	$(BIN)/python benchmarks/kuairand.py
	$(BIN)/python benchmarks/serving.py

bench-recovery: $(READY)  ## what the system recovers of a made-up world, and what each ingredient is worth
	$(BIN)/python benchmarks/recovery.py

bench-simulate: $(READY)  ## a made-up log of EVENTS impressions: speed and memory
	$(BIN)/python benchmarks/simulation.py --events $(or $(EVENTS),10000000)

bench-prepare: $(READY)  ## compiling a log of EVENTS impressions: speed, memory and disk
	$(BIN)/python benchmarks/prepare.py --events $(or $(EVENTS),10000000)

clean:
	rm -rf $(VENV) runs
