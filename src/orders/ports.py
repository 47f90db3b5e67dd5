"""Takes the service's port before anything else starts; promise: a taken one is named with its holder."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (Linux, net/tcp_states.h)


class PortTakenError(Exception):
    """The port can't be had; the text is one line, with the holder's pid and command where visible."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTakenError; the address itself was checked with the settings."""
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        # Else a restart would wait for the last connections of the one before (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise PortTakenError(_why(host, port, error)) from error
    return listener


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by {holder(port)}; stop it, or set SERVER_PORT"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} may not be taken by this user; set SERVER_PORT to one above 1023"
    return f"can't listen on {host} port {port}: {error.strerror or error}; set SERVER_HOST or SERVER_PORT"


def holder(port: int, proc: Path = Path("/proc")) -> str:
    """Which process listens on the port: `pid 4711 (python -m orders)`, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    for process in proc.glob("[0-9]*") if inodes else ():
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"pid {process.name} ({command.strip()[:200] or 'its command is not visible'})"
        except OSError:
            # Another user's process, or one that has just ended: look on.
            continue
    return "another process, whose pid is not visible to this user"


def _listening_inodes(port: int, proc: Path) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue  # no such protocol, or not Linux
        for line in lines:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port and columns[3] == _LISTEN:
                found.add(columns[9])
    return found
