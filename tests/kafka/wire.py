"""What no client would write: a record put into a topic byte by byte (Produce 3, record batch 2), and a
member of a group (JoinGroup 1, SyncGroup 0, Heartbeat 0) that hands out whatever bytes as assignments.

A broker checks the lengths and the checksum of what it is sent, and little else: a header's name need not be
UTF-8 and a record need not have a time. Numbers are big-endian; those within a record are zigzag varints.
"""

from __future__ import annotations

import itertools
import socket
import struct
from typing import NamedTuple

from tests.waiting import wait_until


class Raw(NamedTuple):
    """A record. `timestamp` is in milliseconds; -1 is Kafka's word for none."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    timestamp: int = -1


def write(bootstrap: str, topic: str, record: Raw) -> None:
    """Write it to partition 0 of `topic`, and wait for the broker's acknowledgement."""
    batch = _batch(record)
    body = struct.pack(">hhii", -1, -1, 10_000, 1) + _text(topic)
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    with Line(bootstrap) as line:
        answer = line.ask(0, 3, body)
    (error,) = struct.unpack_from(">h", answer, 4 + len(_text(topic)) + 8)
    assert error == 0, f"the broker answers with error {error}"


class Line:
    """A connection to a broker, on which one question is asked at a time."""

    def __init__(self, bootstrap: str, client_id: str = "wire") -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._answers = self._socket.makefile("rb")
        self._client_id = client_id

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, api: int, version: int, body: bytes) -> bytes:
        """The answer without its header."""
        request = struct.pack(">hhi", api, version, 1) + _text(self._client_id) + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", self._answers.read(4))
        return self._answers.read(size)[4:]


class Forger:
    """A member that leads its group: it hands out `mine` to itself, and `theirs` to every other member.

    The first to join leads, so it must be there before the others. `follow` keeps it in the group.
    """

    def __init__(
        self, bootstrap: str, group: str, mine: bytes, theirs: bytes = b"", assignor: str = "range"
    ) -> None:
        self._line = Line(bootstrap, "forger")
        self._group, self._mine, self._theirs, self._assignor = group, mine, theirs, assignor
        self._member, self._generation = "", -1
        # FindCoordinator: only who is asked for makes the topic of offsets.
        wait_until(lambda: self._line.ask(10, 0, _text(group))[:2] == b"\0\0", 20, "a coordinator")
        self._join()

    def __enter__(self) -> Forger:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.ask(13, 0, _text(self._group) + _text(self._member))  # LeaveGroup
        self._line.__exit__()

    def follow(self) -> int:
        """Join again if others have come or gone; how many members the group has."""
        body = _text(self._group) + struct.pack(">i", self._generation) + _text(self._member)
        (error,) = struct.unpack(">h", self._line.ask(12, 0, body))
        if error == 27:  # REBALANCE_IN_PROGRESS
            self._join()
        return self._size

    def _join(self) -> None:
        subscription = struct.pack(">hi", 0, 0) + struct.pack(">i", -1)
        body = _text(self._group) + struct.pack(">ii", 30_000, 30_000) + _text(self._member)
        body += _text("consumer") + struct.pack(">i", 1) + _text(self._assignor) + _blob(subscription)
        beginning = (b"\0\x0e", b"\0\x0f", b"\0\x10")  # a coordinator that is only beginning answers so

        def answered() -> bytes | None:
            answer = self._line.ask(11, 1, body)
            return None if answer.startswith(beginning) else answer

        answer = wait_until(answered, 20, f"{self._group} to be joined")
        error, self._generation = struct.unpack_from(">hi", answer)
        assert error == 0, f"the broker answers with error {error}"
        (_, leader, self._member), at = _texts(answer, 6, 3)
        assert leader == self._member, "somebody was there before"
        (self._size,) = struct.unpack_from(">i", answer, at)
        at, members = at + 4, []
        for _ in range(self._size):
            (name,), at = _texts(answer, at, 1)
            members.append(name)
            (size,) = struct.unpack_from(">i", answer, at)
            at += 4 + size
        body = _text(self._group) + struct.pack(">i", self._generation) + _text(self._member)
        body += struct.pack(">i", len(members))
        for name in members:
            body += _text(name) + _blob(self._mine if name == self._member else self._theirs)
        (error,) = struct.unpack_from(">h", self._line.ask(14, 0, body))
        assert error == 0, f"the broker answers with error {error}"


def assignment(topic: str, *partitions: int) -> bytes:
    """What a leader hands out to a member, as it should be: ConsumerProtocolAssignment 0."""
    return (
        struct.pack(">hi", 0, 1)
        + _text(topic)
        + struct.pack(f">{1 + len(partitions)}i", len(partitions), *partitions)
        + struct.pack(">i", -1)
    )


def commit_for_nobody(bootstrap: str, topic: str, offset: int) -> None:
    """Commit for partition 0 under the name "": brokers take it, clients refuse to ask about it."""
    body = _text("") + struct.pack(">i", -1) + _text("") + struct.pack(">qi", -1, 1) + _text(topic)
    body += struct.pack(">iiq", 1, 0, offset) + _text("")
    with Line(bootstrap) as line:
        answer = line.ask(8, 2, body)
    assert answer.endswith(b"\0\0"), answer


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _blob(raw: bytes) -> bytes:
    return struct.pack(">i", len(raw)) + raw


def _texts(answer: bytes, at: int, count: int) -> tuple[list[str], int]:
    found = []
    for _ in range(count):
        (size,) = struct.unpack_from(">h", answer, at)
        found.append(answer[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return found, at


def _batch(record: Raw) -> bytes:
    one = b"\0" + _varint(0) + _varint(0) + _bytes(record.key) + _bytes(record.value)
    one += _varint(len(record.headers))
    one += b"".join(_bytes(part) for part in itertools.chain(*record.headers))
    body = struct.pack(">hiqqqhii", 0, 0, record.timestamp, record.timestamp, -1, -1, -1, 1)
    body += _varint(len(one)) + one
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, _crc32c(body)) + body


def _bytes(part: bytes | None) -> bytes:
    return _varint(-1) if part is None else _varint(len(part)) + part


def _varint(number: int) -> bytes:
    number = number << 1 ^ number >> 63
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
