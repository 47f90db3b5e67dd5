"""A record that no client would write, put into a topic byte by byte: Produce 3, record batch 2.

A broker checks the lengths and the checksum of what it is sent, and little else: a header's name need not be
UTF-8 and a record need not have a time. Numbers are big-endian; those within a record are zigzag varints.
"""

from __future__ import annotations

import itertools
import socket
import struct
from typing import NamedTuple


class Raw(NamedTuple):
    """A record. `timestamp` is in milliseconds; -1 is Kafka's word for none."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    timestamp: int = -1


def write(bootstrap: str, topic: str, record: Raw) -> None:
    """Write it to partition 0 of `topic`, and wait for the broker's acknowledgement."""
    batch = _batch(record)
    name = struct.pack(">h", len(topic)) + topic.encode()
    request = struct.pack(">hhihhhii", 0, 3, 1, -1, -1, -1, 10_000, 1) + name
    request += struct.pack(">iii", 1, 0, len(batch)) + batch
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client, client.makefile("rb") as answers:
        client.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", answers.read(4))
        answer = answers.read(size)
    (error,) = struct.unpack_from(">h", answer, 8 + len(name) + 8)
    assert error == 0, f"the broker answers with error {error}"


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
