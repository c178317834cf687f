#!/usr/bin/env bash
# Puts promtool into the folder named, out of Debian's package. Installing that package would also start Prometheus.
set -euo pipefail
into=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# As root, apt would rather download as another user, who may not write here.
download=(apt-get download -qq -o APT::Sandbox::User=root prometheus)
"${download[@]}" 2> /dev/null || { apt-get update -qq && "${download[@]}"; }
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
install -m 755 usr/bin/promtool "$into/promtool"
