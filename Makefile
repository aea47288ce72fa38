# `make demo` and `make test` need Python 3.9 or later and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: venv test test-long lint docs demo demo-actions figure clean

venv: $(READY)

$(READY): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps trackers
	touch $@

test: $(READY)
	$(BIN)/python -m pytest

test-long: $(READY)
	$(BIN)/python -m pytest -m ''

lint: $(READY)
	$(BIN)/ruff check .

docs: $(READY)
	$(BIN)/python -m sphinx -c docs -b html --fresh-env --fail-on-warning --keep-going --quiet -d build/doctrees . build/site
	@echo "open build/site/index.html"

demo: $(READY)
	$(BIN)/python tools/demo.py

demo-actions: $(READY)
	$(BIN)/python tools/demo_actions.py

figure: $(READY)
	$(BIN)/python tools/make_figure.py

clean:
	rm -rf $(VENV) build dist output
