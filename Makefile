# One target for each thing a person does with this repository. `make test` is
# the whole check; CI runs nothing else.
SHELL := /bin/bash

# Stamped into the binaries; a tarball without git history says "unknown".
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME  ?= 20s
BENCH     ?= .
BENCHTIME ?= 1s
FLOODTIME ?= 5
# How long `make simulate`, `make life` and `make cluster-check` go on.
TIME      ?= 10m
# The folder that `make corpus` reads.
DIR       ?=
# Which guards `make mutate` breaks; a regular expression, empty: all.
RUN       ?=

# scripts/setup may have found Go in its usual place outside PATH.
export PATH := $(PATH):/usr/local/go/bin
# Needless where git refuses the owner of the checkout, and the version is stamped anyway.
export GOFLAGS := -buildvcs=false $(GOFLAGS)

LDFLAGS := -s -w -X main.version=$(VERSION)
# The daemon needs root; a person who is not root is asked through sudo.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH)

.PHONY: all build man setup test race lint fuzz mutate simulate life cluster-check corpus bench bench-compare bench-net bench-peers bench-report bench-cluster bench-restart bench-sizes bench-policy bench-flood pgo e2e run run-cluster cover package reproducible install uninstall clean

all: build

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# The manual pages of nsgctl, made from its commands.
man: build
	bin/nsgctl man bin/man

setup:
	scripts/setup

test: setup build
	scripts/test

race:
	go test -race ./...

lint:
	scripts/lint

fuzz:
	FUZZTIME=$(FUZZTIME) scripts/fuzz

# Breaks the guards that test/mutate lists, one by one; fails when no test notices. Root sees all of it.
mutate:
	go run ./test/mutate -run '$(RUN)'

# The random world of test/simulate, one after another with fresh seeds, for TIME.
simulate:
	go test ./test/simulate -run 'TestSimulation$$' -count=1 -timeout 0 -v -simulate.time=$(TIME)

# Interfaces, nsgd and its configuration come, go and change under traffic, for TIME.
life: setup
	scripts/e2e -test.run 'TestInterfacesLiveThroughAnything$$' -test.timeout 0 -life.time=$(TIME)

# Hosts and a real etcd of three members go through whatever can happen to them, and their history is checked, for TIME.
cluster-check: setup
	go test ./test/clustercheck -count=1 -timeout 0 -v -clustercheck.time=$(TIME)

# What becomes of each document below DIR: templates, plans of Terraform, exports.
corpus:
	go run ./test/corpus '$(DIR)'

# With the profile that the daemon is built with, so that what is measured is what runs.
bench:
	go test -pgo=$(CURDIR)/cmd/nsgd/default.pgo -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...

# The benchmarks of the packet path in the commit BASE and here, in turn; BENCHCOMPARE takes flags and packages.
BASE ?=
bench-compare:
	go run ./test/compare -base '$(BASE)' $(BENCHCOMPARE)

bench-net: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -commit '$(VERSION)' $(BENCHNET)

# The packet filters of other projects beside nsgd's, in process: nanoseconds a packet.
bench-peers:
	go build -o bin/bench-net ./test/bench
	go test -c -trimpath -pgo=$(CURDIR)/cmd/nsgd/default.pgo -o bin/bench-dataplane.test ./dataplane
	cd test/bench/peers && go test -c -trimpath -o ../../../bin/bench-peers.test .
	bin/bench-net -peers -o bin/bench-peers.json -commit '$(VERSION)' $(BENCHPEERS)

# Writes the figures that bench-net and bench-peers have left in bin into test/bench/README.md.
bench-report:
	go run ./test/bench -report test/bench/README.md

# What is lost when one process follows another: RESTARTS times each way. After more than five kills a minute nsgd
# would begin without flows, so kills take their time.
RESTARTS ?= 100
bench-restart: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -nsgd bin/nsgd -restarts $(RESTARTS) $(BENCHRESTART)

# What is lost when something happens to a cluster, LOSSES times each, with hosts whose lease is LEASE.
LOSSES ?= 3
LEASE  ?= 3s
bench-cluster: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -nsgd bin/nsgd -losses $(LOSSES) -lease $(LEASE)

bench-sizes: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -nsgd bin/nsgd -sizes

# A policy of 1,000 groups of 1,000 rules; TAGS is Microsoft's service tag file, if there is one.
TAGS ?=
bench-policy: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -nsgd bin/nsgd -groups 1000 -service-tags '$(TAGS)' $(BENCHPOLICY)

bench-flood: setup build
	go build -o bin/bench-net ./test/bench
	$(SUDO) bin/bench-net -nsgd bin/nsgd -flood -seconds $(FLOODTIME)

# The profile that the go command builds the daemon with, of the packet path's benchmarks.
pgo:
	go test -pgo=off -trimpath -run '^$$' -bench 'Established|CarryFlows/flows=(1000|1000000)$$|Carry$$/^(established-TCP|new-flow-allowed|denied)$$/rules/workers=1' \
		-cpuprofile cmd/nsgd/default.pgo -o /dev/null ./dataplane

e2e: setup build
	scripts/e2e

run: setup build
	$(SUDO) bin/nsgd run

# The same lab on three hosts, with a real etcd.
run-cluster: setup build
	CGO_ENABLED=0 go build -trimpath -o bin/hosts ./deploy/lab/hosts
	$(SUDO) bin/hosts -binaries bin

cover:
	go test -coverprofile=coverage.out -coverpkg=./... ./...
	go tool cover -func=coverage.out | tail -n 1

# The deb, the rpm, the image and the bills of material, into bin/packages.
package:
	VERSION='$(VERSION)' scripts/package bin/packages

# Builds the packages twice, in two folders and with two caches, and compares every byte. It takes minutes.
reproducible:
	VERSION='$(VERSION)' scripts/reproducible

# Below DESTDIR, with the programs in PREFIX/bin. nsgd.yaml is left as it is where there is one.
PREFIX ?= /usr/local
install: build
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/install bin

uninstall: build
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/install -u bin

clean:
	rm -rf bin coverage.out
