"""Where peers live: a virtual environment for each, made on demand, and the jars that Maven builds.

Promise: what can't be made is told as a reason, so that its peer can be named as missing; an environment is
made again only when its requirements change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers import Peer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
Say = Callable[[str], None]


class MissingPeerError(Exception):
    """The peer can't be had here; the text says why."""


def run_dir() -> Path:
    """Where the benchmark keeps its broker and its environments."""
    return Path(os.environ.get("RELANCE_RUN_DIR") or ROOT / ".run").absolute() / "bench"


def command_of(peer: Peer, say: Say) -> list[str]:
    """The words that start a peer's program, its home made first. Raises MissingPeerError."""
    if peer.home == "java":
        return [*_java(), "-jar", str(_jar(peer.program, say))]
    python = sys.executable if peer.home == "own" else str(_environment(peer.home, say))
    return [python, str(HERE / "programs" / peer.program)]


def _environment(name: str, say: Say) -> Path:
    requirements = HERE / "requirements" / f"{name}.txt"
    if not requirements.is_file():
        raise MissingPeerError(f"there is no bench/requirements/{name}.txt")
    venv = run_dir() / "venvs" / name
    python, stamp = venv / "bin" / "python", venv / ".made-of"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    say(f"making the environment of {name}")
    uv = [sys.executable, "-m", "uv"]
    _do([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], name)
    _do([*uv, "pip", "sync", "--quiet", "--python", str(python), str(requirements)], name)
    stamp.write_text(wanted)
    return python


def _java() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(java) is None:
        raise MissingPeerError("there is no java (17 or newer)")
    # A gigabyte of heap: a service's usual, and more than the work needs.
    return [java, "-Xmx1g"]


def _jar(module: str, say: Say) -> Path:
    jar = HERE / "java" / module / "target" / f"bench-{module}.jar"
    sources = [path for path in (HERE / "java").rglob("*") if path.suffix in (".java", ".xml", ".properties")]
    newest = max(path.stat().st_mtime for path in sources if "target" not in path.parts)
    if not jar.is_file() or jar.stat().st_mtime < newest:
        maven = shutil.which("mvn")
        if maven is None:
            raise MissingPeerError("there is no Maven (mvn) to build it")
        say("building the Java peers")
        _do([maven, "-q", "-B", "-f", str(HERE / "java" / "pom.xml"), "clean", "package"], module)
    return jar


def _do(command: list[str], name: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise MissingPeerError(f"{name} can't be installed: {' · '.join(lines[-3:])[:400] or 'no word why'}")
