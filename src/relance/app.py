"""The public front: an application is a consumer group with handlers, and what they need beside them.

Promises: nothing starts before all topics are there and all tables are read; nothing is committed before what
it depends on is durable; a stop drains, commits and leaves within one shared deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from relance.consumer import Consumer, ConsumerSpec, Where
from relance.dead_letters.envelope import build, metadata_headers
from relance.dead_letters.envelope import encode as encode_letter
from relance.decoding import decoder_for, encode, handler_shape
from relance.delivery import Delivery
from relance.engine.engine import Ordering
from relance.engine.outcome import Paths
from relance.errors import (
    BrokerUnavailableError,
    RelanceError,
    SettingsError,
    TopicMissingError,
)
from relance.hooks import Hook, Hooks
from relance.kafka.admin import Admin
from relance.kafka.config import common_config
from relance.kafka.letters import DeadLetters
from relance.kafka.producer import KafkaProducer
from relance.kafka.table import Table
from relance.kafka.watch import TopicWatch
from relance.policies.retry import RetryPolicy
from relance.record import TopicPartition
from relance.settings import Settings, check_setting
from relance.signals import caught_signals
from relance.stats import Health, Stats
from relance.workers.inline import InlineWorker
from relance.workers.loop import LoopWorker

__all__ = ["App"]

_log = logging.getLogger("relance")

H = TypeVar("H", bound=Callable[..., Any])

HeaderItems = Sequence[tuple[str, bytes | None]]

_STUCK = 5.0  # seconds without a turn of a polling thread
_AWAY = 10.0  # seconds without an answer of any broker
_HANDOFF_TIMEOUT = 15.0  # seconds until a hand-off is tried again; it is never given up
_ABANDONED = 70  # exit status: a handler was still running at the deadline (EX_SOFTWARE)


class App:
    """Consumers of one group.

    `settings` wins over the environment (`RELANCE_...`), which is read when none is given; `client` are raw
    settings of librdkafka, for this Python code only. Raises SettingsError.
    """

    def __init__(
        self,
        group: str,
        *,
        bootstrap_servers: str | None = None,
        settings: Settings | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        given: dict[str, Any] = {"group": group}
        if bootstrap_servers is not None:
            given["bootstrap_servers"] = bootstrap_servers
        if client:
            given["client"] = dict(client)
        self.settings = dataclasses.replace(settings, **given) if settings else Settings.load(**given)
        self._specs: list[ConsumerSpec] = []
        self._consumers: list[Consumer] = []
        self._tables: dict[str, Table] = {}
        self._hooks = Hooks()
        self._handoff_producer: KafkaProducer | None = None
        self._producer: KafkaProducer | None = None
        self._watch: TopicWatch | None = None
        self._admin: Admin | None = None
        self._failure: Exception | None = None
        self._stop_lock = threading.Lock()
        self._stopper: threading.Thread | None = None
        self._exits: threading.Event | None = None  # in `run` only: set when the workers have ended

    # -- what it is made of ------------------------------------------------------------------------

    def consumer(
        self,
        *topics: str,
        retry: RetryPolicy | None = None,
        retry_topic: str | None = None,
        dead_letter_topic: str | None = None,
        ordering: Ordering = "partition",
        concurrency: int = 1,
        max_in_memory_wait: float = 10.0,
        strict_order: bool = False,
        assignor: str | None = None,
        start: Where | None = None,
        on_out_of_range: Where | None = None,
    ) -> Callable[[H], H]:
        """Consume `topics` with the decorated function, `handler(value)` or `handler(value, record)`.

        The function stays as it is, so a unit test can call it. It succeeds by returning and fails by
        raising; what then happens is `retry`'s to say (no policy: no retry).

        retry_topic: where waits longer than `max_in_memory_wait` seconds go (0: all); records that wait
          there lose their place in the order, so `strict_order=True` forbids it.
        dead_letter_topic: where records go that are given up. Without one the consumer stops instead.
        ordering: what is handled one after the other: a "partition", a "key", or nothing ("none").
        concurrency: how many records an async handler may have in flight at once.
        start: where to begin without a commit: "earliest", "latest" or "fail".
        on_out_of_range: the same for a commit whose offset is gone from the log.

        Raises SettingsError for what cannot be meant.
        """
        paths = Paths(retry_topic, dead_letter_topic, max_in_memory_wait)
        chosen = self.settings.assignor if assignor is None else check_setting("assignor", assignor)
        _check(topics, paths, ordering, concurrency, strict_order)

        def register(handler: H) -> H:
            shape = handler_shape(handler)
            decoder_for(shape.annotation)  # refuses now what could never be decoded
            if not shape.is_async and concurrency != 1:
                raise SettingsError(
                    "concurrency",
                    f"{shape.name} is a sync function and runs one record at a time; make it async, or 1",
                )
            self._specs.append(
                ConsumerSpec(
                    handler=handler,
                    shape=shape,
                    topics=topics,
                    retry=retry or RetryPolicy(max_attempts=1),
                    paths=paths,
                    ordering=ordering,
                    concurrency=concurrency,
                    assignor=chosen,
                    start=start or self.settings.start,
                    on_out_of_range=on_out_of_range or self.settings.on_out_of_range,
                )
            )
            if retry_topic is not None and ordering != "none":
                _log.info(
                    "%s: a record that waits in %s loses its place in the order of its %s;"
                    " strict_order=True forbids it",
                    shape.name,
                    retry_topic,
                    ordering,
                )
            return handler

        return register

    def on_assigned(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` after partitions came (source topics only)."""
        self._hooks.on_assigned.append(hook)
        return hook

    def on_revoked(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` before partitions go, when what ran is drained.

        It holds the whole rebalance up, so it is waited for only until the drain's deadline.
        """
        self._hooks.on_revoked.append(hook)
        return hook

    def on_lost(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` when partitions are gone already, without a chance to commit."""
        self._hooks.on_lost.append(hook)
        return hook

    def table(self, topic: str) -> Table:
        """The compacted topic `topic` as a dictionary; made with one partition if it is missing."""
        if self._consumers:
            raise RelanceError(f"table {topic}: ask for it before the application runs")
        return self._tables.setdefault(topic, Table(topic))

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or a fatal error; the program's last call, from its main thread.

        Exits (SystemExit) with 1 and one line in the log after a failure, with 2 for a wrong setting.
        """
        try:
            self._exits = threading.Event()
            with caught_signals(lambda number: self.stop()):
                self._start()
                self._work_here()
                self._exits.set()
                self._finish()
        except SettingsError as error:
            _log.critical("%s", error)
            sys.exit(2)
        except RelanceError as error:
            _log.critical("%s", error)
            sys.exit(1)
        if self._failure is not None:
            _log.critical("stopped by %s: %s", type(self._failure).__name__, self._failure)
            sys.exit(1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run inside a loop of somebody else's, as in a web server's lifespan; leaving drains and stops.

        Async handlers run on this loop, sync ones on a thread each. After a fatal error `health()` is DOWN
        with the reason, and leaving raises it. Raises what `_start` finds: BrokerUnavailableError,
        TopicMissingError, SettingsError.
        """
        await asyncio.to_thread(self._start)
        tasks = [asyncio.ensure_future(self._worker(c)) for c in self._consumers]
        for task in tasks:
            task.add_done_callback(self._worker_ended)
        try:
            yield
        finally:
            self.stop()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._finish)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to stop, once; returns at once. Any thread may call it."""
        with self._stop_lock:
            if self._stopper is None:
                self._stopper = threading.Thread(target=self._stop, name="relance-stop", daemon=True)
                self._stopper.start()

    # -- beside the handlers -----------------------------------------------------------------------

    def send(
        self, topic: str, value: Any, *, key: str | bytes | None = None, headers: HeaderItems = ()
    ) -> Delivery:
        """Write a record; the Delivery ends in `Sent(topic, partition, offset)` or raises SendError.

        `value`: bytes, str, None, or what msgspec or pydantic can write as JSON. Raises SendError at once
        for what can't be sent at all.
        """
        producer = self._producer
        if producer is None:
            raise RelanceError("the application is not running: nothing can be sent")
        delivery = Delivery()
        raw_key = key.encode() if isinstance(key, str) else key
        producer.send(topic, encode(value), key=raw_key, headers=headers, answer=delivery.answer)
        return delivery

    def dead_letter(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None,
        error: Exception,
        source_topic: str,
        headers: HeaderItems = (),
    ) -> Delivery:
        """Write a dead letter for what never became a record (so without partition and offset)."""
        raw_key = key.encode() if isinstance(key, str) else key
        letter = build(
            topic=source_topic,
            partition=None,
            offset=None,
            key=raw_key,
            value=encode(value),
            headers=headers,
            group=self.settings.group,
            error=error,
            attempts=0,
            now=datetime.now(UTC),
        )
        return self.send(topic, encode_letter(letter), key=raw_key, headers=metadata_headers(letter))

    def dead_letters(self, topic: str) -> DeadLetters:
        """Look into a dead-letter topic; its methods block, so call them from a thread."""
        return DeadLetters(topic, self.settings.bootstrap_servers, common_config(self.settings))

    def assignment(self) -> list[TopicPartition]:
        """Partitions of the source topics that this process owns now, sorted."""
        return sorted(tp for c in self._consumers for tp in c.runtime.owned() if tp.topic in c.spec.topics)

    def stats(self) -> Stats:
        """What this process has done since it started."""
        looks = [c.runtime.look() for c in self._consumers]
        counters = [c.runtime.counters for c in self._consumers]
        last = max((c.last_rebalance for c in counters if c.last_rebalance), default=None)
        return Stats(
            handled=sum(c.handled for c in counters),
            failed=sum(c.failed for c in counters),
            retried=sum(c.retried for c in counters),
            dead_lettered=sum(c.dead_lettered for c in counters),
            rebalances=sum(c.rebalances for c in counters),
            last_rebalance=None if last is None else datetime.fromtimestamp(last, UTC),
            in_flight=sum(look.in_flight for look in looks),
            waiting=sum(look.waiting for look in looks),
            queued=sum(look.queued for look in looks),
        )

    def health(self) -> Health:
        """UP, or DOWN for: a polling thread that is stuck, no broker, a stopped partition, a failure.

        Waiting retries, backpressure, no partitions are details of an UP (decision 14).
        """
        reasons: list[str] = []
        details: dict[str, Any] = {}
        if self._failure is not None:
            reasons.append(f"stopped by {type(self._failure).__name__}: {self._failure}")
        elif not self._consumers:
            reasons.append("not running")
        for consumer in self._consumers:
            look = consumer.runtime.look()
            if self._stopper is None:
                reasons.extend(consumer.stuck(_STUCK))
            reasons.extend(look.stopped.values())
            if look.map_full:
                details.setdefault("slowed", []).extend(look.map_full)
        if self._watch is not None:
            away = self._watch.away()
            if away >= _AWAY:
                reasons.append(
                    f"no broker has answered for {away:.0f} s at {self.settings.bootstrap_servers}"
                )
            missing = self._watch.missing()
            if missing:
                details["missing_topics"] = missing
        details["partitions"] = [str(tp) for tp in self.assignment()]
        return Health("DOWN" if reasons else "UP", reasons, details)

    # -- inside ------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._consumers or self._stopper is not None:
            raise RelanceError("an App runs once; make another")
        settings = self.settings
        common = common_config(settings)
        admin = self._admin = Admin(settings.bootstrap_servers, common)
        self._wait_for_broker(admin)
        for topic in self._tables:
            admin.ensure_topic(topic, 1, {"cleanup.policy": "compact", "segment.ms": "600000"})
        for spec in self._specs:
            for topic in spec.all_topics:
                self._need(admin, topic)
        self._producer = KafkaProducer(common, name="producer", timeout=settings.send_timeout)
        try:
            for table in self._tables.values():
                table.start(common, self._producer, settings.start_timeout)
            self._handoff_producer = KafkaProducer(common, name="handoff", timeout=_HANDOFF_TIMEOUT)
            topics = [topic for spec in self._specs for topic in spec.all_topics]
            self._watch = TopicWatch(admin, topics, self._topic_seen)
            consumers = [
                Consumer(
                    spec,
                    settings,
                    hooks=self._hooks,
                    producer=self._handoff_producer,
                    watch=self._watch,
                    on_failure=self._fail,
                )
                for spec in self._specs
            ]
        except BaseException:
            self._shut_down()
            raise
        self._consumers = consumers
        self._watch.start()
        for consumer in consumers:
            consumer.start()

    def _wait_for_broker(self, admin: Admin) -> None:
        deadline = time.monotonic() + self.settings.start_timeout
        told = False
        while True:
            left = deadline - time.monotonic()
            try:
                admin.ping(min(2.0, max(0.1, left)))
                return
            except BrokerUnavailableError as error:
                if time.monotonic() >= deadline or self._stopper is not None:
                    raise BrokerUnavailableError(
                        f"gave up after {self.settings.start_timeout:g} s: {error}"
                    ) from error
                if not told:
                    told = True
                    _log.error(
                        "no Kafka broker answers at %s; trying for %.0f s more",
                        self.settings.bootstrap_servers,
                        left,
                    )

    def _need(self, admin: Admin, topic: str) -> None:
        try:
            admin.topic_id(topic)
        except TopicMissingError:
            if not self.settings.create_topics:
                raise
            admin.ensure_topic(topic, -1)
            _log.warning("topic %s was missing; made it with the broker's default partitions", topic)

    def _topic_seen(self, topic: str, topic_id: str) -> None:
        for consumer in self._consumers:
            consumer.topic_seen(topic, topic_id)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            _log.critical("stopping: %s: %s", type(error).__name__, error)
        self.stop()

    def _work_here(self) -> None:
        """Run the workers on this, the main, thread: a sync one directly, several on a loop."""
        if len(self._consumers) == 1 and isinstance(self._consumers[0].worker, InlineWorker):
            self._consumers[0].worker.run()
        else:
            asyncio.run(self._work_on_loop())

    async def _work_on_loop(self) -> None:
        await asyncio.gather(*(self._worker(consumer) for consumer in self._consumers))

    async def _worker(self, consumer: Consumer) -> None:
        worker = consumer.worker
        if isinstance(worker, LoopWorker):
            await worker.run()
            return
        # A thread of its own, and a daemon: a handler that hangs must not keep the process from ending.
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            try:
                worker.run()
                result: BaseException | None = None
            except BaseException as error:  # noqa: BLE001  carried to whoever waits for the worker
                result = error
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever waited
                loop.call_soon_threadsafe(_settle, ended, result)

        threading.Thread(target=work, name="relance-worker", daemon=True).start()
        await ended

    def _worker_ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _stop(self) -> None:
        self._shut_down()
        if self._exits is not None and not self._exits.wait(1.0):
            # A thread cannot be killed and a coroutine need not end: what it does is not committed.
            _log.error("a handler is still running after the drain deadline: exiting without it")
            logging.shutdown()
            os._exit(_ABANDONED)

    def _shut_down(self) -> None:
        deadline = time.monotonic() + self.settings.drain_timeout
        if self._watch is not None:
            self._watch.stop()
        for consumer in self._consumers:
            if not consumer.stop(deadline):
                _log.warning("a client of %s did not close in time", ", ".join(consumer.spec.topics))
        for producer in (self._handoff_producer, self._producer):
            if producer is not None:
                left = producer.close(max(0.5, deadline - time.monotonic()))
                if left:
                    _log.warning("%d records were still unacknowledged when the producer was closed", left)
        for table in self._tables.values():
            table.stop()
        self._hooks.close()
        _log.info("stopped")

    def _finish(self) -> None:
        """Wait for the stop."""
        self.stop()
        assert self._stopper is not None
        self._stopper.join()


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _check(
    topics: tuple[str, ...],
    paths: Paths,
    ordering: str,
    concurrency: int,
    strict_order: bool,
) -> None:
    if not topics:
        raise SettingsError("topics", "name at least one topic to consume")
    if ordering not in ("partition", "key", "none"):
        raise SettingsError("ordering", f"{ordering!r} is none of partition, key, none")
    if type(concurrency) is not int or not 1 <= concurrency <= 100_000:
        raise SettingsError("concurrency", f"{concurrency!r} is not a number from 1 to 100000")
    if not 0 <= paths.max_in_memory_wait <= 3600:
        raise SettingsError("max_in_memory_wait", f"{paths.max_in_memory_wait!r} is not 0 to 3600 seconds")
    if strict_order and paths.retry_topic is not None:
        raise SettingsError(
            "strict_order", f"forbids deferral, so leave out retry_topic={paths.retry_topic!r}"
        )
    for key, topic in (("retry_topic", paths.retry_topic), ("dead_letter_topic", paths.dead_letter_topic)):
        if topic in topics:
            raise SettingsError(
                key, f"{topic!r} is a source topic too: its records would come round for ever"
            )
    if paths.retry_topic is not None and paths.retry_topic == paths.dead_letter_topic:
        raise SettingsError("dead_letter_topic", f"{paths.retry_topic!r} is the retry topic too")
