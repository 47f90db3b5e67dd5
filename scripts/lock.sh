#!/usr/bin/env bash
# Writes requirements.lock (every dependency, dev and extras too, with hashes) from pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
"$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --all-extras --group dev --no-annotate --custom-compile-command ./scripts/lock.sh -o requirements.lock pyproject.toml
