"""Stand-ins for what a broker's machinery meets: a port that speaks, and commands on the PATH."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Reply = Callable[[bytes], bytes | None]  # from a request's bytes to an answer; None: silence


@contextlib.contextmanager
def listening(reply: Reply) -> Iterator[int]:
    """A server on a free port that answers each connection's first bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                with contextlib.suppress(OSError):
                    answer = reply(connection.recv(4096))
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join()
            for connection in held:
                connection.close()


def framed(request: bytes, body: bytes) -> bytes:
    """An answer in Kafka's framing, to that request."""
    correlation = request[8:12]
    return struct.pack(">i", 4 + len(body)) + correlation + body


def kafka(request: bytes) -> bytes:
    """What a Kafka answers to ApiVersions, version 0: produce and ApiVersions itself."""
    return framed(request, struct.pack(">hi", 0, 2) + struct.pack(">hhhhhh", 0, 0, 13, 18, 0, 4))


def command(folder: Path, name: str, script: str) -> Path:
    """An executable shell script in `folder`, to be put on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
