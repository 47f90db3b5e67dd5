#!/usr/bin/env bash
# Shows the services' logs: ./scripts/logs.sh [NAME] [--tail N] [--follow] (without a name all, prefixed).
# Promise: the files are .run/logs/NAME.log; nothing is kept elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/stack logs "$@"
