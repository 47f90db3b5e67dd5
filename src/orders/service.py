"""The orders application: what is consumed, what is sent, and what the group knows of itself.

Promise: an order is answered for only when Kafka has acknowledged it, and "Sent to DLT" is said only
once the dead letter is. Everything about Kafka is relance's; this module has no HTTP in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import msgspec

import relance
from orders.model import (
    DEFAULT_STATUS,
    Order,
    SimulatedTransientError,
    Submission,
    ValidationError,
    WrongShapeError,
)
from orders.settings import Settings
from orders.state import STATE_TOPIC, Counters, SharedCounters, SimulationFlag
from relance import App, DeadLetter, Record, SendError, Sent, Stats, TopicPartition

log = logging.getLogger("orders.service")
consumer_log = logging.getLogger("orders.consumer")

STAMP_HEADER: Final = "orders-state-offset"
SEND_TIMEOUT: Final = 5.0
"""Seconds after which a write that nobody acknowledged is given up."""
ACK_TIMEOUT: Final = SEND_TIMEOUT + 3.0
"""Seconds to wait for a write's fate: relance takes a moment longer to tell whether it ever left."""
START_TIMEOUT: Final = 60.0
"""Seconds to wait for a broker at the start."""
LAST_WORD: Final = 1.0
"""Seconds to wait, at the end, for the acknowledgement of the last counters."""
ASK_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer about the dead-letter topic."""
BATCH_IN_FLIGHT: Final = 500
FLAG_ACK_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of a batch of made-up orders."""

    batch_id: str
    accepted: int
    partitions: dict[int, int]
    failures: list[SendError | TimeoutError]


class OrdersService:
    """One instance of the service: the consumer, and what the API calls."""

    def __init__(self, settings: Settings, app: App | None = None) -> None:
        self.settings = settings
        self.app = app or App(settings.group_id, settings=_relance_settings(settings))
        table = self.app.table(STATE_TOPIC)
        self.flag = SimulationFlag(table, settings.group_id, settings.instance)
        self.counters = SharedCounters(
            table,
            group=settings.group_id,
            instance=settings.instance,
            role=settings.role,
            flag=self.flag,
            counted=self.counted,
            partitions=self.partitions,
        )
        self.failure: Exception | None = None
        """Why the consumer could not start or had to end; None while all is well."""
        self._api_dead_letters = 0
        self._connected = False
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._register()

    def _register(self) -> None:
        settings = self.settings
        consumes = self.app.consumer(
            settings.topic,
            retry=settings.retry_policy(),
            retry_topic=settings.retry_topic,
            dead_letter_topic=settings.dlt_topic,
            dead_letter_pointer=True,
            ordering="key",
            concurrency=16,
            max_in_memory_wait=0.0,  # every retry goes through the retry topic, as the course draws it
            start=settings.start,
        )
        consumes(self.place)
        self.app.on_revoked(self._say_goodbye)

    # -- consuming ---------------------------------------------------------------------------------

    async def place(self, order: Order, record: Record) -> None:
        """Handle one order. Raises ValidationError (never retried) and SimulatedTransientError (retried)."""
        try:
            order.check()
        except WrongShapeError as error:
            raise ValidationError(str(error)) from None
        if await self.flag.enabled_at(_stamp_of(record)):
            raise SimulatedTransientError(f"{order.order_id}: transient errors are being simulated")
        consumer_log.info(
            "Order handled: %s amount=%s P%d:O%d attempt=%d",
            order.order_id,
            order.amount,
            record.partition,
            record.offset,
            record.attempt,
        )

    # -- running -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether Kafka was reached and the shared state read, so that orders can be taken."""
        return self._connected

    def start(self) -> asyncio.Task[None]:
        """Connect and consume in the background; the HTTP side answers (and says DOWN) meanwhile."""
        self._task = asyncio.create_task(self._run(), name="orders-service")
        return self._task

    async def stop(self) -> None:
        """Drain what runs, commit, leave the group; cuts short a start that still waits for a broker."""
        log.info("Stopping: taking no more records, finishing and committing what runs, leaving the group")
        self._stop.set()
        if self._task is None:
            return
        if not self._connected:
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with self.app.running():
                self.counters.restore()
                self._connected = True
                log.info(
                    "Instance %s (%s) is in group %s on %s",
                    self.settings.instance,
                    self.settings.role,
                    self.settings.group_id,
                    self.settings.bootstrap_servers,
                )
                publishing = asyncio.create_task(self.counters.keep_publishing())
                try:
                    await self._stop.wait()
                finally:
                    publishing.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await publishing
                    await self.counters.publish(self.counters.own(stopped=True))
        except Exception as error:  # noqa: BLE001  whatever ended it: said in one line, and the exit status
            self.failure = error
            log.critical("The service ends: %s: %s", type(error).__name__, error)
        finally:
            self._connected = False

    def _say_goodbye(self, _: list[TopicPartition]) -> None:
        """Publish the counters once more when the drain of a stop is over, for what it still counted."""
        if self._stop.is_set():
            try:
                self.counters.put(self.counters.own(stopped=True)).result(LAST_WORD)
            except (SendError, TimeoutError) as error:
                log.warning("The last counters could not be published: %s", error)

    # -- sending -----------------------------------------------------------------------------------

    async def accept(self, submission: Submission) -> Sent:
        """Write a good order and wait for its acknowledgement. Raises SendError, TimeoutError."""
        sent = await self._send(submission.value, submission.key)
        log.info("Order accepted: %s P%d:O%d", submission.order.order_id, sent.partition, sent.offset)
        return sent

    async def reject(self, body: bytes, submission: Submission, error: ValidationError) -> Sent:
        """Write a refused order to the dead-letter topic and wait. Raises SendError, TimeoutError."""
        async with asyncio.timeout(ACK_TIMEOUT):
            sent = await self.app.dead_letter(
                self.settings.dlt_topic,
                body,
                key=submission.key,
                error=error,
                source_topic=self.settings.topic,
            )
        self._api_dead_letters += 1
        return sent

    async def accept_batch(self, count: int) -> Batch:
        """Write `count` made-up good orders, a bounded number of them in flight.

        A SendError or TimeoutError ends it early and is told in `failures`; anything else is raised.
        """
        batch_id = uuid.uuid4().hex[:8]
        partitions: Counter[int] = Counter()
        failures: list[SendError | TimeoutError] = []
        for first in range(0, count, BATCH_IN_FLIGHT):
            numbers = range(first, min(first + BATCH_IN_FLIGHT, count))
            results = await asyncio.gather(
                *(self._send_made_up(f"BATCH-{batch_id}-{number + 1}", number) for number in numbers),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, SendError | TimeoutError):
                    failures.append(result)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    partitions[result.partition] += 1
            if failures:
                break  # the rest would wait just as long for the same broker
        accepted = partitions.total()
        log.info("Batch %s: %d of %d orders accepted", batch_id, accepted, count)
        return Batch(batch_id, accepted, dict(sorted(partitions.items())), failures)

    async def _send_made_up(self, order_id: str, number: int) -> Sent:
        order = Order(order_id, 100 + number % 900, DEFAULT_STATUS)
        return await self._send(msgspec.json.encode(order), order_id.encode())

    async def _send(self, value: bytes, key: bytes | None) -> Sent:
        stamp = self.flag.stamp()
        headers = [] if stamp is None else [(STAMP_HEADER, str(stamp).encode())]
        async with asyncio.timeout(ACK_TIMEOUT):
            return await self.app.send(self.settings.topic, value, key=key, headers=headers)

    # -- asking ------------------------------------------------------------------------------------

    async def set_flag(self, enabled: bool) -> bool:
        """Switch the simulation for the whole group. Raises SendError, TimeoutError.

        Returns whether every API of the group has read it: from then on their orders carry it. An API
        knows its own write at once; a consumer waits for the APIs' word, which they publish.
        """
        async with asyncio.timeout(ACK_TIMEOUT):
            write = await self.flag.set(enabled)
        log.info("Simulated transient errors are %s", "on" if enabled else "off")
        try:
            async with asyncio.timeout(FLAG_ACK_TIMEOUT):
                while not self._apis_have_seen(write):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    def _apis_have_seen(self, write: str) -> bool:
        if self.flag.write != write:
            return True  # written again meanwhile: that call waits for its own
        now = self.counters.now()
        return all(
            share.flag_seen == write
            for share in self.counters.shares()
            if share.role == "api" and share.is_up(now)
        )

    async def dead_letter_count(self) -> int:
        """Records in the dead-letter topic, counted there. Raises RelanceError, TimeoutError."""
        async with asyncio.timeout(ASK_TIMEOUT):
            return await asyncio.to_thread(self.app.dead_letters(self.settings.dlt_topic).count)

    async def latest_dead_letters(self, count: int) -> list[DeadLetter]:
        """The newest records of the dead-letter topic. Raises RelanceError, TimeoutError."""
        async with asyncio.timeout(ASK_TIMEOUT):
            return await asyncio.to_thread(self.app.dead_letters(self.settings.dlt_topic).latest, count)

    def partitions(self) -> list[int]:
        """The partitions of the orders topic that this instance owns now."""
        return [at.partition for at in self.app.assignment() if at.topic == self.settings.topic]

    def stats(self) -> Stats:
        """This process's own numbers, since it started."""
        return self.app.stats()

    def health(self) -> tuple[bool, list[str], dict[str, Any]]:
        """Whether this instance is up, why not, and relance's details once it runs."""
        if self.failure is not None:
            return False, [str(self.failure)], {}
        if not self._connected:
            servers = self.settings.bootstrap_servers
            return False, ["stopping" if self._stop.is_set() else f"not connected to {servers} yet"], {}
        health = self.app.health()
        return health.status == "UP", list(health.reasons), dict(health.details)

    def missing_topics(self) -> list[str]:
        """The topics that are gone, as far as relance has noticed: it looks every two seconds."""
        return list(self.app.health().details.get("missing_topics", ()))

    def counted(self) -> Counters:
        """This process's counters since it started; a dead letter of the API is one of the service."""
        stats = self.app.stats()
        return Counters(
            success=stats.handled,
            errors=stats.failed,
            retries=stats.retried,
            dlt=stats.dead_lettered + self._api_dead_letters,
        )


def _relance_settings(settings: Settings) -> relance.Settings:
    return relance.Settings.load(
        group=settings.group_id,
        bootstrap_servers=settings.bootstrap_servers,
        servers_from=settings.servers_from,
        # Teaching settings: partitions of a stopped or killed member move in seconds.
        session_timeout=10.0,
        heartbeat_interval=0.5,
        send_timeout=SEND_TIMEOUT,
        start_timeout=START_TIMEOUT,
        # No handler of ours takes longer than the flag's wait.
        drain_timeout=4.0,
    )


def _stamp_of(record: Record) -> int | None:
    """The stamp of an order sent by the API; None for one that came around it."""
    for name, value in reversed(record.headers):
        if name == STAMP_HEADER and value is not None and value.isdigit() and len(value) <= 19:
            return int(value)
    return None
