"""Processes by identity; promises never to signal a process that only reused a pid.

A pid alone says little after a crash or a reboot. What is kept in a pid file is the pid together with the
moment the kernel says that process started; both must match before anything is waited for or killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_PROC = Path("/proc")
_TICK = 0.02  # seconds between two looks at a process that is to end


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot: its pid and when it started, as the kernel tells it."""

    pid: int
    started: str


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None for nobody, and for a zombie, which has ended and waits to be buried."""
    if (_PROC / "self/stat").exists():
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name in brackets may hold spaces and brackets: count fields after the last one.
        fields = stat.rpartition(")")[2].split()
        if fields[0] in "ZX" and not _other_threads(pid):
            return None
        return Identity(pid, f"{boot}:{fields[19]}")
    row = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(row) < 2 or row[0].startswith("Z") else Identity(pid, row[1].strip())


def _other_threads(pid: int) -> bool:
    """Whether threads outlive the first: those of a killed JVM do, and hold its ports a moment more."""
    try:
        return len(list((_PROC / str(pid) / "task").iterdir())) > 1
    except OSError:
        return False


def alive(who: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(who.pid) == who


def terminate(who: Identity, patience: float) -> bool:
    """SIGTERM, `patience` seconds, then SIGKILL. Returns False where it took the SIGKILL."""
    if send(who, signal.SIGTERM) and not wait_gone(who, patience):
        send(who, signal.SIGKILL)
        wait_gone(who, 10.0)
        return False
    return True


def send(who: Identity, sig: signal.Signals) -> bool:
    """Signal that very process; False where it has gone."""
    if not alive(who):
        return False
    try:
        os.kill(who.pid, sig)
    except ProcessLookupError:
        return False
    return True


def wait_gone(who: Identity, patience: float) -> bool:
    """Wait until that process has ended, `patience` seconds at most."""
    deadline = time.monotonic() + patience
    while alive(who):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TICK)
    with contextlib.suppress(ChildProcessError):  # not our child: someone else buries it
        os.waitpid(who.pid, os.WNOHANG)
    return True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back while a child is born, so that none is born without being noted.

    The signals are delivered at the end. They are caught, not blocked: a child would inherit a blocked
    signal, and then not stop when asked. Outside the main thread no handler runs, so nothing is to be held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    caught = [one for one in held if signal.getsignal(one) not in (None, signal.SIG_IGN)]
    before = {one: signal.signal(one, note) for one in caught}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in came:
            signal.raise_signal(number)
