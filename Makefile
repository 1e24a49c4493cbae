# Two commands on a fresh machine with nothing but Python >= 3.11:
#   make demo    creates .venv, installs the base, films a procedural scene again
#   make test    the same .venv with all extras and test tools, then every check
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(BIN)/python

.PHONY: demo dev test lint prove bench clean

demo: $(VENV)/.base
	$(RUN) -m ex4d demo --overwrite

dev: $(VENV)/.dev

test: dev lint
	$(RUN) -m pytest -m "not prove" -n 2 --dist loadfile

lint: dev
	$(RUN) -m ruff format --check src tests benchmarks examples docs
	$(RUN) -m ruff check src tests benchmarks examples docs
	$(BIN)/lint-imports
	$(RUN) -m pyright --pythonpath $(RUN)

# Slow proofs: kill loops, big fuzz, full clips, the demo's truth on all seeds.
prove: dev
	$(RUN) -m pytest -m prove --timeout 1800 -v
	$(RUN) benchmarks/demo_truth.py
	$(RUN) benchmarks/novel_view.py

bench: dev
	$(RUN) benchmarks/render.py
	$(RUN) benchmarks/recon.py
	$(RUN) benchmarks/novel_view.py
	$(RUN) benchmarks/demo_truth.py
	$(RUN) benchmarks/diffusion_deviations.py
	$(RUN) benchmarks/view_deviations.py

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'ex4d needs Python 3.11 or newer (3.12+ is safer: newer FFmpeg); got ' + sys.version.split()[0] + '. Try: make PYTHON=python3.12 demo')"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[exr,gen,quant,train,ray,tensorboard]' --group test
	touch $@

clean:
	rm -rf $(VENV) dist build ex4d-demo .pytest_cache .ruff_cache
