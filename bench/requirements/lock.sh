#!/usr/bin/env bash
# Writes each peer's pinned requirements (NAME.txt) from what it is asked for by name (NAME.in).
set -euo pipefail
cd "$(dirname "$0")/../.."
for wanted in bench/requirements/*.in; do
  .venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
    --no-emit-find-links --no-annotate --custom-compile-command ./bench/requirements/lock.sh \
    -o "${wanted%.in}.txt" "$wanted"
done
