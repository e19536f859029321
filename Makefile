# Ironling: set up, build, run, test, measure. Every target installs what it needs.
SHELL := /bin/bash
BUILD := .build/release
HTTP_PORT ?= 8000
RPC_PORT ?= 7000
MODEL ?= $(shell if [ -f Models/ling-tiny/config.json ]; then echo Models/ling-tiny; else echo Tests/Fixtures/golden/base; fi)

.PHONY: help setup build run test bench lint fuzz clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install the Debian packages the build needs (asks for root only when one is missing)
	@./.ci/setup

build: setup ## build the services and the ironling command
	swift build -c release

run: build ## start all services on loopback: make run [MODEL=dir] [ARGS=…]
	@[ "$(MODEL)" != Tests/Fixtures/golden/base ] || \
		echo "no Models/ling-tiny yet: serving the golden checkpoint 'base' (random weights) with a byte-level tokenizer"
	$(BUILD)/ironling up --model $(MODEL) --byte-tokenizer --http-port $(HTTP_PORT) --rpc-port $(RPC_PORT) $(ARGS)

test: build lint ## the whole test suite
	swift build -c release --build-tests
	swift test -c release --skip-build
	python3 -m unittest discover -s Protocol/python -p '*_test.py'

bench: build ## the benchmarks: tables and JSON under .build/bench/ (ARGS="--help" shows the options)
	@Tests/Benchmarks/gRPCEcho/build .build/bench/grpc
	@$(BUILD)/ironling-bench --out .build/bench $(ARGS)

lint: setup
	swift format lint --strict --recursive --parallel Package.swift Sources Services Protocol Tests

fuzz: setup ## run every decoder under libFuzzer for FUZZ_SECONDS each
	./Tests/Fuzz/run $(FUZZ_SECONDS)

clean: ## remove build products
	rm -rf .build
