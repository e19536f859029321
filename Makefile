# Ironling: set up, build, run, test, measure. Every target installs what it needs.
SHELL := /bin/bash
BUILD := .build/release
FP8 := .build/models/ling-tiny-fp8
# Tests under way at once. Without a bound all are, and whoever waits for anything then waits for all the others too.
TEST_WIDTH ?= 4
HTTP_PORT ?= 8000
RPC_PORT ?= 7000
MODEL ?= $(shell if [ -f Models/ling-tiny/model.safetensors ]; then echo Models/ling-tiny; else echo Tests/Fixtures/golden/base; fi)

ACCEPTANCE := .build/venv/bin/python -m unittest discover -s Tests/Acceptance -p '*_test.py' && \
	.build/venv/bin/python Tests/Acceptance/fuzz_interface.py --examples 5 --quiet

.PHONY: help setup build fp8 run test acceptance promtool bench allocations emulate-check validate calibrate lint options \
	fuzz docker docker-test clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install the Debian packages the build needs (asks for root only when one is missing)
	@./.ci/setup

build: setup ## build the services and the ironling command
	swift build -c release

$(FP8)/config.json: Models/ling-tiny/model.safetensors Models/ling-tiny/config.json
	@rm -rf $(FP8) && mkdir -p $(dir $(FP8))
	@$(BUILD)/ironling quantize --model Models/ling-tiny --output $(FP8) --quiet

fp8: build ## make the FP8 variant of ling-tiny, for make run MODEL=.build/models/ling-tiny-fp8
	@[ ! -f Models/ling-tiny/model.safetensors ] || $(MAKE) --no-print-directory $(FP8)/config.json

run: build fp8 ## start all services on loopback: make run [MODEL=dir] [ARGS=…]
	@[ "$(MODEL)" != Tests/Fixtures/golden/base ] || \
		echo "no Models/ling-tiny yet: serving the golden checkpoint 'base' (random weights) with a byte-level tokenizer"
	$(BUILD)/ironling up --model $(MODEL) --byte-tokenizer --http-port $(HTTP_PORT) --rpc-port $(RPC_PORT) $(ARGS)

test: build lint .build/venv/ready promtool ## the whole test suite
	swift build -c release --build-tests
	SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=$(TEST_WIDTH) swift test -c release --skip-build
	python3 -m unittest discover -s Protocol/python -p '*_test.py'
	python3 -m unittest discover -s Models/ling-tiny/train/tests -p '*_test.py'
	$(ACCEPTANCE)

acceptance: build .build/venv/ready promtool ## the openai package, schemathesis, trace_processor and promtool against the running services
	$(ACCEPTANCE)

.build/venv/ready: Tests/Acceptance/requirements.txt
	python3 -m venv .build/venv
	.build/venv/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

promtool: # the tests that need it say so when it cannot be fetched
	@Tests/Acceptance/promtool || true

bench: build ## the benchmarks: tables and JSON under .build/bench/ (ARGS="--help" shows the options)
	@Tests/Benchmarks/gRPCEcho/build .build/bench/grpc
	@$(BUILD)/ironling-bench --out .build/bench $(ARGS)

allocations: build ## how many allocations each service makes per decoded token
	@Tests/Benchmarks/Allocations/run

emulate-check: build ## the same loads through live emulation and simulator, side by side (a few minutes)
	@Tests/Emulation/agreement.py $(ARGS)

validate: build ## every published figure, of kernels and serving, beside ours, and whether ours drifted
	@$(BUILD)/ironling simulate validate $(ARGS)

calibrate: build ## fit the simulator's six parameters, then those of serving, to the figures that may be fitted, and write them
	@$(BUILD)/ironling simulate calibrate --output Sources/TPU/Calibration/parameters.json
	@$(BUILD)/ironling simulate calibrate --serving --parameters Sources/TPU/Calibration/parameters.json \
		--output Sources/DeploymentModel/Parameters/parameters.json

lint: setup
	swift format lint --strict --recursive --parallel Package.swift Sources Services Protocol Tests

options: build ## write the page of all options anew
	./.ci/options > Services/OPTIONS.md

fuzz: setup ## run every decoder under libFuzzer for FUZZ_SECONDS each
	./Tests/Fuzz/run $(FUZZ_SECONDS)

docker: ## build the container image (docker/README.md says how to run it)
	docker build -f docker/Dockerfile -t $${IRONLING_IMAGE:-ironling} .
	@docker image ls $${IRONLING_IMAGE:-ironling}

docker-test: ## the services through compose: scaled, killed under load, taken down; starts an engine if none runs (root)
	docker/test/run $(ARGS)

clean: ## remove build products
	rm -rf .build
