# Martlet
# SPDX-License-Identifier: Apache-2.0
#
# `make` or `make help` lists the targets. Everything a target needs, it installs (Debian 12, as root or with sudo).

SHELL := /bin/bash
.DEFAULT_GOAL := help

# What the tests and benchmarks start; `make test MARTLET_SERVER=/usr/bin/memcached` runs the suites on the original.
export MARTLET_SERVER ?= $(CURDIR)/.build/release/martlet-server
# Where the programs of the image and the package are; named, nothing is built: make deb BUILT=/usr/bin
BUILT ?=
# The peer of `make bench`.
export MEMCACHED ?= /usr/bin/memcached

.PHONY: help install build run fleet regions test test-python bench fuzz sanitize soak soak-storage soak-clients compat \
	image deb package-test upgrade-test docs api-docs render format lint clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: ## install the Debian packages and Python packages that building and testing need
	@Scripts/install-dependencies all

build: ## build the server, the router, martletctl and martlet-load, optimised, into .build/release
	@Scripts/install-dependencies build
	swift build -c release --static-swift-stdlib --product martlet-server
	swift build -c release --static-swift-stdlib --product martlet-router
	swift build -c release --static-swift-stdlib --product martletctl
	swift build -c release --static-swift-stdlib --product martlet-load

run: build ## build, and serve on 127.0.0.1:11211 (more flags: make run ARGS='-m 256 -v')
	@Scripts/run-node $(ARGS)

fleet: build ## a router, three nodes and one PostgreSQL on loopback (ARGS='--nodes 5 --port 5000')
	@Scripts/install-dependencies test
	@Scripts/run-fleet $(ARGS)

regions: build ## two regions on loopback, each a router and two nodes; home on a real PostgreSQL (ARGS='--tour --port 22000')
	@Scripts/install-dependencies test
	@Scripts/run-regions $(ARGS)

test: ## everything a change must pass: build, Swift tests, style, Python suites with real clients and sockets
	@Scripts/install-dependencies all
	@Scripts/run-tests

test-python: install ## the Python suites alone, on the server in MARTLET_SERVER (ARGS='-k differential -x' goes to pytest)
	@.venv/bin/python -m pytest Tests/Integration $(ARGS)

bench: build ## CPU, throughput, memory and miss ratio beside memcached (MEMCACHED=path, Debian's otherwise)
	@Scripts/install-dependencies test
	@python3 Benchmarks/bench --memcached "$(MEMCACHED)" --martlet "$(MARTLET_SERVER)" $(ARGS)

fuzz: ## the parsers under libFuzzer and the address sanitizer
	@Scripts/install-dependencies build
	@Scripts/fuzz $(ARGS)

sanitize: ## the concurrency tests under the thread sanitizer, then the address sanitizer
	@Scripts/install-dependencies build
	@Scripts/sanitize $(ARGS)

soak: build ## simulated seeds, a fleet of 1,000, differential streams, checked reads of streams, both below; hours; resumes
	@Scripts/install-dependencies test
	@Scripts/soak-simulation $(SEEDS)
	@Scripts/soak-simulation $(SEEDS) --of streams
	@Scripts/soak-simulation $(SEEDS) --of promotions
	@Scripts/soak-simulation $(SEEDS) --of brokers
	@Scripts/soak-simulation $(SEEDS) --of homes
	MARTLET_FLEET_NODES=1000 MARTLET_ONLY_TESTS=OverloadTests swift test -c release --scratch-path .build/fleet \
		--filter FleetTests
	@Scripts/soak-streams
	@Scripts/soak $(ARGS)
	@$(MAKE) --no-print-directory soak-storage soak-clients ARGS=

soak-storage: ## 1,000 kills and 1,000 power losses of the embedded store; resumes (ARGS='--cycles N --seed S')
	@Scripts/install-dependencies build
	@Scripts/soak-storage $(ARGS)

soak-clients: build ## 10,000,000 operations of real clients, checked; 1,000 crashes, 1,000 power losses; PostgreSQL too; resumes
	@Scripts/install-dependencies test
	@Scripts/soak-linearizable $(ARGS)
	@Scripts/soak-durability
	@Scripts/soak-durability --trouble power --seed 18
	@MARTLET_TEST_STORAGE=postgres Scripts/soak-linearizable --seed 15 --operations 1000000 \
		--trouble database --trouble restarts
	@MARTLET_TEST_STORAGE=postgres Scripts/soak-durability --trouble database --cycles 2000 --seed 16
	@MARTLET_TEST_STORAGE=postgres Scripts/soak-durability --seed 17

compat: build ## suites of other repositories, brought beside this one: see Scripts/compat --help
	@Scripts/install-dependencies test
	@Scripts/compat $(ARGS)

image: $(if $(BUILT),,build) ## build the container image without a daemon: out/martlet-image.tar (an OCI archive)
	@Scripts/install-dependencies package
	@Scripts/build-image $(or $(BUILT),.build/release)

deb: $(if $(BUILT),,build) ## build the Debian package: out/martlet_VERSION_ARCH.deb
	@Scripts/install-dependencies package
	@Scripts/build-deb $(or $(BUILT),.build/release)

package-test: image deb ## run the image in namespaces; install, run and purge the package in a root of Debian
	@Scripts/install-dependencies test
	@.venv/bin/python -m pytest -c Tests/Packages/pytest.ini Tests/Packages $(ARGS)

upgrade-test: build ## a rolling upgrade and a rollback, under load: BEFORE=DIRECTORY has the earlier release's programs
	@Scripts/install-dependencies test
	@MARTLET_BEFORE="$(if $(BEFORE),$(abspath $(BEFORE)))" .venv/bin/python -m pytest Tests/Integration/upgrades -n 0 -s $(ARGS)

docs: ## build the documentation as a site, links checked: out/site
	@Scripts/install-dependencies test
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

api-docs: build ## the modules' documentation as DocC archives: out/api (ARGS='Telemetry' for one)
	@Scripts/api-docs $(ARGS)

render: ## write the chart's golden files, manifests, alerts and dashboards again
	@Scripts/install-dependencies test
	@Scripts/make-dashboards
	@.venv/bin/python Scripts/render-chart

format: ## rewrite the Swift sources in the house format
	swift format format --in-place --parallel --recursive Package.swift Sources Tests

lint: ## check the format without rewriting
	swift format lint --strict --parallel --recursive Package.swift Sources Tests

clean: ## remove what was built
	rm -rf .build .venv out .pytest_cache
