"""The console's one way to the cluster: off the event loop, shared by all viewers, kept for a second.

Promise: however many look, the cluster is asked each question at most once a second, by eight threads at
most; a broker that is away costs one viewer's wait, not everybody's; no thread keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from relance.console.params import Look
from relance.console.show import RecordView
from relance.errors import BrokerUnavailableError, RelanceError
from relance.kafka.admin import Admin, GroupInfo, GroupSummary, PartitionInfo, TopicInfo
from relance.kafka.browse import Browser, FetchedRecord, Page

__all__ = ["Asks", "NotInTimeError", "StoppingError", "TopicView"]

T = TypeVar("T")


class StoppingError(RelanceError):
    """The console is being stopped; nothing is asked any more."""

    def __str__(self) -> str:
        return "the console is being stopped"


class NotInTimeError(RelanceError):
    """Brokers answer, but what was asked for did not come in time."""


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic with its partitions and the settings that are its own."""

    name: str
    partitions: tuple[PartitionInfo, ...]
    configs: Mapping[str, str | None]

    @property
    def records(self) -> int:
        """Of all partitions, as far as offsets tell."""
        return sum(each.records for each in self.partitions)


class Asks:
    """Questions about one cluster, asked from an event loop. `timeout` and `keep` are seconds."""

    def __init__(
        self,
        bootstrap_servers: str,
        client: Mapping[str, Any] | None = None,
        *,
        timeout: float = 3.0,
        keep: float = 1.0,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = Admin(bootstrap_servers, client, timeout=timeout)
        self.browser = Browser(
            bootstrap_servers, client, admin=self.admin, timeout=timeout, max_bytes=4 * 1024 * 1024
        )
        self._keep = keep
        self._threads = _Threads(8)
        self._answers: dict[Hashable, asyncio.Future[Any]] = {}
        self._stopped = False
        self._away: tuple[float, BrokerUnavailableError] | None = None

    async def topics(self) -> list[TopicInfo]:
        """All topics with their counts."""
        return await self._kept("topics", self.admin.topics)

    async def topic(self, name: str) -> TopicView:
        """One topic in detail."""
        return await self._kept(("topic", name), lambda: self._topic(name))

    async def page(self, topic: str, look: Look) -> Page:
        """Some of a topic's records, newest first."""
        return await self._kept(
            ("page", topic, look),
            lambda: self.browser.page(
                topic,
                look.limit,
                partition=look.partition,
                before=dict(look.before) or None,
                match=look.matches if look.key else None,
            ),
        )

    async def view(self, topic: str, look: Look, limit: int) -> tuple[Page, list[RecordView]]:
        """The same, made readable: off the event loop too, and once for all who look at it."""
        page = await self.page(topic, look)
        return await self._kept(
            ("view", topic, look, limit),
            lambda: (page, [RecordView.of(record, limit) for record in page.records]),
        )

    async def record(self, topic: str, partition: int, offset: int) -> FetchedRecord | None:
        """The record at that place, or None: compaction, retention or a transaction marker has it."""
        page = await self.page(topic, Look(limit=1, partition=partition, before=((partition, offset + 1),)))
        if page.cut and not page.records:
            raise NotInTimeError(f"{topic}-{partition}@{offset} was not read in time: the broker is slow")
        return next((record for record in page.records if record.offset == offset), None)

    async def groups(self) -> list[tuple[GroupSummary, GroupInfo | None]]:
        """All groups; None beside one that went away between two questions."""
        return await self._kept("groups", self._groups)

    async def group(self, name: str) -> GroupInfo:
        """One group with members and lag."""
        return await self._kept(("group", name), lambda: self.admin.group(name))

    async def brokers(self) -> int:
        """How many brokers there are; raises BrokerUnavailableError where none answers."""
        return await self._kept("brokers", self.admin.ping)

    def _topic(self, name: str) -> TopicView:
        partitions = tuple(self.admin.partitions(name))
        return TopicView(name, partitions, self.admin.configs(name))

    def _groups(self) -> list[tuple[GroupSummary, GroupInfo | None]]:
        listed = self.admin.groups()
        found = self.admin.describe_groups([each.name for each in listed])
        return [(each, found.get(each.name)) for each in listed]

    async def _kept(self, question: Hashable, ask: Callable[[], T]) -> T:
        """The answer to a question that is under way or was answered a moment ago; else ask it."""
        if self._away is not None and time.monotonic() < self._away[0]:
            raise self._away[1].with_traceback(None)
        if self._stopped:
            raise StoppingError
        future = self._answers.get(question)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._answers[question] = loop.create_future()
            future.add_done_callback(lambda done: self._answered(question, done))
            self._threads.submit(_carried(ask, future, loop))
        # Shielded: a viewer who leaves must not cancel the answer for the others.
        return cast(T, await asyncio.shield(future))

    def stop(self) -> None:
        """Whoever waits for an answer is told that there will be none: the server is about to end."""
        self._stopped = True
        for future in self._answers.values():
            if not future.done():
                future.set_exception(StoppingError())

    def _answered(self, question: Hashable, done: asyncio.Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, BrokerUnavailableError):
            self._away = (time.monotonic() + self._keep, error)
        elif error is None:
            self._away = None
        done.get_loop().call_later(self._keep, self._answers.pop, question, None)


def _carried(
    ask: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
) -> Callable[[], None]:
    """Ask in a thread, and bring the answer home to the loop."""

    def settle(answer: Any, error: BaseException | None) -> None:
        if future.done():
            return  # the server stopped meanwhile
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    def work() -> None:
        answer, error = None, None
        try:
            answer = ask()
        except BaseException as raised:  # noqa: BLE001 - it goes to whoever waits for the answer
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, answer, error)

    return work


class _Threads:
    """A small pool of daemon threads: a call that hangs in the client must not hold up the exit.

    `concurrent.futures` joins its threads at the end of the process, whatever they wait for.
    """

    def __init__(self, most: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._most = most
        self._started = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done; called from the loop's thread alone."""
        if self._started < self._most:
            self._started += 1
            name = f"relance-console-{self._started}"
            threading.Thread(target=self._run, name=name, daemon=True).start()
        self._work.put(work)

    def _run(self) -> None:
        while True:
            self._work.get()()
