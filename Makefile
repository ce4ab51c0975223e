# `make` lists the targets.
PYTHON := .venv/bin/python
.PHONY: help setup demo test test-fast check bench-convert bench-copy bench-copy-overlap bench-folder bench-imageio bench-ssh bench-vmdk clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

setup: ## install what is missing: OS packages (apt or dnf), .venv with the v2v command
	@scripts/setup

demo: setup ## convert a real Debian 12 guest and boot the result
	@scripts/demo

test: check ## set-up, check, and every test
	$(PYTHON) -m pytest -n auto --dist loadfile

test-fast: setup ## the tests without an appliance (ten minutes)
	$(PYTHON) -m pytest -n auto --dist loadfile -m 'not appliance and not boots'

check: setup ## lint, formatting and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

bench-convert: ## time and memory of converting the demo guest, as a ratio to virt-v2v (half an hour)
	@scripts/setup --bench
	$(PYTHON) -m tests.bench.convert

bench-copy: ## time, CPU and memory of the copy, as ratios to nbdcopy, qemu-img and cp (8 minutes)
	@scripts/setup
	$(PYTHON) -m tests.bench.copy

bench-copy-overlap: ## a migration from a slow source, copied during conversion and after it
	@scripts/setup
	$(PYTHON) -m tests.bench.overlap

bench-folder: ## reading a disk over HTTPS /folder, as ratios to nbdkit's curl plugin (4 minutes)
	@scripts/setup
	$(PYTHON) -m tests.bench.folder

bench-imageio: ## uploads to an oVirt imageio daemon, as ratios to its own client and to nbdcopy (3 minutes)
	@scripts/setup
	$(PYTHON) -m tests.bench.imageio --variants

bench-ssh: ## reading disks over SSH, as ratios to nbdkit's ssh plugin and to ssh dd (8 minutes)
	@scripts/setup
	$(PYTHON) -m tests.bench.ssh

bench-vmdk: ## VMDK disks by our own reader, as ratios to qemu-img (2 minutes)
	@scripts/setup
	$(PYTHON) -m tests.bench.vmdk

clean: ## remove what was built: the environment, caches, guests, the demo's result
	rm -rf .venv .cache demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
