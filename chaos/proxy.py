"""A TCP proxy before each broker: partitions, half-open connections, slow links, withheld answers.

Clients reach the cluster through it alone, because the brokers' advertised addresses are the proxy's. Whom a
connection belongs to is read from Kafka's own request header (its client id), what an answer answers from its
correlation id. Promise: what is not disturbed passes byte for byte, in order.

One thread with an event loop; the rig's thread only sets rules, which count from the next bytes on.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from relance.ports import port_is_free

__all__ = ["END_TXN", "OFFSET_COMMIT", "PRODUCE", "TXN_OFFSET_COMMIT", "Proxy", "Rule"]

PRODUCE, OFFSET_COMMIT, END_TXN, TXN_OFFSET_COMMIT = 0, 8, 26, 28
"""Kafka's request types (its protocol guide: api keys)."""

_CHUNK = 1 << 16
_LARGEST_HEADER = 1024


@dataclass(frozen=True, slots=True)
class Rule:
    """One disturbance of the connections of `client` (None: all) to `nodes` (empty: all)."""

    client: str | None = None
    nodes: frozenset[int] = frozenset()
    refuse: bool = False
    """Connections are reset, new ones too: the network says no."""
    silent: bool = False
    """Nothing passes, and nobody is told: a half-open connection."""
    delay: float = 0.0
    """Seconds by which each piece is late, either way."""
    withhold: frozenset[int] = frozenset()
    """Request types that reach the broker and whose answers are lost, with their connection."""

    def hits(self, client: str, node: int) -> bool:
        """Whether it concerns that connection."""
        return (self.client is None or client == self.client) and (not self.nodes or node in self.nodes)


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection to one node."""

    node: int
    client_side: asyncio.StreamWriter
    broker_side: asyncio.StreamWriter | None = None
    client: str = ""
    waiting: dict[int, int] = field(default_factory=dict)
    """Of requests without an answer: correlation id to type, while any rule withholds."""

    def close(self) -> None:
        for writer in (self.client_side, self.broker_side):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Listens on `ports[i]` for node `i + 1`, which is at `targets[i]`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._targets: list[int] = []
        self._rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self.lost_answers = 0
        """How many answers were withheld."""

    @property
    def bootstrap(self) -> str:
        """For clients that are to be disturbed."""
        return ",".join(f"localhost:{port}" for port in self._ports)

    def listen(self) -> None:
        """Take the ports, before somebody else does; who connects is hung up on until `start`."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10.0)

    def start(self, targets: Sequence[int]) -> None:
        """Pass connections on to these ports from now on."""
        self._targets = list(targets)
        if not self._thread.is_alive():
            self.listen()

    def stop(self) -> None:
        """End all."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for link in list(self._links):
                link.close()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=5.0)

        if not self._thread.is_alive():
            return  # it never started
        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    def add(self, rule: Rule) -> None:
        """Disturb from now on."""
        self._loop.call_soon_threadsafe(self._add, rule)

    def remove(self, rule: Rule) -> None:
        """No longer. A connection that was silent stays so, and is reset: what it swallowed is gone."""
        self._loop.call_soon_threadsafe(self._remove, rule)

    # -- on the loop -------------------------------------------------------------------------------

    def _add(self, rule: Rule) -> None:
        self._rules.append(rule)
        if rule.refuse:
            self._reset(rule)

    def _remove(self, rule: Rule) -> None:
        self._rules.remove(rule)
        if rule.silent:
            self._reset(rule)

    def _reset(self, rule: Rule) -> None:
        for link in list(self._links):
            if rule.hits(link.client, link.node):
                link.close()

    async def _listen(self) -> None:
        # The brokers' addresses say localhost, which may be either.
        hosts = ["127.0.0.1", "::1"] if port_is_free(0, "::1") else ["127.0.0.1"]
        for i, port in enumerate(self._ports):
            server = await asyncio.start_server(partial(self._serve, i + 1), hosts, port)
            self._servers.append(server)

    def _those_for(self, link: _Link) -> list[Rule]:
        return [rule for rule in self._rules if rule.hits(link.client, link.node)]

    async def _serve(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(node, writer)
        self._links.add(link)
        try:
            # The first request says whose connection it is.
            first = await reader.readexactly(4)
            (size,) = struct.unpack(">i", first)
            first += await reader.readexactly(size)
            link.client = _client_of(first[4 : 4 + _LARGEST_HEADER])
            if not self._targets or any(rule.refuse for rule in self._those_for(link)):
                return
            target = self._targets[node - 1]
            broker_reader, link.broker_side = await asyncio.open_connection("127.0.0.1", target)
            ends = (
                asyncio.ensure_future(self._requests(link, first, reader)),
                asyncio.ensure_future(self._answers(link, broker_reader)),
            )
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return  # one end has gone: so goes the other
        finally:
            link.close()
            self._links.discard(link)

    async def _requests(self, link: _Link, first: bytes, reader: asyncio.StreamReader) -> None:
        assert link.broker_side is not None
        frame = first
        while True:
            if await self._disturbed(link):
                kind, _version, correlation = struct.unpack_from(">hhi", frame, 4)
                link.waiting[correlation] = kind
                link.broker_side.write(frame)
                await link.broker_side.drain()
            frame = await _frame(reader)

    async def _answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while True:
            frame = await _frame(reader)
            (correlation,) = struct.unpack_from(">i", frame, 4)
            kind = link.waiting.pop(correlation, -1)
            if any(kind in rule.withhold for rule in self._those_for(link)):
                self.lost_answers += 1
                return
            if await self._disturbed(link):
                link.client_side.write(frame)
                await link.client_side.drain()

    async def _disturbed(self, link: _Link) -> bool:
        """Wait as the rules say. False: what is to be passed on is swallowed."""
        for rule in self._those_for(link):
            if rule.silent:
                return False
            if rule.delay:
                await asyncio.sleep(rule.delay)
        return True


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    (size,) = struct.unpack(">i", head)
    return head + await reader.readexactly(size)


def _client_of(header: bytes) -> str:
    """The client id of a request: type, version, correlation id, then a nullable string."""
    (length,) = struct.unpack_from(">h", header, 8)
    return header[10 : 10 + length].decode("utf-8", "replace") if length > 0 else ""
