# make demo    start the app on http://127.0.0.1:7860
# make test    run all tests, those in a real browser included
# make test-fast      the tests that take under three minutes together
# make test-versions  the library's tests on the oldest and the newest PyTorch, each in an environment of its own
# make lint    ruff
# make video-aims  measure clips of 1280x720 from file to file against the project's aims, on an idle machine
# make gpu     measure what a CUDA card does with all of this, in eight minutes at most; figures in gpu.json

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The oldest PyTorch that pyproject.toml allows, e.g. "torch==2.11.* torchvision==0.26.*".
OLDEST := $(shell sed -nE 's/^ *"(torch|torchvision)>=([0-9.]+),.*/\1==\2.*/p' pyproject.toml)

.PHONY: demo test test-fast test-versions lint gpu video-aims browser clean

demo: .venv/app-installed
	$(BIN)/python app.py

test: .venv/tools-installed browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) --ignore tests/browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/browser

test-fast: .venv/tools-installed
	$(PYTEST) --ignore tests/browser -m "not slow"

test-versions: .venv-lowest/installed .venv-newest/installed
	.venv-newest/bin/python -m pip install --quiet --upgrade torch torchvision
	for versions in lowest newest; do \
		.venv-$$versions/bin/python -c 'import torch; print("PyTorch", torch.__version__)' && \
		.venv-$$versions/bin/python -m pytest --numprocesses 2 --dist loadfile tests/stvit || exit 1; \
	done

video-aims: .venv/app-installed
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	PYTHONPATH=. $(BIN)/python assets/clips/make_clips.py "$$folder/pan.mp4" --size 720 1280 --frames 300 && \
	set -- "$$folder/pan.mp4" --engine openvino --random-weights && \
	$(BIN)/python -m stvit.video.measure "$$@" --task classify --record weights/bundled/garments_stvit_deit.json --at-least 200 && \
	$(BIN)/python -m stvit.video.measure "$$@" --task clusters --model stvit_r_swin_small_224 --at-least 40

lint: .venv/tools-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu: .venv/app-installed
	$(BIN)/python -m stvit.measure.gpu

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv .venv

.venv/app-installed: requirements.txt | .venv/bin/python
	$(PIP) -r requirements.txt
	touch $@

.venv/tools-installed: requirements-dev.txt requirements-test.txt pyproject.toml .venv/app-installed
	$(PIP) -r requirements-dev.txt
	touch $@

.venv-lowest/installed .venv-newest/installed: pyproject.toml requirements-test.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet -r requirements-test.txt -e '.[train]' $(if $(findstring lowest,$@),$(OLDEST))
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
	rm -rf .venv .venv-lowest .venv-newest .pytest_cache .ruff_cache
