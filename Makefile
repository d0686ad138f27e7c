# Needs Python 3.11 or later with pip, and make. Everything else goes into .venv and .tox.
#
#   make demo            run examples/demo.py; DEMO="flask" passes arguments on
#   make test            the whole matrix of tox.ini, JOBS=6 environments at a time; TOX="-e lowest" chooses
#   make lint            ruff, mypy, pyright and the import contracts (make ruff types imports)
#   make pages           write the programs and the settings anew into the pages of docs/
#   make docs            build the documentation into site/, warnings are errors
#   make bench           benchmarks beside the packages a user would pick instead; BENCH="..." passes arguments on
#   make venv            everything that a test needs, for .venv/bin/pytest tests/core
#   make coverage        every test in one environment, with a report
#   make format          let ruff rewrite the sources
#   make clean           remove what the others made

PYTHON ?= python3
JOBS ?= 6

DISTRIBUTIONS := failsoft failsoft-flask failsoft-django failsoft-starlette
PROJECTS := pyproject.toml $(DISTRIBUTIONS:%=packages/%/pyproject.toml)
EDITABLES := -e 'packages/failsoft[embedded,hiredis,memcached,mongodb,sessions]' $(addprefix -e packages/,$(filter-out failsoft,$(DISTRIBUTIONS)))
INSTALL := .venv/bin/uv pip install --quiet --python .venv/bin/python $(EDITABLES)
CODE := packages tests examples benchmarks docs

# uv and tox look for pythonX.Y on PATH; pyenv's shims are there for every version and work for the active one only.
PYENV_BINS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[1-9]*/bin)
EMPTY :=
ifneq ($(PYENV_BINS),)
export PATH := $(subst $(EMPTY) $(EMPTY),:,$(strip $(PYENV_BINS))):$(PATH)
endif
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo test lint ruff types imports pages docs bench bench-smoke venv coverage format clean

demo: .venv/.dev
	.venv/bin/python examples/demo.py $(DEMO)

test: .tox/.fresh
	.venv/bin/tox run-parallel --parallel-no-spinner -p $(JOBS) $(TOX)

lint: ruff types imports

ruff: .venv/.lint
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)

types: .venv/.lint
	.venv/bin/mypy $(wildcard packages/*/src) tests/typing
	.venv/bin/pyright --pythonpath .venv/bin/python

imports: .venv/.lint
	.venv/bin/lint-imports --no-cache

pages: .venv/.dev
	.venv/bin/python docs/snippets.py
	.venv/bin/python docs/reference.py

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: .venv/.bench
	.venv/bin/python -m benchmarks $(BENCH)

bench-smoke: .venv/.bench
	.venv/bin/python -m benchmarks --smoke

venv: .venv/.test

coverage: .venv/.test
	.venv/bin/coverage erase
	.venv/bin/coverage run -m pytest tests --ignore tests/examples
	.venv/bin/coverage run -m pytest tests/examples
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

format: .venv/.lint
	.venv/bin/ruff check --fix $(CODE)
	.venv/bin/ruff format $(CODE)

clean:
	rm -rf .venv .tox .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache dist site

.venv/.tools:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv --clear --without-pip .venv
	$(PYTHON) -m pip --python .venv/bin/python install --quiet 'uv>=0.9' 'tox>=4.25' 'tox-uv>=1.20'
	touch $@

# Editable installs follow the sources, not the dependencies: those are read again when a pyproject.toml changes.
.venv/.dev: .venv/.tools $(PROJECTS)
	$(INSTALL) --group examples
	touch $@

.venv/.lint: .venv/.tools $(PROJECTS)
	$(INSTALL) --group lint --group typing
	touch $@

.venv/.docs: .venv/.tools pyproject.toml
	.venv/bin/uv pip install --quiet --python .venv/bin/python --group docs
	touch $@

.venv/.bench: .venv/.tools $(PROJECTS)
	$(INSTALL) --group bench
	touch $@

.venv/.test: .venv/.tools $(PROJECTS)
	$(INSTALL) --group coverage
	touch $@

.tox/.fresh: .venv/.tools $(PROJECTS)
	rm -rf .tox
	mkdir .tox
	touch $@
