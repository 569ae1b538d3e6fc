# Everything runs in .venv, which the targets make themselves. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Further packages for the tests, e.g. TEST_PACKAGES=torch to run them on PyTorch too.
TEST_PACKAGES ?=
# setuptools warns at length of what every editable installation is.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable

# The model that `make web` shows; a .keras file of your own, with a labels.txt beside it: make web MODEL=model.keras
MODEL ?= demo_output/model.keras

.PHONY: demo web test test-slow test-all test-oldest install-oldest test-newest lint format benchmarks docs package clean

demo: $(VENV)/.demo
	$(BIN)/se-keras demo --output demo_output

web: $(VENV)/.demo $(MODEL)
	npm ci --prefix examples/web --no-audit --no-fund
	npm run --prefix examples/web --silent build
	$(BIN)/se-keras export $(MODEL) --format tflite --overwrite --output examples/web/public/model.tflite
	$(BIN)/python examples/web/serve.py

demo_output/model.keras: | $(VENV)/.demo
	$(BIN)/se-keras demo --output demo_output

# The tests of a file stay together, so that what they share is made once.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Before a release: the networks, too, that differ from tested ones only in depth, width, or groups.
test-all: test
	SE_KERAS_ALL_NETWORKS=1 $(MAKE) test-slow

# The oldest Keras and TensorFlow that are supported, where their own code is relied on most.
test-oldest: install-oldest
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -W default tests/layers tests/blocks \
		tests/models/test_networks.py tests/models/test_saving.py tests/models/test_families.py tests/models/test_features.py \
		tests/surgery tests/training tests/export/test_calibration.py tests/export/test_inference_form.py

install-oldest:
	$(MAKE) VENV=.venv-oldest .venv-oldest/.oldest

# The newest of everything, with Keras as of last night: what will break next. Packages are fetched anew every time.
test-newest:
	rm -f .venv-newest/.newest
	$(MAKE) VENV=.venv-newest .venv-newest/.newest
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -W default

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A script that exceeds one of its limits exits with 1; the others run all the same.
benchmarks: $(VENV)/.dev
	-$(BIN)/python benchmarks/build.py
	-$(BIN)/python benchmarks/grouped_conv.py
	-$(BIN)/python benchmarks/weights.py
	-$(BIN)/python benchmarks/se_overhead.py se_resnet50 se_resnext50 senet154
	-$(BIN)/python benchmarks/cpu_inference.py $(if $(PEERS),--peers $(PEERS))
	-$(BIN)/python benchmarks/se_profile.py
	-$(BIN)/python benchmarks/training.py $(if $(PEERS),--peers $(PEERS))
	-$(BIN)/python benchmarks/export_cost.py
	-$(BIN)/python benchmarks/gpu_residency.py
	-$(BIN)/python benchmarks/gpu.py $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python benchmarks/tables.py

# Into build/site. Nothing of the package is imported, so that no backend is needed.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# What a release uploads, into dist; then the wheel is installed into an empty environment and tried there.
package: $(VENV)/.package
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/try_wheel.py dist/*.whl

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(INSTALL) ".[tensorflow,litert]"
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(INSTALL) ".[dev]" $(TEST_PACKAGES)
	touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(INSTALL) ".[docs]"
	touch $@

$(VENV)/.package: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet "build>=1.2" "twine>=6"
	touch $@

$(VENV)/.oldest: $(VENV)/.made pyproject.toml
	$(INSTALL) ".[tensorflow,jax,litert,train,weights,plots]" "tensorflow==2.18.*" "keras==3.12.*" pytest pytest-xdist
	touch $@

# Keras' nightly build is another package with the same modules, so that the two cannot be installed together.
$(VENV)/.newest: $(VENV)/.made pyproject.toml
	-$(BIN)/python -m pip uninstall --quiet --yes keras keras-nightly
	$(INSTALL) ".[dev]" --upgrade --upgrade-strategy eager
	$(BIN)/python -m pip uninstall --quiet --yes keras
	$(BIN)/python -m pip install --quiet --pre --upgrade keras-nightly
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest build dist *.egg-info demo_output .pytest_cache .mypy_cache .ruff_cache
	rm -rf examples/web/node_modules examples/web/public
