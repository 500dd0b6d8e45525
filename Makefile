# make demo    start the app on http://127.0.0.1:7860
# make test    run all tests, those in a real browser included
# make lint    ruff

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint browser clean

demo: .venv/app-installed
	$(BIN)/python app.py

test: .venv/tools-installed browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: .venv/tools-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv .venv

.venv/app-installed: requirements.txt | .venv/bin/python
	$(PIP) -r requirements.txt
	touch $@

.venv/tools-installed: requirements-dev.txt .venv/app-installed
	$(PIP) -r requirements-dev.txt
	touch $@

# The browser tests drive Chromium. Where it can be installed without asking, it is; else the tests name what is missing.
browser: .venv/tools-installed
	@if command -v chromium chromium-browser google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
		$(BIN)/python -m playwright install chromium || \
		echo "Install Chromium for the browser tests (Debian, Ubuntu: apt-get install chromium)."; \
	fi

clean:
	rm -rf .venv .pytest_cache .ruff_cache
