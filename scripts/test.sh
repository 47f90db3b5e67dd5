#!/usr/bin/env bash
# Sets up what is missing, then runs the checks and the tests: ./scripts/test.sh [SUITE…]
# Promise: it ends with status 0 only if every suite ran, and ran green (scripts/run_tests.py does the counting).
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/run_tests.py "$@"
