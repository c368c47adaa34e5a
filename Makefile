# Martlet
# SPDX-License-Identifier: Apache-2.0
#
# `make` or `make help` lists the targets. Everything a target needs, it installs (Debian 12, as root or with sudo).

SHELL := /bin/bash
.DEFAULT_GOAL := help

# What the tests and benchmarks start; `make test MARTLET_SERVER=/usr/bin/memcached` runs the suites on the original.
export MARTLET_SERVER ?= $(CURDIR)/.build/release/martlet-server
# The peer of `make bench`.
export MEMCACHED ?= /usr/bin/memcached

.PHONY: help install build run test test-python bench fuzz sanitize soak compat format lint clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: ## install the Debian packages and Python packages that building and testing need
	@Scripts/install-dependencies all

build: ## build the server, optimised (.build/release/martlet-server)
	@Scripts/install-dependencies build
	swift build -c release --static-swift-stdlib --product martlet-server

run: build ## build, and serve on 127.0.0.1:11211 (more flags: make run ARGS='-m 256 -v')
	@Scripts/run-node $(ARGS)

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

soak: build ## 100,000 differential streams against memcached; resumes where it stopped (ARGS='--streams N --seed S')
	@Scripts/install-dependencies test
	@Scripts/soak $(ARGS)

compat: build ## suites of other repositories, brought beside this one: see Scripts/compat --help
	@Scripts/install-dependencies test
	@Scripts/compat $(ARGS)

format: ## rewrite the Swift sources in the house format
	swift format format --in-place --parallel --recursive Package.swift Sources Tests

lint: ## check the format without rewriting
	swift format lint --strict --parallel --recursive Package.swift Sources Tests

clean: ## remove what was built
	rm -rf .build .venv out .pytest_cache
