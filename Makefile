# Two commands do all set-up on a machine with any Go from 1.21 on: `make demo` and `make test`.
# GOTOOLCHAIN lets an older Go fetch the one that go.mod names.
export GOTOOLCHAIN := go1.27.3
export CGO_ENABLED ?= 0
GO ?= go
ARGS ?=
SEED ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

.PHONY: help demo test soak-crash race lint bench build fuzz

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## a day on an embedded Proxmox, GitHub and Windows guests; ARGS="--jobs 20 --seed 1 --speed 200 -o json"
	@$(GO) run ./cmd/mayfly demo $(ARGS)

test: ## all tests (under 5 minutes on 2 cores); SEED=n replays a random one
	MAYFLY_SEED=$(SEED) $(GO) test -timeout 10m ./...

soak-crash: ## 2,000 jobs, 1,000 at once; 200 seeds of crashes, failing calls and bad webhooks (up to 20 minutes)
	MAYFLY_SOAK=1 MAYFLY_SEED=$(SEED) $(GO) test -timeout 25m -run 'TestSoak' -v ./cmd/mayfly

race: ## the same tests under the race detector, with 2 crash seeds and 50 jobs
	CGO_ENABLED=1 MAYFLY_SEEDS=2 MAYFLY_JOBS=50 MAYFLY_SEED=$(SEED) $(GO) test -race -timeout 15m ./...

lint: ## go vet (also for Windows), staticcheck, gofumpt
	$(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	$(GO) tool staticcheck ./...
	@out=$$($(GO) tool gofumpt -l .); if [ -n "$$out" ]; then echo "not formatted (run: go tool gofumpt -w .):"; echo "$$out"; exit 1; fi

bench: ## the numbers of the design beside their targets
	@MAYFLY_BENCH=1 $(GO) test -timeout 20m -run 'TestBench' -v ./cmd/mayfly | awk '/^ *(===|--- PASS|PASS|ok )/ {next} /FAIL/ {bad = 1} {print; fflush()} END {exit bad}'

fuzz: ## each fuzz target for FUZZTIME (default 60s)
	@for t in $$(grep -rhoE --include=*_test.go '^func Fuzz[A-Za-z]+' internal cmd | sed 's/func //'); do \
		pkg=$$(grep -rlE --include=*_test.go "^func $$t\b" internal cmd | head -1 | xargs dirname); \
		echo "== $$t ($$pkg)"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $${FUZZTIME:-60s} ./$$pkg || exit 1; done

build: ## the static binary, in bin/
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/mayfly ./cmd/mayfly
