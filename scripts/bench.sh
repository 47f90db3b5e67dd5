#!/usr/bin/env bash
# Measures relance beside its peers: ./scripts/bench.sh [WORK …] [--quick] [--json FILE] [--against bare,aiokafka,…]
# Promise: a broker of its own on a free port, and environments of their own for the peers, under .run/bench.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python -m bench "$@"
