#!/usr/bin/env bash
# Torments consumers on a cluster of its own and checks that nothing was lost: ./scripts/chaos.sh [--seconds 300]
# [--seed N] [--faults LIST]. Promise: status 0 only if the checker found nothing; see --help and chaos/checker.py.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python -m chaos "$@"
