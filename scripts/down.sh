#!/usr/bin/env bash
# Stops everything that up.sh started: ./scripts/down.sh [--purge] (--purge deletes the data and the logs, too).
# Promise: what up.sh didn't start stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/stack down "$@"
