# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
JOBS ?= 2
KILLS ?= 8
OUT ?= runs/demo
SHOWN := plain madry thermometer pixeldefend lwta  # one defense of each kind of obfuscation, and two controls
BIN := .venv/bin
PROSE := README.md CONTRIBUTING.md CHANGELOG.md Makefile pyproject.toml benchmarks docs examples src tests tools
unexport PYTHONHOME PYTHONPATH PYTHONOPTIMIZE PYTHONWARNINGS MYPYPATH PYTEST_ADDOPTS PYTEST_PLUGINS  # are for other work

.PHONY: help demo test test-all check bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 8

demo: .venv/.installed-runtime  ## install unmask, break the digits defenses and audit a model, into OUT=runs/demo, and say what was shown
	@mkdir -p "$(OUT)"
	@export OMP_NUM_THREADS=1; \
	$(BIN)/unmask audit examples/masked_model.py:digits --data digits --eps 0.15 --n 64 --out "$(OUT)/audit" >"$(OUT)/audit.log" 2>&1 & \
	$(BIN)/unmask reproduce $(addprefix --case ,$(addsuffix -digits,$(SHOWN))) --n 128 --out "$(OUT)/defenses"; cases=$$?; \
	wait $$! || { cat "$(OUT)/audit.log" >&2; exit 1; }; exit $$cases
	@$(BIN)/python tools/demo.py "$(OUT)"

test: check  ## install the developers' tools too, then lint, types, spelling, tests and doctests on JOBS=2 processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --record-skips

test-all: .venv/.installed-all  ## after `make test`: install every library and Chromium, run what was skipped, accept no skip but for a GPU
	command -v chromium chromium-browser google-chrome || { apt-get -q update && apt-get -q install -y chromium; }
	OMP_NUM_THREADS=1 UNMASK_KILLS=$(KILLS) $(BIN)/python -m pytest --only-skipped

check: .venv/.installed-dev  ## lint, format, types, spelling and the tables of README only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell $(PROSE)
	$(BIN)/python tools/readme_tables.py --check

bench: .venv/.installed-bench  ## install the peers (Foolbox, torchattacks, ART) and compare with them
	$(BIN)/python -m benchmarks

clean:  ## remove .venv, caches and build products; runs/ stays
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed-%: pyproject.toml constraints.txt tools/environment.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "unmask needs Python 3.11 or newer, which $(PYTHON) is not: try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) tools/environment.py $(filter-out runtime,$*)
	@$(if $(filter bench all,$*),$(BIN)/pip install -q --no-deps torchattacks)  # it asks for an old requests and for torchvision, and needs neither
	@touch .venv/.installed-runtime $@
