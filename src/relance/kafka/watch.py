"""Looks at the topics now and then; its promise: what is missing, back, made again or grown is said once.

A topic that is deleted while the consumers run is waited for, and one that was made again (it has another id,
KIP-516) is read anew instead of from an offset that meant something else. The same question tells whether
brokers answer at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable

from relance.errors import BrokerUnavailableError, RelanceError, TopicMissingError
from relance.kafka.admin import Admin, Identity, Watermarks
from relance.kafka.limits import TopicLimits
from relance.kafka.starts import Seen
from relance.record import TopicPartition

__all__ = ["TopicWatch"]

_log = logging.getLogger("relance.broker")


class TopicWatch:
    """A thread that asks every `interval` seconds for the ids of `topics`, and tells `on_seen(topic, id)`.

    Before each look it calls `on_tick()`; after one that brokers answered, `on_look(admin)` may ask more. It
    also asks for the `limits` of topics. `on_failure` is called if the thread ends by a defect.
    """

    def __init__(
        self,
        admin: Admin,
        topics: Iterable[str],
        on_seen: Callable[[str, str], None],
        on_look: Callable[[Admin], None],
        on_failure: Callable[[Exception], None],
        *,
        limits: TopicLimits | None = None,
        interval: float = 2.0,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._admin = admin
        self._topics = sorted(set(topics))
        self._limits = limits or TopicLimits({})
        self._on_seen = on_seen
        self._on_look = on_look
        self._on_failure = on_failure
        self._interval = interval
        self._on_tick = on_tick
        self._missing: dict[str, float] = {}
        self._first: dict[str, Identity] = {}
        """What the topics were when they were first seen."""
        self._seen: dict[str, Identity] = {}
        self._last_answer = time.monotonic()
        self._told_away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relance-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing more; see `join`."""
        self._stop.set()
        self._limits.wanted.set()

    def join(self, timeout: float) -> bool:
        """Wait for the answer to a question on its way, in seconds. False if none came.

        One that came while the interpreter ends would be handed to it by a thread of librdkafka, and the
        process would die of that, after all was done.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def seen(self, topics: Collection[str]) -> Seen:
        """Which topics they are now, asked at once. Raises RelanceError where nobody says."""
        cluster, now = self._admin.identities(topics)
        for topic, found in now.items():
            self._first.setdefault(topic, found)
            self._seen.setdefault(topic, found)  # what it has grown from is what was there when reading began
        return Seen(cluster, now, dict(self._first))

    def ends(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        """Both ends of their logs, as far as they are stable. Raises RelanceError where nobody says."""
        return self._admin.stable_marks(tps)

    def remember(self) -> None:
        """Look which topics they are before anything is read: what is made, or grows, later is new."""
        try:
            self.seen(self._topics)
        except RelanceError as error:  # whoever reads them first asks again
            _log.debug("looking at the topics: %s", error)

    def missing(self) -> list[str]:
        """Topics that did not exist when last asked."""
        return sorted(self._missing)

    def away(self) -> float:
        """For how many seconds no broker has answered; 0 while one does."""
        return time.monotonic() - self._last_answer if self._told_away else 0.0

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                next_look = time.monotonic() + self._interval
                # Somebody who wants to know what a topic takes need not wait for the next look.
                while self._limits.wanted.wait(max(0.0, next_look - time.monotonic())):
                    if self._stop.is_set():
                        return
                    self._limits.learn(self._admin)
                self._on_tick()
                self._look()
        except Exception as error:  # noqa: BLE001  nobody would miss the thread, but for what it no longer tells
            self._on_failure(error)

    def _look(self) -> None:
        for topic in self._topics:
            if self._stop.is_set():
                return
            try:
                found = self._admin.identity(topic)
            except BrokerUnavailableError as error:
                self._away(error)
                return
            except TopicMissingError:
                self._answered()
                if topic not in self._missing:
                    self._missing[topic] = time.monotonic()
                    _log.warning(
                        "waiting for topic %s: it is gone; make it again with as many partitions as before",
                        topic,
                    )
                continue
            except RelanceError as error:
                _log.debug("looking at %s: %s", topic, error)
                continue
            self._answered()
            if self._missing.pop(topic, None) is not None:
                _log.warning("topic %s is back", topic)
            self._count(topic, found)
            self._on_seen(topic, found.id)
        if self._stop.is_set():
            return
        self._limits.learn(self._admin)
        try:
            self._on_look(self._admin)
        except RelanceError as error:  # the next look asks again
            _log.debug("looking at the groups: %s", error)

    def _count(self, topic: str, found: Identity) -> None:
        before = self._seen.get(topic)
        self._seen[topic] = found
        if before is not None and before.id == found.id and before.partitions < found.partitions:
            # The client reads them from its next look on. What it cannot do is move the keys back.
            _log.warning(
                "topic %s has %d partitions, it had %d: producers put some keys into others from now on, so"
                " records of such a key from before and after may be handled at the same time",
                topic,
                found.partitions,
                before.partitions,
            )

    def _away(self, error: BrokerUnavailableError) -> None:
        if not self._told_away and not self._stop.is_set():
            self._told_away = True
            _log.error("%s; waiting until one does", error)

    def _answered(self) -> None:
        self._last_answer = time.monotonic()
        if self._told_away:
            self._told_away = False
            _log.warning("a broker answers again at %s", self._admin.bootstrap_servers)
