# Targets are listed by a bare "make".
SHELL     := bash
.SHELLFLAGS := -eu -o pipefail -c
GO        ?= go
BIN       := bin/gateway
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X main.version=$(VERSION)
# What the tests install (SDKs, a small language model, the linter) goes here.
export SERVERS_HOME ?= $(shell . test/servers/lib.sh && printf %s "$$SERVERS_HOME")
STATICCHECK := $(SERVERS_HOME)/bin/staticcheck-0.7.0

.DEFAULT_GOAL := help
.PHONY: help run build check fmt lint test allocs soak isolation race fuzz bench docs servers-up servers-down clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build and serve on 127.0.0.1:8080, everything in ./data
	./$(BIN) serve

build: ## build bin/gateway
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/gateway

check: fmt lint race ## format, vet, lint, tests under the race detector, generated files are current
	$(GO) run ./config/gen -check
	$(GO) mod tidy -diff

fmt:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }

lint: $(STATICCHECK)
	$(GO) vet ./...
	$(GO) vet -tags isolation ./store/... ./vector/... ./rag
	$(STATICCHECK) ./...

$(STATICCHECK):
	@mkdir -p $(@D)
	GOBIN=$(@D) $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.7.0
	mv $(@D)/staticcheck $@

# The folder test drives the built binary, which the detector does not see. The
# slowest package is first, so that the others run beside it.
race:
	REQUIRE_SERVERS=$(REQUIRE_SERVERS) $(GO) test -p 2 -race ./store $$($(GO) list ./... | grep -v -e /test$$ -e /bench$$)

# One package at a time: they start servers and watch clocks.
PACKAGES ?= ./...
test: build ## all tests, with the real SDKs and a real model; REQUIRE_SERVERS=1 makes a missing one a failure
	REQUIRE_SERVERS=$(REQUIRE_SERVERS) $(GO) test -p 1 -count=1 -timeout 40m $(PACKAGES)
	$(MAKE) --no-print-directory isolation SCALE=small

allocs: ## the tests that count allocations, which the race detector leaves out
	$(GO) test -p 1 -count=1 -run 'Alloc|IdleMemory' ./...

# The tests that depend on the scale keep what they came to in
# bench/results/soak/, and one that has passed at this commit is not run again:
# what was broken off goes on. SEED=N repeats the random choices of a run.
soak: build ## the same tests at the full figures, resumable; hours
	SCALE=full SEED=$(SEED) REQUIRE_SERVERS=$(REQUIRE_SERVERS) $(GO) test -p 1 -count=1 -timeout 24h ./...

isolation: ## take the company out of each statement in turn (SCALE=small: of some), and of the vector filter: the suites must notice, and row security must hold
	SCALE=$(SCALE) SEED=$(SEED) REQUIRE_SERVERS=$(REQUIRE_SERVERS) $(GO) test -count=1 -timeout 4h -tags isolation -run Isolation -v ./store ./vector ./rag | grep -v '^=== '

FUZZTIME ?= 20s
fuzz: ## fuzz every parser of outside bytes, FUZZTIME each (default 20s)
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p || exit 1; \
	  done; \
	done

SCALE ?= full
bench: ## compare with two bare proxies; results go to bench/results/ (SCALE=small is quicker)
	$(GO) run ./bench -scale $(SCALE)

docs: ## write docs/config.md and docs/example.yaml anew
	$(GO) run ./config/gen

servers-up: ## start the real servers on loopback, all or SERVERS="redis s3", and print what reaches them
	@test/servers/up.sh $(SERVERS)

servers-down: ## end those servers
	@test/servers/down.sh

clean: ## remove what was built
	rm -rf bin
