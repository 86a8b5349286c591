# Two commands to know: `make demo` runs the main job on phantoms, `make test` runs the tests. Both set up what they need.
# While you work: `make test-fast`, the unit tests that need no Ray.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: venv demo reproduce test test-fast lint fix bench system soak audit clean

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python jobs/demo.py

reproduce: $(READY)
	$(BIN)/python jobs/reproduce.py --dataset phantoms

# One thread a process: two processes of two threads each would fight over two cores.
UNITS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/unit

test: $(READY)
	$(UNITS) --durations=15
	$(BIN)/python -m pytest --durations=15 tests/ray tests/jobs --ignore=tests/jobs/test_jobs.py
	$(BIN)/python -m pytest --durations=15 tests/jobs/test_jobs.py  # alone: two Ray clusters share agent ports

test-fast: $(READY)
	$(UNITS) -m 'not slow and not soak and not system' --hypothesis-profile fast

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
