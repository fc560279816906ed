# Everything a person or CI runs. `make demo` and `make test` need only Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# The referee and MovieLens-1M are not ours to ship: they are used where they lie, or where the variables say.
REFEREE ?= $(wildcard ../shared/referee)
FOLDER ?= $(wildcard ../shared/data/ml1m)
QUALITY_OPTIONS = $(if $(FOLDER),--folder $(FOLDER)) $(if $(REFEREE),--referee $(REFEREE))

# Tests start many processes: byte code that one has written spares the others half of their start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo servers test coverage lint bench bench-recovery bench-simulate bench-prepare bench-quality \
	bench-uploads bench-step bench-index bench-features bench-ranker bench-events \
	bench-serving bench-soak bench-live format clean

$(READY): pyproject.toml constraints.txt scripts/install.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/install.sh
	touch $(READY)

demo: $(READY)  ## the main job on the bundled log
	$(BIN)/watchnext demo

servers:
	sh scripts/servers.sh

test: $(READY) servers  ## all tests; installs Redis and Chromium where they are missing
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TEST_OPTIONS)

coverage:  ## the same, with the lines and branches that no test reached; takes a third longer
	$(MAKE) test TEST_OPTIONS="--cov --cov-report=term"

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

# Of KuaiRand watch time is known too: the last line has the ranker's figures besides, and LightGBM's.
bench-quality: $(READY) $(if $(filter kuairand,$(DATA)),.peers/.ranking)  ## by fixed splits: DATA=kuairand, or DATA=ml1m FOLDER=where it lies
	$(if $(REFEREE),$(BIN)/python -m pip install -q polars)
	mkdir -p .peers
	$(BIN)/python benchmarks/quality.py $(DATA) --config configs/$(or $(CONFIG),$(DATA)).toml $(QUALITY_OPTIONS) --keep .peers/quality.json
	$(if $(filter kuairand,$(DATA)),$(BIN)/python benchmarks/ranking_quality.py --beside .peers/quality.json $(if $(REFEREE),--referee $(REFEREE)))

bench-uploads: $(READY)  ## what the video tower finds of videos that training never saw
	$(BIN)/python benchmarks/uploads.py

bench-step: $(READY) .peers/.training  ## the training step at 1 and 10 million videos, beside the peers'
	$(BIN)/python benchmarks/step.py

bench-index: $(READY) .peers/.index  ## the video index beside libraries; VIDEOS=10000000 for ten million
	$(BIN)/python benchmarks/index.py --videos $(or $(VIDEOS),1000000)

bench-features: $(READY)  ## the ranker's features: replaying a log, and one request
	$(BIN)/python benchmarks/features.py

bench-ranker: $(READY)  ## the ranking network as it serves: 500 candidates on one core
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ranker.py

bench-events: $(READY) servers  ## the stores of live events beside a bare sync
	$(BIN)/python benchmarks/event_store.py

bench-serving: $(READY)  ## a server under load: VIDEOS=10000000 RATE=20 PROCESSES=1
	$(BIN)/python benchmarks/serving_load.py --videos $(or $(VIDEOS),10000000) --rate $(or $(RATE),20) --processes $(or $(PROCESSES),1)

bench-soak: $(READY)  ## half an hour of mixed traffic with swaps: BUNDLE=… MINUTES=30
	$(BIN)/python benchmarks/soak.py $(or $(BUNDLE),runs/demo/bundle) --minutes $(or $(MINUTES),30)

bench-live: $(READY)  ## what it takes to keep up with watches, blocks, uploads and searches: BUNDLE=…
	$(BIN)/python benchmarks/live_changes.py $(or $(BUNDLE),runs/demo/bundle)

.peers/.training .peers/.index .peers/.ranking: .peers/.%: benchmarks/peers/install.sh
	PYTHON=$(PYTHON) sh benchmarks/peers/install.sh .peers $*
	touch $@

clean:
	rm -rf $(VENV) .peers runs
