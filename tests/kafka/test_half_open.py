"""A broker that went without a word, as a container may: who looks again later finds it."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from relance.broker import LocalBroker
from relance.errors import BrokerUnavailableError
from relance.kafka.admin import Admin
from relance.ports import free_ports


class Forwarder:
    """Passes connections on to `target`; `lose` has those that are open swallow everything from now on."""

    def __init__(self, port: int, target: int) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._target = target
        self._generation = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def lose(self) -> None:
        self._generation += 1

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._target))
            for ends in ((client, broker), (broker, client)):
                threading.Thread(target=self._pass_on, args=(*ends, self._generation), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, generation: int) -> None:
        with contextlib.suppress(OSError), source, to:
            while piece := source.recv(65536):
                if generation == self._generation:
                    to.sendall(piece)


def test_the_first_look_after_a_silent_restart_is_answered(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    broker = LocalBroker(tmp_path, port=0, told_ports=[port])
    try:
        with Forwarder(port, broker.start().nodes[0].port) as forwarder:
            admin, other = (Admin(f"127.0.0.1:{port}", timeout=2.0) for _ in range(2))
            assert (admin.ping(), other.ping()) == (1, 1)
            forwarder.lose()
            with pytest.raises(BrokerUnavailableError):
                other.ping(0.5)  # a moment later: nothing tells that the connection is dead
            admin._asker._used -= 60.0  # a minute passes
            assert admin.ping() == 1
    finally:
        broker.purge()
