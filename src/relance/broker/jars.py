"""Finds or fetches Kafka's jars and a Java for them; never takes a half-done download for a whole one.

Maven copies into a directory beside the place, which is renamed into it only when all is there, together
with the hash of the pom it came from: a changed pom fetches anew. A file lock lets one process at a time
download; the others wait and then find the work done.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from relance.broker.engine import MissingToolError
from relance.broker.files import locked
from relance.broker.processes import uninterrupted
from relance.errors import RelanceError

KAFKA_VERSION = "4.3.1"
OLDEST_JAVA = 17
HOME_VARIABLE = "RELANCE_KAFKA_HOME"
POM = Path(__file__).with_name("pom.xml")
_MARK = "pom.sha256"

Say = Callable[[str], None]


def kafka_home() -> Path:
    """Where the jars live: $RELANCE_KAFKA_HOME, or `.run` of the checkout, or the user's cache directory."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen).expanduser().absolute()
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "src/relance").is_dir():
        return checkout / ".run/kafka" / KAFKA_VERSION
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "relance/kafka" / KAFKA_VERSION


def jars_ready(home: Path) -> bool:
    """Whether `home/libs` holds a whole download of this very pom, or the user's own Kafka."""
    mark = home / "libs" / _MARK
    if mark.is_file():
        return mark.read_text() == _pom_hash()
    # Only a rename puts our own download there, mark included: jars without it are the user's.
    return bool(os.environ.get(HOME_VARIABLE)) and any((home / "libs").glob("kafka_2.13-4.*.jar"))


def ensure_jars(home: Path, say: Say) -> Path:
    """The directory of the jars, downloaded if needed. Raises MissingToolError without Maven."""
    libs = find_jars(home)
    if jars_ready(home):
        return libs
    maven = _find_maven()
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "download.lock", lambda: say("waiting for another process that downloads Kafka")):
        if not jars_ready(home):
            _download(maven, home, say)
    return libs


def find_jars(home: Path) -> Path:
    """Where the jars are, or will be. Raises MissingToolError where they could not be fetched."""
    if not jars_ready(home):
        _find_maven()
    return home / "libs"


def find_java() -> Path:
    """A Java that can run Kafka: of $JAVA_HOME, or the one on the PATH. Raises MissingToolError."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin/java")) if home else shutil.which("java")
    where = f"JAVA_HOME={home}" if home else "the PATH"
    if java is None:
        raise MissingToolError(f"Java {OLDEST_JAVA} or later (there is no java in {where})")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr)
    if said.returncode != 0 or version is None:
        # macOS ships a /usr/bin/java that only says where to get one.
        raise MissingToolError(f"Java {OLDEST_JAVA} or later ({java} does not run)")
    if int(version[1]) < OLDEST_JAVA:
        raise MissingToolError(f"Java {OLDEST_JAVA} or later ({java} is Java {version[1]})")
    return Path(java)


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingToolError("Maven (there is no mvn in the PATH to fetch Kafka's jars)")
    return maven


def _download(maven: str, home: Path, say: Say) -> None:
    partial, libs = home / "libs.partial", home / "libs"
    shutil.rmtree(partial, ignore_errors=True)
    command = [maven, "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    said = _watch([*command, f"-DoutputDirectory={partial}"], say)
    if said is not None:
        raise RelanceError(f"Maven could not fetch Kafka {KAFKA_VERSION}: {said}")
    if not any(partial.glob("kafka_2.13-*.jar")):
        raise RelanceError(f"Maven ended well, but put no Kafka into {partial}")
    (partial / _MARK).write_text(_pom_hash())
    shutil.rmtree(libs, ignore_errors=True)
    partial.rename(libs)


def _watch(command: list[str], say: Say) -> str | None:
    """Run Maven, telling its progress; None where it went well, else its first error."""
    fetched, error = 0, ""
    say(f"downloading Kafka {KAFKA_VERSION} with Maven (45 MB, once)")
    with uninterrupted():
        # A session of its own, so that an interrupt ends Maven's children too, and only by our hand.
        maven = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        undo = contextlib.ExitStack()
        undo.callback(_kill_session, maven)
    with undo:
        assert maven.stdout is not None
        for line in maven.stdout:
            if "Downloaded" in line and ".jar" in line:
                fetched += 1
                # No total: plugins that Maven lacks are among the files.
                files = "1 file" if fetched == 1 else f"{fetched} files"
                say(f"downloading Kafka {KAFKA_VERSION} with Maven: {files}")
            elif "ERROR" in line and not error:
                error = line.partition("] ")[2].strip()
        status = maven.wait()
    return None if status == 0 else error or f"it ended with status {status}"


def _kill_session(maven: subprocess.Popen[str]) -> None:
    if maven.poll() is None:
        os.killpg(maven.pid, signal.SIGTERM)
        try:
            maven.wait(5.0)
        except subprocess.TimeoutExpired:
            os.killpg(maven.pid, signal.SIGKILL)
            maven.wait()
    if maven.stdout is not None:
        maven.stdout.close()


def _pom_hash() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()
