# A thin layer on venv and pip, so that the README's commands are one line each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check docs clean

# Set up, then label one sample clip with the bundled model: no download, no GPU.
demo: setup
	$(BIN)/timesformer predict sample_videos/pan_left.mp4 --model camera-motion --top-k 3

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Set up, then run all tests.
test: setup
	$(BIN)/pytest

# What CI runs beside the tests.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Set up, then build the documentation into site/; a warning, a broken link or a page outside the navigation ends it.
docs: setup
	$(BIN)/zensical build --strict --clean
	$(BIN)/python docs/check_site.py

clean:
	rm -rf $(VENV) site .cache
