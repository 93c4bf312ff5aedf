# The entry points of the project. Each target does its own set-up.

PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
VENV ?= .venv
ARGS ?=
MINUTES ?= 10
BIN := $(VENV)/bin

.PHONY: help install demo test lint audit format messages screenshots bench soak clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.run: pyproject.toml requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it with PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.txt --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

install: $(VENV)/.run  ## Make the virtual environment with what the app needs

demo: install  ## A sample site, the old copy and ours judged, then the admin (ARGS=--no-serve: report only)
	@$(BIN)/python manage.py backup demo $(ARGS)

test: $(VENV)/.dev  ## Run the tests
	@$(BIN)/python -m compileall -q backups_app project tests  # hundreds of processes start: none should compile anew
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/.dev  ## Look for insecure code (bandit) and, where the network allows, for known holes in dependencies
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit || true
	$(BIN)/python -m tests.security.audit

format: $(VENV)/.dev  ## Put the code in its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

messages: $(VENV)/.dev  ## Bring the catalogue of translations up to date and compile it (needs gettext)
	cd backups_app && ../$(BIN)/python -m django makemessages --locale el --add-location file --no-wrap --no-obsolete
	$(BIN)/python -m django makemessages --locale el --add-location file --no-wrap --no-obsolete --extension html \
		--ignore backups_app --ignore $(VENV)
	@for each in locale backups_app/locale; do \
		msgfmt --check --statistics --output-file $$each/el/LC_MESSAGES/django.mo $$each/el/LC_MESSAGES/django.po || exit 1; \
	done

screenshots: $(VENV)/.dev  ## Make the pictures in docs/images anew (needs Chromium)
	WALSAFE_PICTURES=1 $(BIN)/python -m pytest -k pictures_of_the_documents tests/browser/test_pages.py

bench: $(VENV)/.dev  ## Measure ours beside the peers, as ratios in one run, and the pages (ARGS=--write-docs: into the docs)
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev  ## Everything at once for MINUTES (10), then every fault, 300 kills per verb, long fuzzing
	$(BIN)/python -m tests.soak --minutes $(MINUTES)
	WALSAFE_SOAK=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "crash or faults" $(ARGS)
	WALSAFE_SOAK=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/test_fuzz.py $(ARGS)

clean:  ## Remove what the targets made, but no data
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage benchmarks/work
