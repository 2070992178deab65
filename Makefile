# Everything installs into .venv, which then holds .venv/bin/maskq.
#   make demo    the main job on an embedded Redis and S3        make test    unit, integration, acceptance
#   make test-fast   the unit tests without the slow ones, in a minute
#   make check   lint, types, import rules, secrets, licences    make bench   latency at light load, cost of a mask
#   make scenarios   offline, Poisson, burst, mixed sizes …     make peers    Celery, Ray Serve, LitServe, BentoML beside maskq
#   make loadgen     MLPerf LoadGen: Offline, Server, SingleStream
#   make acl-test   the acceptance tests, each process with the Redis user and S3 policy of its role
#   make http-test  the acceptance tests, each client over HTTP by a gateway of its stack
#   make chaos   kill workers, Redis and S3 for a quarter of an hour
#   make upgrade-test   workers and clients of the previous release beside this version's (needs the git history)
#   make browser the pages of `maskq view` and of the gateway in Chromium (its own, by PATH or CHROMIUM)
#   make lock    deploy/lock anew: versions and hashes of what images and CI install (LOCKED=1 make test)
#   make sbom    dist/*.cdx.json: the images' Python packages, from the lock
#   make fuzz    hostile inputs by the thousand, for a night: FUZZ_EXAMPLES=N a target
#   make api-fuzz   schemathesis asks every route of the HTTP API: no 5xx, no undocumented answer
#   make compose-test   docker-compose.yml brought up for real (needs a Docker engine)
#   make helm-test   the chart of deploy/helm rendered by helm and checked against Kubernetes' and KEDA's schemas
#   make monitoring-test   alerts and dashboard with Debian's Prometheus beside `maskq up` (PATH or apt-get download)
#   make images  the images maskq and maskq-gateway (TORCH_BUILD=cpu: without CUDA), and their sizes
PYTHON ?= python3
VENV   := .venv
# schemathesis' requirements conflict with those of .venv.
API_FUZZ := .venv-api-fuzz
# The models of KEDA pull in what .venv does not need.
HELM   := .venv-helm
# Debian's packages prometheus and prometheus-redis-exporter, unpacked without installing them.
PROMETHEUS := .prometheus
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Where there is a GPU, pyproject.toml's torch is right. Where there is none, this release is installed
# first, so that no CUDA build is pulled in. If your index offers a CUDA build under it too, name one
# with CPU wheels: make demo TORCH_INDEX=URL
TORCH_CPU   ?= torch==2.13.0
TORCH_INDEX ?=
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | head -n 1)
# LOCKED=1: the versions and hashes of deploy/lock, as CI installs. Without it, what pyproject.toml allows.
LOCKED ?=
ARGS ?=
TORCH_BUILD ?= cuda
# The tests start a thousand Python processes. Without their bytecode each compiles its modules again.
export PYTHONDONTWRITEBYTECODE =
# pydantic has no plugins here. Without this each process reads the metadata of all packages for them.
export PYDANTIC_DISABLE_PLUGINS = __all__
# One process more than a machine of two cores has: a third of a run's time tests wait, above all acceptance
# tests. Those begin, in the order of the folders, so that no long file is left at the end.
PROCESSES ?= 3
DISTRIBUTED := --dist loadfile --no-loadscope-reorder
PARALLEL := -n $(PROCESSES) $(DISTRIBUTED)
FUZZ_EXAMPLES ?= 100000

.PHONY: demo test test-fast check lock sbom acl-test http-test fuzz api-fuzz chaos upgrade-test browser bench scenarios peers loadgen compose-test helm-test monitoring-test images train clean

demo: $(VENV)/.standalone
	$(BIN)/maskq demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(DISTRIBUTED) -m 'not slow and not real_weights and not other_tools' tests/unit $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_secrets.py
	$(BIN)/python tools/check_licences.py

lock: $(VENV)/.dev
	$(BIN)/python tools/lock.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) $(ARGS)

sbom: $(VENV)/.dev
	$(BIN)/python tools/sbom.py

acl-test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) --acl-users tests/acceptance $(ARGS)

http-test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) --transport http tests/acceptance $(ARGS)

fuzz: $(VENV)/.dev
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -n 2 --timeout 0 tests/fuzz $(ARGS)

api-fuzz: $(VENV)/.dev $(API_FUZZ)/.installed
	$(BIN)/python -m tools.api_fuzz $(API_FUZZ)/bin/st $(ARGS)

chaos: $(VENV)/.dev
	$(BIN)/python -m pytest -m chaos -s -n 0 tests/chaos $(ARGS)

upgrade-test: $(VENV)/.dev
	$(BIN)/python -m pytest -m upgrade -s -n 0 tests/upgrade $(ARGS)

browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser -n 0 tests/browser $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench.light_load $(ARGS)
	$(BIN)/python -m bench.masks

scenarios: $(VENV)/.dev
	$(BIN)/python -m bench.scenarios $(ARGS)

peers: $(VENV)/.peers
	$(BIN)/python -m bench.peers $(ARGS)

loadgen: $(VENV)/.peers
	$(BIN)/python -m bench.loadgen $(ARGS)

compose-test:
	deploy/compose-test.sh

helm-test: $(HELM)/.installed
	$(HELM)/bin/python -m pytest -c deploy/helm/tests/pytest.ini deploy/helm/tests $(ARGS)

monitoring-test: $(VENV)/.monitoring $(foreach name,prometheus prometheus-redis-exporter,$(if $(shell command -v $(name)),,$(PROMETHEUS)/usr/bin/$(name)))
	$(BIN)/python -m pytest -m monitoring -n 0 tests/monitoring $(ARGS)

images:
	docker build --target gateway --tag maskq-gateway .
	docker build --build-arg TORCH_BUILD=$(TORCH_BUILD) --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag maskq .
	deploy/image-sizes.sh maskq-gateway maskq

train: $(VENV)/.standalone
	$(BIN)/python -m demo_scenes.train $(ARGS)

$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "maskq needs Python 3.11 or newer; name one with make PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch: $(if $(HAS_GPU),as in pyproject.toml,$(TORCH_CPU)))" >&2
	$(if $(LOCKED),$(PIP) --require-hashes --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
	  -r deploy/lock/torch-$(if $(HAS_GPU),cuda,cpu).txt, \
	  $(if $(HAS_GPU),,$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH_CPU)'))
	@touch $@

$(VENV)/.standalone: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[standalone]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml $(if $(LOCKED),deploy/lock/dev.txt)
	$(if $(LOCKED),$(PIP) --require-hashes --no-deps -r deploy/lock/dev.txt)
	$(PIP) $(if $(LOCKED),--no-deps --no-build-isolation) --editable '.[dev]'
	@touch $@ $(VENV)/.standalone

$(API_FUZZ)/.installed:
	$(PYTHON) -m venv $(API_FUZZ)
	$(API_FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis>=4.32,<5'
	@touch $@

$(HELM)/.installed: deploy/helm/tests/requirements.txt deploy/helm/tests/helm.txt tools/fetch_helm.py
	$(PYTHON) -m venv $(HELM)
	$(HELM)/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/helm/tests/requirements.txt
	$(HELM)/bin/python tools/fetch_helm.py $(HELM)/bin/helm
	@touch $@

$(PROMETHEUS)/usr/bin/%:
	mkdir -p $(PROMETHEUS)
	cd $(PROMETHEUS) && apt-get download $* && dpkg -x $*_*.deb . && rm $*_*.deb

$(VENV)/.monitoring: $(VENV)/.dev
	$(PIP) --editable '.[dev,monitoring]'
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	$(PIP) --editable '.[dev,peers]'
	@touch $@

clean:
	rm -rf $(VENV) $(API_FUZZ) $(HELM) $(PROMETHEUS) demo-output
