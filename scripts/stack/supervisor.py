"""Starts and stops the services' processes, and finds them again in a later run.

Promise: a process is known by its pid *and* the moment it started, so a pid that was used again is never
mistaken for ours; a started process is on file before anything can interrupt us.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relance.broker import files, processes
from relance.broker.processes import Identity
from stack.services import API, Service, consumer_number
from stack.settings import ROOT, TUNING, Settings, StackError

ROTATE_BYTES = 20 * 2**20
STOP_PATIENCE = 12.0  # seconds: more than the drain deadline of an orders service (4 s) and its last words


@dataclass(frozen=True)
class Running:
    """A service's process as its pid file tells it. `recipe` and `env` are what it was started from."""

    name: str
    who: Identity
    port: int
    recipe: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        _bury(self.who.pid)
        return processes.alive(self.who)


_children: set[int] = set()  # pids that this very process started: they become its zombies
_log_starts: dict[str, int] = {}  # where the logs of the services started by this run begin


def recipe(service: Service) -> str:
    """A digest of all that a running process should have been started from: command, environment, sources.

    A process with another recipe is stale: it runs yesterday's code or settings.
    """
    digest = hashlib.sha256(repr((service.command, sorted(service.env.items()))).encode())
    for path in sorted((ROOT / "src").rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path}{stat.st_mtime_ns}{stat.st_size}".encode())
    return digest.hexdigest()[:16]


def log_path(settings: Settings, name: str) -> Path:
    return settings.logs_dir / f"{name}.log"


def start(settings: Settings, service: Service) -> Running:
    """Start it in a session of its own (a Ctrl-C in this terminal isn't meant for it), output to its log."""
    settings.pids_dir.mkdir(parents=True, exist_ok=True)
    settings.logs_dir.mkdir(parents=True, exist_ok=True)
    log = log_path(settings, service.name)
    if log.exists() and log.stat().st_size > ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))
    # What this terminal says of the tuning counts only as far as the recipe knows it.
    inherited = {key: value for key, value in os.environ.items() if key not in TUNING}
    env = {**inherited, **service.env, "PYTHONUNBUFFERED": "1"}
    _log_starts[service.name] = log.stat().st_size if log.exists() else 0
    with processes.uninterrupted():
        with log.open("ab") as output:
            child = subprocess.Popen(
                service.command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _children.add(child.pid)
        child.returncode = 0  # it is to outlive us: nobody waits, and nobody is to be warned of that
        who = processes.identify(child.pid)
        if who is None:
            raise StackError(f"{service.title} ended at once\n{last_lines(settings, service.name)}")
        running = Running(service.name, who, service.port, recipe(service), dict(service.env))
        _write(settings, running)
    return running


def find(settings: Settings, name: str) -> Running | None:
    """The process of that service if it still runs; a pid file that points to nothing is removed."""
    path = settings.pids_dir / f"{name}.json"
    try:
        noted = json.loads(path.read_text())
        who = Identity(noted["pid"], noted["started"])
        running = Running(name, who, noted["port"], noted["recipe"], dict(noted.get("env", {})))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StackError(f"{path} is damaged; look for the process yourself, then delete the file") from None
    if running.alive:
        return running
    forget(settings, name)
    return None


def find_all(settings: Settings) -> list[Running]:
    """Every service of this stack that runs."""
    names = sorted(path.stem for path in settings.pids_dir.glob("*.json"))
    return [running for name in names if (running := find(settings, name))]


def as_started(settings: Settings) -> Settings:
    """The settings with which the order API runs, where they differ from what the environment says now."""
    running = find(settings, API)
    if running is None:
        return settings
    return replace(settings, tuning=tuple((key, running.env[key]) for key in TUNING if key in running.env))


def surplus(settings: Settings, consumers: int) -> list[Running]:
    """The second consumers above that number."""
    return [one for one in find_all(settings) if (consumer_number(one.name) or 0) > consumers]


def forget(settings: Settings, name: str) -> None:
    (settings.pids_dir / f"{name}.json").unlink(missing_ok=True)


def stop(settings: Settings, doomed: Iterable[Running], patience: float = STOP_PATIENCE) -> list[str]:
    """SIGTERM to all at once, one shared deadline, then SIGKILL. Returns the names that took a SIGKILL."""
    doomed = list(doomed)
    for running in doomed:
        processes.send(running.who, signal.SIGTERM)
    deadline = time.monotonic() + patience
    killed = []
    for running in doomed:
        while running.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if running.alive:
            processes.send(running.who, signal.SIGKILL)
            processes.wait_gone(running.who, 5.0)
            killed.append(running.name)
        _bury(running.who.pid)
        forget(settings, running.name)
    return killed


def _bury(pid: int) -> None:
    """Take note of the end of a child of ours, if it has ended."""
    if pid in _children:
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _children.discard(pid)


def last_lines(settings: Settings, name: str, count: int = 12) -> str:
    """The end of a service's log, of this start alone if it was ours, and where the rest is."""
    log = log_path(settings, name)
    shown = str(log.relative_to(Path.cwd())) if log.is_relative_to(Path.cwd()) else str(log)
    lines: Sequence[str] = ()
    with contextlib.suppress(FileNotFoundError), log.open("rb") as stream:
        stream.seek(max(_log_starts.get(name, 0), log.stat().st_size - 64 * 1024))
        lines = stream.read().decode(errors="replace").splitlines()[-count:]
    text = "\n".join(f"    {line}" for line in lines) or "    (empty)"
    return f"  last lines of {shown}:\n{text}"


def _write(settings: Settings, running: Running) -> None:
    noted: Mapping[str, object] = {
        "pid": running.who.pid,
        "started": running.who.started,
        "port": running.port,
        "recipe": running.recipe,
        "env": dict(running.env),
    }
    files.write_whole(settings.pids_dir / f"{running.name}.json", json.dumps(noted) + "\n")
