"""TCP ports of this machine: whether one is free, which are, and who holds one, in words for a message.

Promise: looking takes no port away from anybody, and a holder that this user may not see is said to be one.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LOOPBACK_NAMES", "command_of", "free_ports", "holder_of", "port_is_free"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""By which this machine calls itself."""

_PROC = Path("/proc")
_SERVER_PORTS = (20_000, 32_000)
_RANDOM = random.SystemRandom()  # two test runs at a time must not look for ports in the same order
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


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
