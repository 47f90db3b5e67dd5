"""A compacted topic of one partition as a dictionary that all processes share.

Promise: `get` answers from memory; after `reached(offset)` it answers with what was written at that offset or
later. One thread reads, and nobody else changes the dictionary.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from relance.delivery import Delivery
from relance.encoding import encode
from relance.errors import BrokerUnavailableError, RelanceError
from relance.kafka.cluster import QuietLog, error_text
from relance.kafka.fitting import FittingProducer
from relance.kafka.rights import with_right
from relance.text import one_line

__all__ = ["Table"]

_log = logging.getLogger("relance.table")


class Table:
    """The latest value of each key in `topic`. Values are JSON objects; writing None removes a key.

    Made by `App.table` before the application runs; read to its end before any record is handled.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._values: dict[str, dict[str, Any]] = {}
        self._position = 0
        self._changed = threading.Condition()
        self._caught_up = False
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._stop = threading.Event()
        self._producer: FittingProducer | None = None
        self._problem = ""
        """What the client last said of reading."""
        self._thread: threading.Thread | None = None

    def get(self, key: str) -> dict[str, Any] | None:
        """The value of `key` as last read, or None."""
        return self._values.get(key)

    def items(self) -> dict[str, dict[str, Any]]:
        """All keys and values, as last read."""
        with self._changed:
            return dict(self._values)

    def put(self, key: str, value: Mapping[str, Any] | None) -> Delivery:
        """Write `value` for `key` (None removes it). The acknowledged offset can be given to `reached`.

        Raises SendError at once for a value that has no JSON.
        """
        delivery = Delivery()
        if self._producer is None:
            raise RelanceError(f"table {self.topic}: the application is not running")
        raw = None if value is None else encode(dict(value))
        self._producer.send(self.topic, raw, key=key.encode(), answer=delivery.answer)
        return delivery

    @property
    def position(self) -> int:
        """One past the last offset read: what an observer of this state has seen."""
        return self._position

    async def reached(self, offset: int, timeout: float) -> bool:
        """Wait until the record at `offset` has been read, at most `timeout` seconds; whether it has."""
        if self._position > offset:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._position > offset:
                return True
            self._waiters.append((offset, loop, future))
        try:
            await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return False
        return True

    def wait_reached(self, offset: int, timeout: float) -> bool:
        """`reached` for threads."""
        with self._changed:
            return self._changed.wait_for(lambda: self._position > offset, timeout)

    # -- for App -----------------------------------------------------------------------------------

    def start(self, settings: Mapping[str, Any], producer: FittingProducer, timeout: float) -> None:
        """Read to the present end; raises BrokerUnavailableError if that takes longer than `timeout`."""
        self._producer = producer
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._read, args=(dict(settings),), name=f"relance-table-{self.topic}", daemon=True
        )
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._caught_up, timeout):
                why = f": {self._problem}" if self._problem else ""
                raise BrokerUnavailableError(
                    f"table {self.topic} could not be read within {timeout:g} s{why}"
                )

    def stop(self) -> None:
        """End reading; what was read stays readable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)

    # -- the reading thread ------------------------------------------------------------------------

    def _read(self, settings: dict[str, Any]) -> None:
        client = Consumer(
            {
                **settings,
                "group.id": f"relance.table.{self.topic}",  # the client wants one; nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                "topic.metadata.refresh.interval.ms": 5000,
            },
            logger=QuietLog(),
        )
        client.assign([ClientPartition(self.topic, 0, OFFSET_BEGINNING)])
        try:
            while not self._stop.is_set():
                message = client.poll(0.1)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    self._take(message.key(), message.value(), int(message.offset() or 0) + 1)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._end(int(message.offset() or 0))
                elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # no group is joined
                    self._problem = with_right(error.str(), error.code(), "read", topic=self.topic)
                    _log.debug("%s: %s", self.topic, error.str())
        except KafkaException as problem:
            _log.error("table %s is read no longer: %s", self.topic, error_text(problem))
        finally:
            client.close()

    def _take(self, key: bytes | None, raw: bytes | None, position: int) -> None:
        name = (key or b"").decode("utf-8", "replace")
        value = None
        if raw is not None:
            try:
                value = msgspec.json.decode(raw, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                shown = one_line(name)
                _log.warning("table %s, key %s is not a JSON object, left out: %s", self.topic, shown, error)
        with self._changed:
            self._check_order(position)
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value
            self._moved(position)

    def _end(self, position: int) -> None:
        with self._changed:
            self._check_order(position + 1)
            self._caught_up = True
            self._moved(position)

    def _check_order(self, position: int) -> None:
        if position <= self._position:
            # Offsets only start over when the topic was made again; what we knew is gone with the old one.
            _log.warning("table %s was made again", self.topic)
            self._values.clear()

    def _moved(self, position: int) -> None:
        self._position = position
        self._changed.notify_all()
        waiting = []
        for waiter in self._waiters:
            offset, loop, future = waiter
            if future.done() or loop.is_closed():
                continue
            if position > offset:
                loop.call_soon_threadsafe(_wake, future)
            else:
                waiting.append(waiter)
        self._waiters = waiting


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
