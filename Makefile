# What people do here: `make demo`, `make test`. Everything goes through the virtual environment in .venv.
#
#   EDGECTL_ENGINE_INDEX=URL   take llama-cpp-python prebuilt from upstream's wheel index for your backend
#   EDGECTL_CACHE_DIR=DIR      where compiled engines and test models are kept (default ~/.cache/edgectl)
#   PYTHON=python3.12          the interpreter to make .venv with

PYTHON ?= python3
BIN := .venv/bin
# Another engine index is another setup: the stamp's name holds its checksum.
STAMP := .venv/.ready$(if $(EDGECTL_ENGINE_INDEX),-$(firstword $(shell printf %s '$(EDGECTL_ENGINE_INDEX)' | cksum)))
PINS := requirements/dev.txt requirements/model.txt $(wildcard edgectl/bundle/pins/*.txt)

.PHONY: help setup demo test lint docs bench bench-serve bench-fit bench-deploy soak pins clean lab-up lab-down faults

help:
	@echo "make demo    set up, serve a model on this machine, ask it a question, stop"
	@echo "make test    set up and run all tests (as root also those that boot machines, see tests/lab)"
	@echo "make lab-up  boot a fleet of N machines on this one to try edgectl on (root; N=3 unless said: N=4)"
	@echo "make lab-down  end it"
	@echo "make setup   only make .venv, with edgectl and edgectl-agent in it"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the benchmarks in tests/bench"
	@echo "make bench-serve  our serving beside other servers (tests/bench/README.md; ARGS=--quick and more)"
	@echo "make bench-fit  what a model is predicted to take beside what llama.cpp takes (ARGS=--quick and more)"
	@echo "make bench-deploy  delivery beside scp, pyinfra and Ansible, in the lab (root; ARGS=--quick and more)"
	@echo "make soak    mixed load for half an hour, and what must hold all the same (ARGS='--minutes 5')"
	@echo "make faults  break machines of the lab in every way, and see whether they get over it (root; 300 faults, well under"
	@echo "             an hour; ARGS='--faults 50 --seed 3 --report FILE')"
	@echo "make docs    write docs/cli.md and docs/activation.md from the code"
	@echo "make pins    compile requirements/*.in and edgectl/bundle/pins/*.in anew"
	@echo "make clean   remove .venv and .venv-bench (compiled engines stay in the cache)"

setup: $(STAMP)

$(STAMP): $(PINS) pyproject.toml scripts/setup.py edgectl/bundle/engine_wheel.py
	@$(PYTHON) scripts/setup.py .venv
	@touch $@

demo: setup
	@$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python scripts/cli_reference.py --write
	$(BIN)/python scripts/activation_table.py --write

bench: setup
	$(BIN)/python tests/bench/bench_cli.py
	$(BIN)/python tests/bench/bench_idle.py
	$(BIN)/python tests/bench/bench_threads.py

bench-serve: setup
	@$(BIN)/python -m tests.bench.serve $(ARGS)

bench-fit: setup
	@$(BIN)/python -m tests.bench.fit $(ARGS)

bench-deploy: setup
	@$(BIN)/python -m tests.bench.deploy $(ARGS)

soak: setup
	@$(BIN)/python -m tests.bench.serve.soak $(ARGS)

# Boots machines (root); what failures leave is kept in build/faults.
faults: setup
	@$(BIN)/python -m tests.lab.faults $(ARGS)

N ?= 3

lab-up: setup
	@$(BIN)/python -m tests.lab up --count $(N)

lab-down: setup
	@$(BIN)/python -m tests.lab down

pins:
	@$(PYTHON) scripts/pins.py

clean:
	rm -rf .venv .venv-bench
