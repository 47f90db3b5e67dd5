"""The proxy: what is not disturbed passes byte for byte, and each rule does what it says to whom it says."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from chaos.proxy import PRODUCE, Proxy, Rule
from relance.ports import free_ports
from waiting import wait_until

METADATA = 3


def request(kind: int, correlation: int, client: str = "member-1", body: bytes = b"") -> bytes:
    name = client.encode()
    frame = struct.pack(">hhih", kind, 1, correlation, len(name)) + name + body
    return struct.pack(">i", len(frame)) + frame


def answer_to(frame: bytes) -> bytes:
    """The same correlation id, and the request again."""
    body = frame[8:12] + frame
    return struct.pack(">i", len(body)) + body


class Broker(socketserver.ThreadingTCPServer):
    """Answers each frame, and keeps what it got."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Broker)
        while head := self.rfile.read(4):
            frame = head + self.rfile.read(struct.unpack(">i", head)[0])
            self.server.got.append(frame)
            self.wfile.write(answer_to(frame))


@pytest.fixture
def broker() -> Iterator[Broker]:
    server = Broker()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    found = Proxy(free_ports(1))
    found.start([broker.server_address[1]])
    yield found
    found.stop()


def connect(proxy: Proxy) -> socket.socket:
    port = proxy.bootstrap.partition(":")[2]
    found = socket.create_connection(("127.0.0.1", int(port)), 5.0)
    found.settimeout(5.0)
    return found


def read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (part := connection.recv(size - len(found))):
        found += part
    return found


def exchange(connection: socket.socket, frame: bytes) -> bytes:
    connection.sendall(frame)
    return read(connection, len(answer_to(frame)))


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_what_is_not_disturbed_passes_byte_for_byte(proxy: Proxy, broker: Broker) -> None:
    frames = [request(METADATA, i, body=bytes(range(256)) * i) for i in range(1, 200)]
    with connect(proxy) as connection:
        for frame in frames:
            assert exchange(connection, frame) == answer_to(frame)
    assert broker.got == frames


def test_whoever_is_cut_off_is_reset_and_nobody_else(proxy: Proxy) -> None:
    with connect(proxy) as mine, connect(proxy) as other:
        exchange(mine, request(METADATA, 1, "member-1"))
        exchange(other, request(METADATA, 1, "member-2"))
        rule = Rule("member-1", refuse=True)
        proxy.add(rule)
        assert is_reset(mine)
        assert exchange(other, request(METADATA, 2, "member-2"))
        with connect(proxy) as again:
            again.sendall(request(METADATA, 1, "member-1"))
            assert is_reset(again)
        proxy.remove(rule)

        def let_in() -> bool:
            with connect(proxy) as once_more:
                try:
                    return bool(exchange(once_more, request(METADATA, 1, "member-1")))
                except ConnectionResetError:
                    return False

        wait_until(let_in, 5.0)


def test_one_node_only(proxy: Proxy) -> None:
    proxy.add(Rule(nodes=frozenset({2}), refuse=True))
    with connect(proxy) as connection:
        assert exchange(connection, request(METADATA, 1))


def test_a_silent_connection_swallows_all_and_is_reset_when_it_is_over(proxy: Proxy, broker: Broker) -> None:
    with connect(proxy) as connection:
        exchange(connection, request(METADATA, 1))
        rule = Rule("member-1", silent=True)
        proxy.add(rule)
        with connect(proxy) as later:  # it comes after the rule, so the rule counts by now
            later.sendall(request(METADATA, 7))
            connection.sendall(request(METADATA, 2))
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            assert len(broker.got) == 1
            proxy.remove(rule)
            connection.settimeout(5.0)
            assert is_reset(connection)


def test_an_answer_that_is_withheld_was_given(proxy: Proxy, broker: Broker) -> None:
    proxy.add(Rule("member-1", withhold=frozenset({PRODUCE})))
    with connect(proxy) as connection:
        assert exchange(connection, request(METADATA, 1))
        connection.sendall(request(PRODUCE, 2))
        assert is_reset(connection)
    assert [struct.unpack_from(">h", frame, 4)[0] for frame in broker.got] == [METADATA, PRODUCE]
    assert proxy.lost_answers == 1


def test_a_slow_link_is_late_either_way(proxy: Proxy) -> None:
    proxy.add(Rule(delay=0.1))
    with connect(proxy) as connection:
        began = time.monotonic()
        assert exchange(connection, request(METADATA, 1))
        assert time.monotonic() - began >= 0.2


def test_the_end_of_the_broker_is_the_end_of_the_connection(proxy: Proxy, broker: Broker) -> None:
    with connect(proxy) as connection:
        connection.sendall(struct.pack(">i", 1 << 20) + b"x")  # half a frame, and no more
        connection.shutdown(socket.SHUT_WR)
        assert is_reset(connection)
