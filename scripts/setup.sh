#!/usr/bin/env bash
# Makes .venv with everything in requirements.lock and this project in it, from nothing but a Python 3.11–3.13.
# Promise: the same lock gives the same packages, and when nothing changed it returns at once.
#
#   ./scripts/setup.sh                     the project's own .venv
#   ./scripts/setup.sh VENV PYTHON         another one (the test runner makes .venv-3.12 and .venv-3.13 so)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv}
wanted=${2:-${RELANCE_PYTHON:-}}
uv_version=0.13.9 # pinned: the lock file was written by this one
stamp=$venv/.relance-setup

say() { printf 'setup: %s\n' "$*" >&2; }

usable() { # a version manager's shim answers to a name it can't run, and Debian's python3 may lack ensurepip
  "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python3 /usr/bin/python3 /opt/homebrew/bin/python3; do
    if command -v "$name" >/dev/null 2>&1 && usable "$name"; then
      command -v "$name"
      return
    fi
  done
  return 1
}

state() { # what the packages in the venv depend on: the lock, the project file, the interpreter, and where we are
  "$venv/bin/python" - "$uv_version" <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(repr((sys.argv[1], sys.version_info[:3], sys.base_prefix, str(pathlib.Path.cwd()))).encode())
for name in ("requirements.lock", "pyproject.toml"):
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

if [[ -x $venv/bin/python ]] && "$venv/bin/python" -c '' >/dev/null 2>&1; then
  if [[ -f $stamp && $(<"$stamp") == "$(state)" ]]; then
    exit 0
  fi
else
  if [[ -n $wanted ]]; then
    usable "$wanted" || {
      say "$wanted is not a Python 3.11, 3.12 or 3.13 with venv and ensurepip"
      exit 1
    }
  elif ! wanted=$(find_python); then
    say "no Python 3.11, 3.12 or 3.13 with the venv module was found"
    say "install one: 'apt-get install python3 python3-venv' (Debian 12 or newer), 'brew install python@3.13' (macOS)"
    say "or name one: RELANCE_PYTHON=/path/to/python3 $0"
    exit 1
  fi
  say "making $venv with $("$wanted" --version) ($wanted)"
  "$wanted" -m venv --clear "$venv"
fi

python=$venv/bin/python
rm -f "$stamp" # from here on the venv is half-made until the last line
if [[ $("$python" -m uv --version 2>/dev/null || true) != "uv $uv_version"* ]]; then
  say "installing uv $uv_version"
  "$python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
fi
say "installing the packages of requirements.lock (hashes checked)"
"$python" -m uv pip sync --quiet --python "$python" --require-hashes requirements.lock
say "installing this project, editable"
"$python" -m uv pip install --quiet --python "$python" --no-deps --no-build-isolation --editable .
state >"$stamp"
say "$venv is ready"
