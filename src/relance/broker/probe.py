"""Asks a port whether a Kafka answers there; promises to tell "Kafka", "something else" and "nothing" apart.

It speaks just enough of Kafka's protocol by hand (an ApiVersions request, which every broker answers
before any authentication, and a Metadata request), so that a broker can be watched without a client:
a client library would log, retry and cache, and here the first answer is what counts.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_METADATA, _API_VERSIONS = 3, 18
_UNSUPPORTED_VERSION = 35
_CORRELATION = 0x72656C61  # any number; an echo of it is what a chance answer will not have
_CLIENT = b"relance-probe"
_LARGEST_ANSWER = 16 << 20


class Answer(enum.Enum):
    """What a port said."""

    KAFKA = "Kafka"
    OTHER = "something that is not Kafka"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Member:
    """One broker as the cluster's metadata name it."""

    id: int
    host: str
    port: int


def ask(host: str, port: int, timeout: float = 2.0) -> Answer:
    """Send an ApiVersions request to every address of `host` until one accepts, and judge the answer.

    A program that accepts and keeps silent for `timeout` seconds counts as OTHER.
    """
    try:
        connection = socket.create_connection((host, port), timeout)
    except OSError:
        return Answer.NOTHING
    with connection:
        try:
            body = _exchange(connection, _API_VERSIONS, 0, b"")
        except (OSError, ValueError):
            return Answer.OTHER
    return Answer.KAFKA if _is_api_versions(body) else Answer.OTHER


def members(host: str, port: int, timeout: float = 2.0) -> tuple[Member, ...]:
    """The brokers this one knows to be alive, by a Metadata request without topics; () where none answers."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            # Version 1 with an empty array of topics: the brokers only.
            return tuple(_read_members(_exchange(connection, _METADATA, 1, struct.pack(">i", 0))))
    except (OSError, ValueError, struct.error):
        return ()


def _exchange(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    head = struct.pack(">hhih", api, version, _CORRELATION, len(_CLIENT)) + _CLIENT
    connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    (size,) = struct.unpack(">i", _read(connection, 4))
    if not 4 <= size <= _LARGEST_ANSWER:
        raise ValueError(f"not Kafka's framing: a length of {size}")
    answer = _read(connection, size)
    if struct.unpack_from(">i", answer)[0] != _CORRELATION:
        raise ValueError("not an answer to this request")
    return answer[4:]


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError("closed in the middle of an answer")
        parts += part
    return bytes(parts)


def _is_api_versions(body: bytes) -> bool:
    """ApiVersionsResponse v0: error code, then an array of (api key, lowest, highest version)."""
    if len(body) < 6:
        return False
    error, count = struct.unpack_from(">hi", body)
    if error == _UNSUPPORTED_VERSION:
        return True
    rows = list(struct.iter_unpack(">hhh", body[6:])) if len(body) == 6 + 6 * count else []
    return error == 0 and any(key == _API_VERSIONS for key, _, _ in rows)


def _read_members(body: bytes) -> Iterator[Member]:
    """MetadataResponse v1: an array of (node id, host, port, rack), then what is not needed here."""
    (count,) = struct.unpack_from(">i", body)
    at = 4
    for _ in range(count):
        node, length = struct.unpack_from(">ih", body, at)
        at += 6
        host = body[at : at + length].decode()
        at += length
        port, rack_length = struct.unpack_from(">ih", body, at)
        at += 6 + max(rack_length, 0)
        yield Member(node, host, port)
