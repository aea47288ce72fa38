# `make demo` and `make test` need Python 3.9 or later and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# NumPy and others in these versions need Python 3.11; an older one gets the newest versions that there are for it.
CONSTRAIN = $(shell $(PYTHON) -c 'import sys; print("--constraint constraints.txt" * (sys.version_info >= (3, 11)))')

# DETECTRON2: where the real one is, a folder or git+https://...; `make venv` then installs it if it is not there yet.
DETECTRON2 ?=
# MATRIX: options of tests/versions/matrix.py.
MATRIX ?=

.PHONY: venv detectron2 test test-long test-matrix lint docs demo demo-actions figure clean

venv: $(READY) $(if $(DETECTRON2),detectron2)

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing everything into $(VENV): some minutes, most of them for downloads, without a word"
	$(BIN)/python -m pip install --quiet $(CONSTRAIN) --editable '.[test]'
	-$(BIN)/python -m pip install --quiet $(CONSTRAIN) --no-deps trackers
	touch $@

# It is compiled against the PyTorch of the environment, so not in an isolated one.
detectron2: $(READY)
	@test -n '$(DETECTRON2)' || { echo 'say where it is: make venv DETECTRON2=PATH' >&2; exit 1; }
	@$(BIN)/python -m pip show --quiet detectron2 2>/dev/null || \
		$(BIN)/python -m pip install $(CONSTRAIN) --no-build-isolation '$(DETECTRON2)'
	@$(BIN)/python -c 'import detectron2; print("detectron2", detectron2.__version__, detectron2.__path__[0])'

# In several processes, as most tests use one thread. A file stays in one of them, with what its tests share.
test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

test-long: $(READY)
	$(BIN)/python -m pytest -m ''

test-matrix:
	$(PYTHON) tests/versions/matrix.py $(MATRIX)

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
