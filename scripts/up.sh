#!/usr/bin/env bash
# Starts the module on this machine and returns when all of it is healthy: ./scripts/up.sh [--scale consumer=N]
# Promise: from a clean clone it needs only Python 3.11 to 3.13, Java 17+ and Maven; run again, it keeps what is healthy.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/stack up "$@"
