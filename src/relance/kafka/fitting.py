"""Writing in batches that their topics take, over a client for each size of them.

Promise: a record that a topic takes is written, whatever its neighbours in the batch take. A batch that is
refused for its size is cut into its records, and each is written again by itself. The topic's records that
come meanwhile wait for that, as the first ones wait until it is known what the topic takes; so a key's
records stay in their order. With `ordered`, a record is refused instead of written again if a later one of
its key was written in between.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from relance.delivery import Sent
from relance.errors import SendError
from relance.kafka.limits import ALONE, TOO_LARGE, TopicLimits, content_size, too_large
from relance.kafka.producer import Answer, Headers, KafkaProducer

__all__ = ["FittingProducer"]

_MOST_HELD = 10_000  # records of a topic that wait here
_ASKING = 1.0  # seconds for which it is asked what a topic takes, before the first record is written


class _Write(NamedTuple):  # made for each record, and thrice as fast as a dataclass
    """One record, until it is answered."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp_ms: int | None
    answer: Answer

    def __repr__(self) -> str:  # neither key nor value
        return f"<a record for {self.topic}>"


@dataclass(eq=False, slots=True)
class _Route:
    """Where the records of one topic go. It changes only while none is out."""

    topic: str
    batch: int
    asking_until: float | None
    """While it is asked what the topic takes; `held` waits for that."""
    out: int = 0
    refused: list[_Write] = field(default_factory=list)
    """With a batch; written again once none is out."""
    held: deque[_Write] = field(default_factory=deque)
    """Sent since the first of these was refused, or while it is asked."""
    passed: set[bytes] = field(default_factory=set)
    """Keys of which a record was written since then."""


class FittingProducer:
    """Clients that write. `ordered`: whether the order of a key's records must be kept (see above).

    The other arguments are those of KafkaProducer.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        name: str,
        timeout: float,
        limits: TopicLimits,
        ordered: bool = True,
        largest: int | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        connect: Callable[..., KafkaProducer] = KafkaProducer,
    ) -> None:
        self._connect = partial(connect, settings, timeout=timeout, largest=largest, on_failure=on_failure)
        self._name = name
        self._limits = limits
        self._ordered = ordered
        self._lock = threading.Lock()
        self._routes: dict[str, _Route] = {}
        self._asking: list[_Route] = []
        self._closed = False
        first = self._connect(name=name)
        self._clients = {limits.ordinary: first}
        self.on_tick = first.on_tick
        """Called between polls, on the thread of the client with ordinary batches."""
        self.on_tick.append(self._look_for_answers)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        answer: Answer,
        timestamp_ms: int | None = None,
    ) -> None:
        """Write one record; `answer` is called when its fate is known. Raises as KafkaProducer.send does.

        A record that is held, because its topic has just refused a batch, is given to a client only when all
        that is out for the topic is answered. So its answer may take up to twice the timeout, and a second.
        """
        write = _Write(topic, value, key, headers, timestamp_ms, answer)
        with self._lock:
            route = self._routes.get(topic) or self._new_route(topic)
            if route.refused or route.asking_until is not None:
                self._clients[self._limits.ordinary].check(topic, value, key, headers)
                if self._closed:
                    raise SendError(f"{topic}: the producer is closed", maybe_written=False)
                if len(route.held) >= _MOST_HELD:
                    text = (
                        f"{topic}: {_MOST_HELD} records wait until it is known how much the topic takes at"
                        " once: send again later"
                    )
                    raise SendError(text, maybe_written=False, code=KafkaError._QUEUE_FULL)
                route.held.append(write)
                return
            if route.out == 0:
                route.batch = self._limits.batch(topic)
            client = self._client(route.batch)
            route.out += 1
        try:
            self._pass_on(client, route, write)
        except BaseException:
            self._ended(route, write, None, None)
            raise

    def flush(self, timeout: float) -> int:
        """Wait until all that was sent is answered, at most `timeout` seconds; how many are left."""
        deadline = time.monotonic() + timeout
        self._look_for_answers(final=True)
        while True:
            for client in self._open():
                client.flush(deadline - time.monotonic())
            left = sum(client.flush(0.0) for client in self._open())  # what one has refused is another's now
            if left == 0 or time.monotonic() >= deadline:
                return left

    def close(self, timeout: float) -> int:
        """Wait for what is out, at most `timeout` seconds; how many records were given up (and answered)."""
        left = self.flush(timeout)
        with self._lock:
            self._closed = True
        self._look_for_answers(final=True)
        for client in self._open():
            client.close(0.0)
        return left

    def throttled(self) -> dict[str, str]:
        """What brokers hold back, by client."""
        throttles = [client.throttle for client in self._open()]
        return {throttle.name: text for throttle in throttles if (text := throttle.told())}

    # -- inside ------------------------------------------------------------------------------------

    def _new_route(self, topic: str) -> _Route:
        route = self._routes[topic] = _Route(topic, self._limits.batch(topic), None)
        if not self._limits.said(topic):
            route.asking_until = time.monotonic() + _ASKING
            self._asking.append(route)
            self._limits.want(topic)
        return route

    def _look_for_answers(self, *, final: bool = False) -> None:
        """Write what waits for topics whose limit is known now, or has been asked for long enough.

        `final`: what waits for any topic.
        """
        if not self._asking:
            return
        now = time.monotonic()
        failed: list[tuple[_Write, SendError]] = []
        with self._lock:
            for route in list(self._asking):
                assert route.asking_until is not None
                if final or now >= route.asking_until or self._limits.said(route.topic):
                    self._asking.remove(route)
                    route.asking_until = None
                    failed += self._pass_all(route, self._limits.batch(route.topic), ())
        for write, problem in failed:
            write.answer(problem, None)

    def _open(self) -> list[KafkaProducer]:
        with self._lock:
            return list(self._clients.values())

    def _client(self, batch: int) -> KafkaProducer:
        found = self._clients.get(batch)
        if found is None:
            if self._closed:
                raise SendError("the producer is closed", maybe_written=False)
            found = self._clients[batch] = self._connect(name=f"{self._name}-{batch}", batch=batch)
        return found

    def _pass_on(self, client: KafkaProducer, route: _Route, write: _Write) -> None:
        topic, value, key, headers, timestamp_ms, _ = write
        answer = partial(self._answered, route, write)
        client.send(topic, value, key=key, headers=headers, answer=answer, timestamp_ms=timestamp_ms)

    def _answered(self, route: _Route, write: _Write, error: SendError | None, sent: Sent | None) -> None:
        if self._ended(route, write, error, sent):
            return
        if error is not None and error.code in TOO_LARGE:
            error = too_large(write.topic, _size(write), error.code)
        write.answer(error, sent)

    def _ended(self, route: _Route, write: _Write, error: SendError | None, sent: Sent | None) -> bool:
        """It is out no more. True: it is written again."""
        answers: list[tuple[_Write, SendError]] = []
        with self._lock:
            route.out -= 1
            again = error is not None and error.code in TOO_LARGE and not _was_alone(route, write)
            if again:
                route.refused.append(write)
            elif route.refused and sent is not None and write.key is not None:
                route.passed.add(write.key)
            if route.refused and route.out == 0:
                self._limits.refused(write.topic)
                answers = self._cut(route)
        for other, problem in answers:
            other.answer(problem, None)
        return again

    def _cut(self, route: _Route) -> list[tuple[_Write, SendError]]:
        """Locked: write again what was refused, and what waited behind it. Those that can't be, and why."""
        passed: set[bytes | None] = {*route.passed} if self._ordered else set()
        again = [w for w in route.refused if w.key not in passed]
        late = [(w, _overtaken(w)) for w in route.refused if w.key in passed]
        route.refused.clear()
        route.passed.clear()
        return late + self._pass_all(route, ALONE, again)

    def _pass_all(
        self, route: _Route, batch: int, first: Collection[_Write]
    ) -> list[tuple[_Write, SendError]]:
        """Locked: these, and what waited behind them. Those that can't be written, and why."""
        failed: list[tuple[_Write, SendError]] = []
        writes = [*first, *route.held]
        route.held.clear()
        route.batch = batch
        for write in writes:
            route.out += 1
            try:
                self._pass_on(self._client(batch), route, write)
            except SendError as error:
                route.out -= 1
                failed.append((write, error))
        return failed


def _was_alone(route: _Route, write: _Write) -> bool:
    """Whether it was in a batch of its own: the size that was refused is its own."""
    return route.batch == ALONE or _size(write) > route.batch


def _size(write: _Write) -> int:
    return content_size(write.key, write.value, write.headers)


def _overtaken(write: _Write) -> SendError:
    return SendError(
        f"{write.topic}: refused with a batch that was larger than the topic takes (max.message.bytes); a"
        " later record of its key is written already: send it again if it may come after that one",
        maybe_written=False,
        code=KafkaError.MSG_SIZE_TOO_LARGE,
    )
