"""What this project is made of, and what is known against it: an SBOM, and an audit of the lock file.

    .venv/bin/python scripts/supply_chain.py [FOLDER]

Writes FOLDER/sbom.json (CycloneDX; default .run) and asks PyPI's advisories about each locked version. Status
1: a package has a known vulnerability, or the SBOM is not what the lock file says. Where the advisories can't
be reached, it says that nothing was audited; that is no proof of anything, and no failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
BIN = Path(sys.executable).parent
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def main(folder: Path) -> int:
    """Both; returns the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = [*bill_of_materials(folder / "sbom.json"), *audit()]
    for problem in problems:
        print(f"supply chain: {problem}", file=sys.stderr)
    return 1 if problems else 0


def locked() -> set[tuple[str, str]]:
    """Names and versions."""
    return set(_PINNED.findall(LOCK.read_text()))


def bill_of_materials(file: Path) -> list[str]:
    """Write the SBOM; returns what is wrong with it."""
    command = [str(BIN / "cyclonedx-py"), "requirements", str(LOCK)]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "-o", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"no SBOM could be made: {done.stderr.strip()}"]
    found = {(part["name"], part["version"]) for part in json.loads(file.read_text())["components"]}
    if found != locked():
        return [f"the SBOM and requirements.lock differ in {sorted(found ^ locked())}"]
    print(f"supply chain: {len(found)} packages in {file}")
    return []


def audit() -> list[str]:
    """Ask for known vulnerabilities; returns those."""
    command = [str(BIN / "pip-audit"), "-r", str(LOCK), "--disable-pip", "--require-hashes", "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        print(f"supply chain: NOT AUDITED, the advisories can't be asked: {last[0]}")
        return []
    asked = [package for package in packages if "skip_reason" not in package]
    if len(asked) < len(packages):
        unknown = len(packages) - len(asked)
        print(f"supply chain: NOT AUDITED: {unknown} of {len(packages)} packages, unknown there")
    if asked:
        print(f"supply chain: {len(asked)} packages audited")
    return [
        f"{package['name']} {package['version']}: {known['id']}, mended in {known['fix_versions']}"
        for package in asked
        for known in package["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".run"))
