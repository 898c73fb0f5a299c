# Holdfast.  `make run` starts the exchange, `make test` tests it; each sets up
# all that it needs in .venv, from nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
HTTP ?= 127.0.0.1:8400
ADMIN ?= 127.0.0.1:8401
SOURCES := $(shell find engine persistence recovery api -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h')

.PHONY: build run test bench bench-core demo drills drills-quick oracle lint types format clean

build: $(VENV)/.compiled

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Holdfast needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=80' 'cython>=3.1' 'numpy>=2.0'
	HOLDFAST_EXTENSIONS= $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	@touch $@

# Two compilers at once is what the smallest machine has.
$(VENV)/.compiled: $(VENV)/.installed setup.py $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	@touch $@

run: build
	@exec $(BIN)/holdfast serve --data $(DATA) --http $(HTTP) --admin $(ADMIN) --demo

test: build
	$(BIN)/python -m pytest

bench: build
	$(BIN)/python -m bench $(if $(JSON),--json $(JSON))

bench-core: build
	$(BIN)/python -m bench core $(if $(JSON),--json $(JSON))

demo: build
	$(BIN)/holdfast drill demo

drills-quick: build
	$(BIN)/holdfast drill crash --kills 3
	$(BIN)/holdfast drill demo

drills: build
	$(BIN)/holdfast drill crash --kills 100
	$(BIN)/holdfast drill demo

# The recorded flow, where it is there (RECORDED names its directory).
RECORDED ?= ../shared/data
oracle: build
	$(BIN)/holdfast oracle $(RECORDED)/lobster/AAPL_input.csv.zst --trades $(RECORDED)/lobster/AAPL_trades.csv.zst \
		--book $(RECORDED)/lobster/AAPL_check_L1.csv.zst --book $(RECORDED)/lobster/AAPL_check_L10.csv.zst
	$(BIN)/holdfast oracle $(RECORDED)/nasdaq_arl/ARL_input.csv.zst --trades $(RECORDED)/nasdaq_arl/ARL_trades.csv.zst \
		--book $(RECORDED)/nasdaq_arl/ARL_check_L10.csv.zst
	$(BIN)/holdfast oracle $(RECORDED)/flash1/normal_seed23.parquet --report-hash $(RECORDED)/flash1/report_hashes_seed23.txt
	$(BIN)/holdfast oracle $(RECORDED)/flash1/static_seed23.parquet --report-hash $(RECORDED)/flash1/report_hashes_seed23.txt
	$(BIN)/holdfast oracle $(RECORDED)/flash1/edge_cases.json
	$(BIN)/holdfast oracle $(RECORDED)/mixed/w10k.bin.zst --checksum 191846e716569677
	$(BIN)/holdfast oracle $(RECORDED)/mixed/w1m.bin.zst --checksum 3b1539c3a2dd2edb

PYTHON_SOURCES := engine persistence recovery api tests bench setup.py

lint: build
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $$(git ls-files '*.pyx' '*.pxd')

types: build
	$(BIN)/mypy

format: build
	$(BIN)/ruff check --fix $(PYTHON_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .ruff_cache $(VENV)
	find engine persistence recovery api \( -name '*.so' -o -name '__pycache__' \) -prune -exec rm -rf {} +
	find engine persistence recovery api -name '*.pyx' | sed 's/\.pyx$$/.c/' | xargs -r rm -f
