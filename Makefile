# Two commands to know: `make demo` runs the main job on phantoms, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: venv demo reproduce test lint fix bench system soak audit clean

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python jobs/demo.py

reproduce: $(READY)
	$(BIN)/python jobs/reproduce.py --dataset phantoms

test: $(READY)
	$(BIN)/python -m pytest --durations=15 --ignore=tests/jobs/test_jobs.py
	$(BIN)/python -m pytest --durations=15 tests/jobs/test_jobs.py  # alone: two Ray clusters share agent ports

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	for bench in tests/bench/bench_*.py; do $(BIN)/python $$bench || exit 1; done

SYSTEM := postgresql prometheus chromium dicom3tools iproute2
system: $(READY)
	dpkg --status $(SYSTEM) >/dev/null 2>&1 || apt-get install --yes --no-install-recommends $(SYSTEM)
	$(BIN)/python -m pytest -m system --durations=0

soak: $(READY)
	$(BIN)/python -m pytest -m soak --durations=0

# Known faults of the packages that constraints.txt pins, by PyPI's advisories; in a venv of its own, for it needs others.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
