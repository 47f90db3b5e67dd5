"""Processes by identity and ports by holder; promises never to signal a process that only reused a pid.

A pid alone says little after a crash or a reboot. What is kept in a pid file is the pid together with the
moment the kernel says that process started; both must match before anything is waited for or killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_PROC = Path("/proc")
_SERVER_PORTS = (20_000, 32_000)
_RANDOM = random.SystemRandom()  # two test runs at a time must not look for ports in the same order
_TICK = 0.02  # seconds between two looks at a process that is to end
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


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
    """Hold SIGINT and SIGTERM back while a child is born, so that none is born without being noted.

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


def port_is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now (a socket in TIME_WAIT does not count, as for the JVM)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing holds at this moment.

    They are below the range from which the system takes ports for outgoing connections, so that a broker
    that was killed finds its port free when it comes back, whatever clients did meanwhile.
    """
    found: list[int] = []
    while len(found) < count:
        port = _RANDOM.randrange(*_SERVER_PORTS)
        if port not in found and port_is_free(port):
            found.append(port)
    return found


def holder_of(port: int) -> str:
    """Who listens on a TCP port, in words for a message: `pid 4711 (nginx: master process)`."""
    pids = _listeners_by_proc(port) if (_PROC / "net/tcp").exists() else _listeners_by_lsof(port)
    if not pids:
        return "a process that this user may not look at"
    return ", ".join(f"pid {pid} ({command_of(pid)})" for pid in pids)


def command_of(pid: int) -> str:
    """The command line of a process, shortened for a message."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    words = "".join(c if c.isprintable() else "?" for c in words.strip())
    return words if len(words) <= 80 else f"{words[:79]}…"


def _listeners_by_proc(port: int) -> list[int]:
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        path = _PROC / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return sorted(pid for pid in _pids() if inodes and not inodes.isdisjoint(_open_files(pid)))


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _open_files(pid: int) -> set[str]:
    # A process may end, or belong to someone else, while it is being looked at: then it holds nothing for us.
    found = set()
    with contextlib.suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _listeners_by_lsof(port: int) -> list[int]:
    if shutil.which("lsof") is None:
        return []
    listed = subprocess.run(
        ["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"], capture_output=True, text=True, check=False
    )
    return sorted({int(pid) for pid in listed.stdout.split()})
