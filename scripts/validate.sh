#!/usr/bin/env bash
# Runs the labs' checkpoint list against the running stack and ends with OK or FAIL: CAUSE.
# Promise: it leaves the simulation flag off and the number of consumers as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/stack validate "$@"
