# What there is to do with this repository. `make help` lists it, DEVELOPERS.md explains it.

SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
# How long each fuzz target runs, and how long each benchmark.
FUZZTIME ?= 10s
BENCHTIME ?= 1s
# What golangci-lint looks at, and flags of bench-router.
LINTFLAGS ?=
BENCHFLAGS ?=
# Flags of interop, for example -silence 0; of attack, for example -only 'a stranger'; of soak, for example -for 1m.
INTEROPFLAGS ?=
ATTACKFLAGS ?=
SOAKFLAGS ?=
# Flags of demo, for example -stay 10m: how long it stays up at the end for whoever looks. Without them it
# does so for two minutes where somebody sits at a terminal.
DEMOFLAGS ?= $(shell [ -t 0 ] && echo -stay 2m)

# Everything that is built but not committed lies here, outside the tree.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/connectplugin
# Modules of their own that users or tests see; those that do not exist yet are skipped.
NESTED := $(patsubst %/go.mod,%,$(wildcard examples/go.mod bench/go.mod connectpluginfx/go.mod connectpluginotel/go.mod connectpluginv2/go.mod console/go.mod interop/go.mod))
MODULES := . $(NESTED)
# The directories from which code is generated.
GENERATED := $(patsubst %/buf.gen.yaml,%,$(wildcard ./buf.gen.yaml examples/buf.gen.yaml examples/*/buf.gen.yaml))
# The .proto files that the generator is tested with, as one image.
GENERATOR_TESTS := cmd/protoc-gen-connect-plugin/testdata
BUILD_TEST_IMAGE := buf build --config '{"version":"v2","modules":[{"path":"proto"},{"path":"$(GENERATOR_TESTS)/proto"}]}' $(addprefix --path ,$(wildcard $(GENERATOR_TESTS)/proto/*))
FIRST_VERSION := internal/projecttest/testdata/wire/first_version

# One directory of programs per tool module and per content of its go.sum and version of Go, so that
# a changed pin builds anew and another branch keeps its own.
goversion := $(shell $(GO) env GOVERSION)
tooldir = $(CACHE)/tools/$(1)-$(shell (cat tools/$(1)/go.mod tools/$(1)/go.sum; echo $(goversion)) | git hash-object --stdin | cut -c1-16)
PROTOC_DIR := $(call tooldir,protoc)
BUF_DIR := $(call tooldir,buf)
LINT_DIR := $(call tooldir,golangci-lint)
CONFORMANCE_DIR := $(call tooldir,conformance)
# The generator of this very tree: each working tree has its own. It is built before anything is
# generated, for buf removes first what it will write.
OWN_DIR := $(CACHE)/tree/$(shell pwd | git hash-object --stdin | cut -c1-16)
OWN_GENERATOR := $(OWN_DIR)/protoc-gen-connect-plugin
WITH_TOOLS := PATH="$(OWN_DIR):$(BUF_DIR):$(PROTOC_DIR):$(LINT_DIR):$$PATH"
GENERATORS := $(BUF_DIR)/.built $(PROTOC_DIR)/.built $(OWN_GENERATOR)
LINTERS := $(LINT_DIR)/.built

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## run a real host and real plugins, over TLS, in processes of their own
	@cd examples && $(GO) run ./urlshortener/cmd/demo $(DEMOFLAGS)

# `make lint` vets. By itself a program that looks for races waits a second before it ends, and there
# are many. Directories that others may write to hold no keys, and where a group may, those of tests are such.
# What only debuggers want is neither compiled nor linked, here and wherever a test runs Go: that takes a
# tenth of the time, and programs of the same flags are compiled once.
TEST_MODULE = (umask 022 && cd "$$m" && export GORACE="atexit_sleep_ms=50 $$GORACE" GOFLAGS="$$($(GO) env GOFLAGS) -gcflags=all=-dwarf=false '-ldflags=-s -w'" \
	&& $(GO) test -race -vet=off -p 4 -parallel 4 ./...)

.PHONY: test
test: ## test the library and the examples, with the race detector
	@for m in . $(filter examples,$(NESTED)); do echo "== test $$m"; $(TEST_MODULE) || exit 1; done

.PHONY: testnested
testnested: # what `make test` leaves out: the other nested modules
	@for m in $(filter-out examples,$(NESTED)); do echo "== test $$m"; $(TEST_MODULE) || exit 1; done

.PHONY: lint
lint: $(LINTERS) ## run golangci-lint over every module
	@for m in $(MODULES); do echo "== lint $$m"; (cd "$$m" && $(WITH_TOOLS) golangci-lint run --config $(CURDIR)/.golangci.yml $(LINTFLAGS) ./...) || exit 1; done

.PHONY: lintfix
lintfix: $(LINTERS) $(GENERATORS) ## format the code and apply the fixes that the linters know
	@for m in $(MODULES); do echo "== fix $$m"; (cd "$$m" && $(WITH_TOOLS) golangci-lint run --config $(CURDIR)/.golangci.yml --fix $(LINTFLAGS) ./...) || exit 1; done
	@$(WITH_TOOLS) buf format -w proto

.PHONY: generate
generate: $(GENERATORS) ## generate the code in gen/ from proto/, and that of the examples
	@for d in $(GENERATED); do echo "== generate $$d"; (cd "$$d" && $(WITH_TOOLS) buf generate) || exit 1; done
	@$(WITH_TOOLS) $(BUILD_TEST_IMAGE) -o $(GENERATOR_TESTS)/protos.binpb

.PHONY: checkgenerate
checkgenerate: $(GENERATORS) ## demand that generated code is up to date and the wire is compatible
	@set -euo pipefail; export $(WITH_TOOLS); tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	for d in $(GENERATED); do \
		echo "== checkgenerate $$d"; \
		mkdir -p "$$tmp/$$d"; \
		(cd "$$d" && if [ -f buf.yaml ]; then buf lint && buf format -d --exit-code; fi && buf generate -o "$$tmp/$$d"); \
		for out in $$(cd "$$tmp/$$d" && ls); do diff -r "$$d/$$out" "$$tmp/$$d/$$out"; done; \
	done; \
	echo "== checkgenerate: the .proto files that the generator is tested with"; \
	$(BUILD_TEST_IMAGE) -o "$$tmp/protos.binpb"; \
	cmp "$$tmp/protos.binpb" $(GENERATOR_TESTS)/protos.binpb; \
	echo "== checkgenerate: what is generated from the protos of the conformance suite runs"; \
	conformance=$$(cd tools/conformance && $(GO) mod download -json connectrpc.com/conformance | sed -n 's/.*"Dir": "\(.*\)",*/\1/p'); \
	buf build "$$conformance/proto" -o "$$tmp/conformance.binpb"; \
	$(GO) test -run '^TestConformanceProtos$$' ./cmd/protoc-gen-connect-plugin -conformance.image="$$tmp/conformance.binpb"; \
	echo "== checkgenerate: the wire against its first version"; \
	buf build $(FIRST_VERSION) --exclude-source-info -o "$$tmp/first.binpb"; \
	cmp "$$tmp/first.binpb" $(FIRST_VERSION).binpb; \
	buf breaking --against $(FIRST_VERSION).binpb

.PHONY: conformance
conformance: $(CONFORMANCE_DIR)/.built ## run Connect's conformance suite with the router between client and server
	@cd bench && $(GO) run ./conformance run -programs "$(CONFORMANCE_DIR)"

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each (10s)
	@set -euo pipefail; for m in $(MODULES); do \
		cd "$(CURDIR)/$$m"; packages=$$($(GO) list ./...); \
		for p in $$packages; do \
			targets=$$($(GO) test -list '^Fuzz' "$$p"); \
			for f in $$(grep '^Fuzz' <<<"$$targets"); do \
				echo "== fuzz $$p $$f"; \
				$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$p"; \
			done; \
		done; \
	done

.PHONY: bench
bench: ## run every benchmark for BENCHTIME each (1s)
	@for m in $(MODULES); do echo "== bench $$m"; (cd "$$m" && $(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 30m ./...) || exit 1; done

.PHONY: bench-router
bench-router: ## measure routed calls against direct ones and against a bare reverse proxy (5 minutes)
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/bench-router ./router && $(CACHE)/bench-router $(BENCHFLAGS)

.PHONY: bench-plugins
bench-plugins: ## measure launched plugins beside those of hashicorp/go-plugin with AutoMTLS (3 minutes)
	@mkdir -p $(CACHE)/bench-plugins && cd bench && $(GO) build -o $(CACHE)/bench-plugins ./plugins/own ./plugins/ownplugin ./plugins/theirs ./goplugin/plugin \
		&& $(GO) build -o $(CACHE)/bench-plugins/plugins ./plugins && $(CACHE)/bench-plugins/plugins -programs $(CACHE)/bench-plugins $(BENCHFLAGS)

.PHONY: bench-replace
bench-replace: ## replace a launched plugin 50 times under load and count what failed
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/bench-replace ./replace && $(CACHE)/bench-replace $(BENCHFLAGS)

.PHONY: bench-recovery
bench-recovery: ## kill hosts and plugins under load, and measure how they come back (-n 5000 on request)
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/bench-recovery ./recovery && $(CACHE)/bench-recovery $(BENCHFLAGS)

.PHONY: bench-scale
bench-scale: ## measure what 100, 1,000 and 5,000 connected plugins cost a host (9 minutes, on an idle machine; -n 100,1000 for less)
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/bench-scale ./scale && $(CACHE)/bench-scale $(BENCHFLAGS)

.PHONY: attack
attack: ## attack a host of its own on loopback in every way that we know, beside honest callers (50 minutes; ATTACKFLAGS="-for 5s": 20)
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/attack ./attack && $(CACHE)/attack $(ATTACKFLAGS)

.PHONY: soak
soak: ## mixed honest and hostile load for ten minutes, then look what is left of it
	@mkdir -p $(CACHE) && cd bench && $(GO) build -o $(CACHE)/soak ./soak && $(CACHE)/soak $(SOAKFLAGS)

.PHONY: interop
interop: interop-languages ## let real servers and clients of other libraries call one another through a host (17 minutes; see interop/setup.sh)
	@mkdir -p $(CACHE) && cd interop && $(GO) build -o $(CACHE)/interop-table . && $(CACHE)/interop-table -cache $(CACHE)/interop $(INTEROPFLAGS)

.PHONY: interop-languages
interop-languages: ## hold the packages for Python and Node, and our own peers, against the conformance kit (2 minutes)
	@interop/languages.sh $(CACHE)/interop

.PHONY: cover
cover: ## measure what the tests of the library cover, and write a page that shows it
	@mkdir -p $(CACHE)
	@$(GO) test -coverprofile=$(CACHE)/cover.out -coverpkg="$$($(GO) list ./... | grep -vE '/(test|internal/(hosttest|assert|projecttest))(/|$$)' | paste -sd, -)" ./...
	@$(GO) tool cover -func=$(CACHE)/cover.out | tail -n 1
	@$(GO) tool cover -html=$(CACHE)/cover.out -o $(CACHE)/cover.html
	@echo "wrote $(CACHE)/cover.html"

.PHONY: clean
clean: ## remove what make built outside the tree
	@rm -rf "$(CACHE)"

.PHONY: $(OWN_GENERATOR)
$(OWN_GENERATOR):
	@mkdir -p "$(@D)" && $(GO) build -o "$@" ./cmd/protoc-gen-connect-plugin

$(CACHE)/tools/%/.built:
	@echo "building the tools in $(@D) (once; minutes for most of them)"
	@mkdir -p "$(@D)"
	@name=$(notdir $(@D)); cd "tools/$${name%-*}" && GOBIN="$(@D)" $(GO) install tool
	@touch "$@"
